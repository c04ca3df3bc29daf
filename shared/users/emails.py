"""E-mail addresses: which are allowed, and in which form they are kept.

An address in which a character cannot be seen, or turns the direction of others, is refused and not mended: with a
character less it may be another person's. The same goes for characters that Unicode has not assigned, since nobody can
know their forms, and for private ones (RFC 8264, section 9; UTS 39 leaves them out of identifiers, too).

An address is kept in lower case and composed (Unicode's NFC), and with one small sigma (the one that ends a word is
kept as the other, since both have one capital). So two spellings of one address cannot be two users. RFC 5321 leaves
the case of the part before the @ to the mail server, and no server in use tells its users apart by case; RFC 6531 asks
for NFC. No other letters are folded: `ß` is not `ss`.

What is behind the @ names a host, so it is kept as resolvers take it: mapped by UTS 46, with the letters that an
`xn--…` stands for, and without a dot at its end. Of a name that UTS 46 does not allow, the letters are kept as those
before the @. To find out what an `xn--…` stands for takes much longer than to read it, so a host has few characters in
such labels: of one with more they are kept as they are, and a new address with it is refused.
"""

import unicodedata
from contextlib import suppress
from functools import lru_cache
from typing import Annotated, Final

import idna
from msgspec import Meta

from coordinator import at_fault, normalized, unassigned_in, unseen_in

EMAIL_CHARACTERS_MAX: Final = 254
"""The limit of an address as given and as kept: one letter may become several, as `İ` becomes two in lower case."""

ENCODED_CHARACTERS_MAX: Final = 128
"""Of all labels of a host that begin with `xn--`: two of the longest, or a dozen as people have them."""
_REMEMBERED_MAX: Final = 10_000
"""A command's address is asked for several times, and those of a whole batch between."""

SIGMA: Final = "\u03c3"
FINAL_SIGMA: Final = "\u03c2"

_A_LABEL: Final = "xn--"
_FORMAT: Final = "Cf"
"""Of signs that are drawn around numbers and words, too: no address has one."""

# One @ with text on both sides, no spaces or control characters. Only a mail can tell whether the mailbox exists.
Email = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=EMAIL_CHARACTERS_MAX,
        pattern=r"\A[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+\Z",
        description="one `@` with something on both sides; no spaces, and no characters that cannot be seen or that "
        f"Unicode has not assigned; at most {ENCODED_CHARACTERS_MAX} characters in labels that begin with `xn--`. "
        "Kept in lower case and in Unicode's form NFC, its host as UTS 46 maps it, within the same limits; no two "
        "users have the same",
    ),
]


@lru_cache(maxsize=_REMEMBERED_MAX)
def kept_email(email: str) -> str:
    """The address as it is kept; a kept address stays as it is."""
    name, _, host = email.rpartition("@")
    return f"{_folded(name)}@{_kept_host(host)}"


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else normalized(normalized(text).lower().replace(FINAL_SIGMA, SIGMA))


def _kept_host(host: str) -> str:
    kept = _folded(host)
    if not kept.isascii():
        with suppress(idna.IDNAError):
            kept = idna.uts46_remap(kept, std3_rules=False)
    if _A_LABEL in kept and not _is_long_to_read(kept):
        kept = ".".join(map(_letters_of, kept.split(".")))
    return _folded(kept).rstrip(".") or host


def _is_long_to_read(host: str) -> bool:
    return sum(len(label) for label in host.split(".") if label.startswith(_A_LABEL)) > ENCODED_CHARACTERS_MAX


def _letters_of(label: str) -> str:
    """Those that an `xn--…` stands for; itself where it stands for none."""
    with suppress(UnicodeError):
        return idna.ulabel(label) if label.startswith(_A_LABEL) else label
    return label


def without_unseen(email: str) -> str:
    """An address from before such characters were refused, as it looks to a reader."""
    return email if email.isascii() else "".join(letter for letter in email if unseen_in(letter) is None)


def check_email(field: str, email: object) -> None:
    """Raise ValueError, naming the field, for an address with a character that none may have, or too long as kept."""
    if not isinstance(email, str):
        return
    if email.isascii():
        _check_labels(field, email.lower())
        return
    if (unassigned := unassigned_in(email)) is not None:
        raise at_fault(field, f"Expected an address of assigned characters, without {unassigned}")
    if (unseen := unseen_in(email)) is not None:
        raise at_fault(field, f"Expected an address without the character {unseen}")
    if (sign := next((letter for letter in email if unicodedata.category(letter) == _FORMAT), None)) is not None:
        raise at_fault(field, f"Expected an address without signs of formats, such as U+{ord(sign):04X}")
    kept = kept_email(email)
    _check_labels(field, kept)
    characters = len(kept)
    if characters > EMAIL_CHARACTERS_MAX:
        text = f"Expected an address of at most {EMAIL_CHARACTERS_MAX} characters in lower case, not {characters}"
        raise at_fault(field, text)


def _check_labels(field: str, email: str) -> None:
    if _A_LABEL in email and _is_long_to_read(email.rpartition("@")[2]):
        text = (
            f"Expected an address with at most {ENCODED_CHARACTERS_MAX} characters in labels that begin with {_A_LABEL}"
        )
        raise at_fault(field, text)
