"""How deep JSON text is nested, found out without a parser: the limit of one is that of the stack where it runs."""

import re
from typing import Final

NESTING_MAX: Final = 100
"""How deep arguments may be nested."""

# One that stays open is text to the end: the next quotation mark must not be taken for a beginning, and read again.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_STRINGS = re.compile(_STRING, re.DOTALL)
_TOKENS = re.compile(_STRING + rb"|[\[{]++|[\]}]++", re.DOTALL)
_OPENERS = (b"[", b"{")


def is_too_deep(text: bytes) -> bool:
    """Whether JSON text is nested deeper than NESTING_MAX levels."""
    if len(text) <= NESTING_MAX or sum(map(text.count, _OPENERS)) <= NESTING_MAX:
        return False
    depth = 0
    for byte in _STRINGS.sub(b"", text):
        if byte in b"[{":
            depth += 1
            if depth > NESTING_MAX:
                return True
        elif byte in b"]}":
            depth -= 1
    return False


def without_the_deep(text: bytes, level: int) -> tuple[bytes, dict[bytes, bytes]]:
    """JSON text with a string in the place of every value, `level` levels down, that is nested too deep itself.

    Also those values, by the strings, which are JSON text too.
    """
    taken_out: dict[bytes, bytes] = {}
    kept: list[bytes] = []
    depth = deepest = begun = end = 0

    def take_out(value_end: int) -> None:
        nonlocal end
        if deepest - level >= NESTING_MAX:
            mark = b'"<nested deeper than %d levels: %d>"' % (NESTING_MAX, len(taken_out))
            taken_out[mark] = text[begun:value_end]
            kept.extend((text[end:begun], mark))
            end = value_end

    for token in _TOKENS.finditer(text):
        byte, count = text[token.start()], token.end() - token.start()
        if byte in b"[{":
            if depth < level <= depth + count:
                begun, deepest = token.start() + level - depth - 1, level
            depth += count
            deepest = max(deepest, depth)
        elif byte in b"]}":
            if depth - count < level <= depth:
                take_out(token.start() + depth - level + 1)
            depth -= count
    if depth >= level:
        take_out(len(text))
    return b"".join((*kept, text[end:])), taken_out
