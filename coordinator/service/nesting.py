"""The nesting of JSON text, found without a parser: a parser's limit depends on the stack where it runs."""

import re
import secrets
from array import array
from itertools import accumulate, islice
from typing import Final

NESTING_MAX: Final = 100
"""How deep arguments may be nested."""

# An open string is text to the end: the next quotation mark must not be taken for a beginning, and read again.
_REST_OF_STRING: Final = rb'[^"\\]*+(?:\\.[^"\\]*+)*+"?'
# All begin with one class of characters. So `re` looks for these alone, and passes over a long number, say, in a tenth
# of the time that it takes to try each alternative at every byte.
_TOKENS: Final = re.compile(
    rb'["\[{\]}](?:(?<=")' + _REST_OF_STRING + rb"|(?<=[\[{])[\[{]*+|(?<=[\]}])[\]}]*+)", re.DOTALL
)

_QUOTE: Final = b'"'
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Of signed bytes: a level down, and one up."""
_BEGINNING_BYTES: Final = 4096
"""Of a large text its beginning is looked at first: nobody pays for the rest of one that is brackets all through."""
_NO_STEPS: Final = bytes(byte for byte in range(256) if byte not in b'[]{}"')


def is_too_deep(text: bytes, levels_max: int = NESTING_MAX) -> bool:
    """Whether JSON text is nested deeper than so many levels. Of malformed text all counts up to the first fault.

    Whoever sends text of brackets pays less for it than whoever has to look through it, so there is no loop of ours.
    """
    if len(text) <= levels_max or text.count(b"[") + text.count(b"{") <= levels_max:
        return False
    if len(text) > _BEGINNING_BYTES and is_too_deep(text[:_BEGINNING_BYTES], levels_max):
        return True
    if b"\\" in text:
        # Backslashes go in pairs from the first of them on, as a reader takes them; then each quotation mark is one.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(text.translate(_STEPS, _NO_STEPS).split(_QUOTE)[::2])
    return max(accumulate(array("b", outside_strings)), default=0) > levels_max


def has_more_tokens(text: bytes, tokens_max: int) -> bool:
    """Whether `taken_apart` would look at more than so many texts and runs of brackets, each of which takes it time.

    It costs a part of that, and looks no further than it needs.
    """
    return len(text) > tokens_max and next(islice(_TOKENS.finditer(text), tokens_max, None), None) is not None


def taken_apart(text: bytes, level: int) -> tuple[bytes, dict[bytes, bytes]]:
    """JSON text with a mark in place of every array and object so many levels down; and these parts, by their marks.

    So the text around them can be read even if one of them is malformed: no parser looks at the parts. A mark is JSON
    text too, an array. The writer of the text cannot write a mark, since each text has random ones of its own.
    """
    drawn = secrets.token_hex(16).encode()
    taken_out: dict[bytes, bytes] = {}
    kept: list[bytes] = []
    depth = begun = end = 0

    def take_out(value_end: int) -> None:
        nonlocal end
        mark = b'["%s %d"]' % (drawn, len(taken_out))
        taken_out[mark] = text[begun:value_end]
        kept.extend((text[end:begun], mark))
        end = value_end

    for token in _TOKENS.finditer(text):
        byte, count = text[token.start()], token.end() - token.start()
        if byte in b"[{":
            if depth < level <= depth + count:
                begun = token.start() + level - depth - 1
            depth += count
        elif byte in b"]}":
            if depth - count < level <= depth:
                take_out(token.start() + depth - level + 1)
            depth -= count
    if depth >= level:
        take_out(len(text))
    return b"".join((*kept, text[end:])), taken_out
