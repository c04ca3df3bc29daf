"""JSON text with every time written alike: UTC, six digits of a second, `Z`; and decimals without an exponent.

msgspec leaves out a fraction that is zero, so one time in a thousand had another form: a program that compares times as
text, or reads them with a fixed format, met it in production first. A zero with ten digits was `0E-10`.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec

_NATIVE_BUT_DECIMALS: Final = (datetime, msgspec.Raw)
_NATIVE: Final = (*_NATIVE_BUT_DECIMALS, Decimal)
_EXPONENT: Final = re.compile(rb'"-?[0-9.]+E[+-][0-9]+"')
_EXPONENT_MAX: Final = 400
"""A decimal beyond that, which no door takes, would be as long as its number says."""
_PLAIN: Final = frozenset({int, str, type(None)})


def to_json(value: Any) -> bytes:
    """Any value that msgspec encodes. Its times are UTC, as those of rows are, and its decimals have digits and a point
    only; JSON text in it stands as it is.
    """
    text = msgspec.json.encode(value)
    # Times here have milliseconds, so those with a fraction end in three zeros. Anything else is looked at again.
    # Most have few or none, which are found sooner than they are counted.
    at = text.find(b'Z"')
    while at >= 0 and text.startswith(b"000", at - 3):
        at = text.find(b'Z"', at + 2)
    if at < 0 and not ((b"E-" in text or b"E+" in text) and _EXPONENT.search(text)):
        return text
    try:
        plain = msgspec.to_builtins(value, builtin_types=_NATIVE, str_keys=True)
    except TypeError:
        # Some dict has decimals for keys, which then stay as they are.
        plain = msgspec.to_builtins(value, builtin_types=_NATIVE_BUT_DECIMALS, str_keys=True)
    return msgspec.json.encode(_spelled(plain))


@lru_cache(maxsize=64)  # a row that is changed often has the same times each time
def time_text(time: datetime) -> str:
    """A time as it stands in JSON: `2026-11-26T09:52:45.756000Z`."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def time_for_people(time: datetime, timespec: str = "seconds") -> str:
    """The same for eyes: `2026-11-26 09:52:45Z`. Every year has four digits, which `strftime` gives no early one."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(' ', timespec)}Z"


def _spelled(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {name: part if type(part) in _PLAIN else _spelled(part) for name, part in value.items()}
    if kind is Decimal:
        return f"{value:f}" if -_EXPONENT_MAX <= value.adjusted() <= _EXPONENT_MAX else str(value)
    if kind is list or kind is tuple:
        return [_spelled(part) for part in value]
    return time_text(value) if isinstance(value, datetime) and value.tzinfo is not None else value
