"""Names that an object of JSON text has twice. RFC 8259 leaves open which of the two values counts.

One reader takes the first, another one the last, and the command that was logged, signed or shown is not the command
that is applied. So every door refuses such text, as I-JSON does (RFC 7493, section 2.3).
"""

import json
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct

_ESCAPED_COLON: Final = b"\\u003"
"""How the escape of a colon begins, which is the only other way to write one."""


class _Repeated(Exception):
    """Ends the reading at the first name that is repeated."""


def repeated_name(text: bytes, again: bytes | None = None) -> str | None:
    """A name that some object of valid JSON text has twice; None: there is none.

    `again` is what msgspec writes of what it has read of the text, for a caller who has that at hand.
    """
    if again is None:
        try:
            again = msgspec.json.encode(msgspec.json.decode(text))
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
            # Some part of it is a number that no reader of ours takes.
            return _sought(text)
    return _sought(text) if may_repeat_names(text, again) else None


def may_repeat_names(text: bytes, again: bytes) -> bool:
    """Whether it must be read closely; `again` is what msgspec writes of what it has read of the text.

    Of two members with one name msgspec keeps the last, so `again` then has fewer colons.
    """
    return text.count(b":") != again.count(b":") or _ESCAPED_COLON in text


@cache
def colons_min(command: type[Struct]) -> int:
    """The colons of an object with the required fields of a command and no others, in which no name can be repeated."""
    if command.__struct_config__.array_like:
        return -1
    return sum(field.required for field in msgspec.structs.fields(command))


def _sought(text: bytes) -> str | None:
    try:
        json.loads(text.decode(), object_pairs_hook=_checked, parse_int=len, parse_float=len)
    except _Repeated as found:
        return str(found)
    except (ValueError, RecursionError):
        # It is not JSON, and its next reader says so.
        return None
    return None


def _checked(members: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            raise _Repeated(name)
        seen.add(name)
