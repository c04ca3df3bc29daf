"""Values of exactly the type that a column has, of those that only are of a class derived from it.

A member of a `(str, Enum)` is a text, and is equal to it, but it has another hash, and a driver may write it otherwise.
The database gives back the plain text. So a row is kept, and found, with that.
"""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID


def _datetime(value: datetime) -> datetime:
    return datetime.combine(date(value.year, value.month, value.day), _time(value))


def _time(value: time | datetime) -> time:
    return time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold)


_MAKERS: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    # The methods of the plain types: a class derived from one may have others.
    (str, str.__str__),
    (int, int.__int__),
    (bytes, lambda value: bytes(memoryview(value))),
    (datetime, _datetime),
    (date, lambda value: date(value.year, value.month, value.day)),
    (time, _time),
    (timedelta, lambda value: timedelta.__add__(value, timedelta())),
    (UUID, lambda value: UUID(int=value.int)),
)
_EXACT: Final = frozenset({bool, *(kind for kind, _ in _MAKERS)})


def exact(value: Any) -> Any:
    """The same value, of the plain type; any other value as it is. A bool is no integer here."""
    if type(value) in _EXACT:
        return value
    for kind, made in _MAKERS:
        if isinstance(value, kind):
            return made(value)
    return value
