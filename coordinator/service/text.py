"""Text from anywhere, made fit for JSON, for a message, for a shell and for every database."""

import re
import unicodedata
from typing import Final

# What is drawn as nothing (Default_Ignorable_Code_Point of Unicode, without the next two), line separators, the marks
# that turn the direction of a text, and those of annotations.
_NOTHING: Final = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# What Unicode never gives a meaning (noncharacters), what each may give one of his own (private use), and the planes
# in which there is nothing else. No release of Unicode has changed any of it, so every process decides alike.
_MEANINGLESS: Final = (
    r"\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U0001fffe\U0001ffff\U0002fffe\U0002ffff\U0003fffe-\U0010ffff"
)
_JOINERS: Final = r"\u200c\u200d"
_SELECTORS: Final = r"\ufe00-\ufe0f"
_WIDE: Final = rf"[^\x00-\x9f{_NOTHING}{_MEANINGLESS}{_JOINERS}{_SELECTORS}]"

_BLANKS: Final = r" \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
VISIBLE: Final = (
    rf"\A(?![{_BLANKS}])(?:[ -~]*|(?:[ -~]|{_WIDE}[{_SELECTORS}]?(?:[{_JOINERS}](?![ -~]|\Z))?)*)(?<![{_BLANKS}])\Z"
)
"""The pattern of a text in which every character can be seen, as RFC 8264 wants it of names (FreeformClass).

It has no characters of private use, nor what is no character at all. Those that are not assigned yet, which RFC 8264
leaves out, too, it takes: which they are depends on the release of Unicode, and two processes may have two.

A joiner may stand between two letters beyond ASCII, and a variation selector behind one: Persian and emoji need them.
A blank stands within the text only: nobody sees it at an end, and a column by which rows are found takes none there.
"""

_BLANK_END: Final = re.compile(rf"\A[{_BLANKS}]|[{_BLANKS}]\Z")
_UNSEEN: Final = re.compile(rf"[\x00-\x1f\x7f-\x9f{_NOTHING}{_MEANINGLESS}{_JOINERS}{_SELECTORS}]")
_UNASSIGNED: Final = frozenset({"Cn", "Co"})
"""General categories: of what no release has assigned, or never will, and of private use."""
_UNCERTAIN: Final = re.compile(r"[^ -~]+")
"""Runs of what is not certain to be seen."""


def storable(text: str, characters_max: int) -> str:
    """The beginning of a text, without NULs, which PostgreSQL does not take, and without halves of surrogate pairs."""
    return text[:characters_max].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def storable_end(text: str, characters_max: int) -> str:
    """The end of a text, made fit in the same way: it is the most useful part of a traceback."""
    return storable(text[-characters_max:], characters_max)


def is_encodable(text: str) -> bool:
    """Whether it has no half of a surrogate pair: UTF-8 has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def normalized(text: str) -> str:
    """The one form of all spellings of a text (Unicode's NFC): `é` may be one character, or `e` and an accent.

    It may be longer than the text: `check_normalized` at the door. A text in this form stays as it is.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def has_blank_end(text: str) -> bool:
    """Whether it begins or ends with a space, of whatever width."""
    return _BLANK_END.search(text) is not None


def unseen_in(text: str) -> str | None:
    """The first character that cannot be seen, has no meaning, or turns others around: `U+200B ZERO WIDTH SPACE`."""
    found = _UNSEEN.search(text)
    if found is None:
        return None
    letter = found.group()
    return f"U+{ord(letter):04X} {unicodedata.name(letter, '')}".rstrip()


def unassigned_in(text: str) -> str | None:
    """The first character of which nobody knows what it is, such as `U+0378`: Unicode, in the release that this Python
    has, has not assigned it, or leaves it to private use. RFC 8264 and UTS 39 leave both out of identifiers.

    For the door through which a name comes, once: elsewhere another release of Unicode could decide otherwise.
    """
    if text.isascii():
        return None
    found = next((letter for letter in text if unicodedata.category(letter) in _UNASSIGNED), None)
    return None if found is None else f"U+{ord(found):04X}"


def printable(text: str, keep: str = "") -> str:
    """A text whose control characters and invisible characters are escaped, as in JSON: no terminal obeys them, and
    what is shown is what is there.

    Dead letters and messages of errors contain texts of strangers. With `keep` a line's end, JSON text stays the same.
    """
    return (
        text if text.isascii() and text.isprintable() else _UNCERTAIN.sub(lambda run: _shown(run.group(), keep), text)
    )


def _shown(run: str, keep: str) -> str:
    if run.isprintable() and not _UNSEEN.search(run):
        return run
    return "".join(each if _is_seen(each) or each in keep else _escaped(each) for each in run)


def _is_seen(letter: str) -> bool:
    return letter.isprintable() and not _UNSEEN.search(letter)


def _escaped(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def in_quotes(text: str) -> str:
    """A text as one word of a POSIX shell, in which nothing is special: `'a'\\''b'`.

    A line that advises a command may quote a stranger, and is copied into a shell.
    """
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number and what is counted: `1 key`, `2 keys`. `many` is for what has no plural by an s alone."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
