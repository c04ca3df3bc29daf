"""JSON text with every time written alike: UTC, six digits of a second, `Z`.

msgspec leaves out a fraction that is zero, so one time in a thousand had another form: a program that compares times as
text, or reads them with a fixed format, met it in production first.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

_NATIVE: Final = (datetime, msgspec.Raw)
_PLAIN: Final = frozenset({int, str, type(None)})


def to_json(value: Any) -> bytes:
    """Any value that msgspec encodes. Its times are UTC, as those of rows are; JSON text in it stands as it is."""
    text = msgspec.json.encode(value)
    # Times here have milliseconds, so those with a fraction end in three zeros. Anything else is looked at again.
    # Most have few or none, which are found sooner than they are counted.
    at = text.find(b'Z"')
    while at >= 0 and text.startswith(b"000", at - 3):
        at = text.find(b'Z"', at + 2)
    if at < 0:
        return text
    return msgspec.json.encode(_spelled(msgspec.to_builtins(value, builtin_types=_NATIVE, str_keys=True)))


@lru_cache(maxsize=64)  # a row that is changed often has the same times each time
def time_text(time: datetime) -> str:
    """A time as it stands in JSON: `2026-11-26T09:52:45.756000Z`."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _spelled(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {name: part if type(part) in _PLAIN else _spelled(part) for name, part in value.items()}
    if kind is list or kind is tuple:
        return [_spelled(part) for part in value]
    return time_text(value) if isinstance(value, datetime) and value.tzinfo is not None else value
