"""The types of a row's fields beside int, str, bytes and datetime: what is stored of them, and how it is read.

`VALUE_TYPES` has an entry for each; those of decimals and enums are made from what a field says of them, and those of
JSON in `json_values.py`. A database that has a type of its own keeps that. Any other keeps the plain form, an int, a
float or a text, from which the value comes back exactly. What one kind of database cannot keep exactly is refused on
every kind.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from functools import cache
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from msgspec import Struct
from sqlalchemy import BigInteger, Boolean, Date, Double
from sqlalchemy.types import TypeEngine

from coordinator.service.decimal_digits import with_digits
from coordinator.service.exact_types import exact
from coordinator.service.rows import Digits
from coordinator.stores.sql.column_types import COMPARED_CHARACTERS_MAX, TIMES_OF_DAY, UUIDS, decimals, texts

INTEGER_MAX: Final = 2**63 - 1
"""The largest integer that every database can store."""
_EXACT_FLOAT_MAX: Final = 2**53
_UUID_DIGITS: Final = 32
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)
_MIDNIGHT: Final = datetime(2000, 1, 1)  # noqa: DTZ001  # of a day without a zone
_TIMEDELTA_MAX: Final = timedelta(microseconds=INTEGER_MAX)


class UnknownType(TypeError):
    """Raised for a field whose type has no column."""


class WrongType(ValueError):
    """Raised for a value of a type that a field never has, such as a text for an int."""


class WrongKind(WrongType):
    """Raised for a value of another class than all values of the field: whoever wrote the code has a mistake."""


class ValueType(Struct, frozen=True):
    """One type of values. None is no value: nothing here is called with it."""

    kind: Any
    """The class of its values; `dict` for JSON."""
    canonical: Callable[[Any], Any]
    """An equal value, as every database gives it back. Raises ValueError, which says why there is none."""
    sound: str
    """A Python expression that is true only of a `value` that is canonical. Names in braces stand for `constants`."""
    plain: Callable[[Any], int | float | str]
    """The plain form of a canonical value."""
    read: Callable[[Any], Any]
    """The canonical value of what a driver returns that is not sound: its plain form, or the driver's own for it."""
    column: TypeEngine[Any]
    constants: Mapping[str, Any] = {}
    copy: Callable[[Any], Any] | None = None
    """Makes another one, if a value can be changed in place."""
    nested: Callable[[Any], Any] | None = None
    """Of JSON: the value as dicts, lists and what JSON has beside them."""

    def sound_of(self, field: str, names: dict[str, Any]) -> str:
        """The expression for a field; `names` gets the constants that it uses."""
        own = {constant: f"{constant}_of_{field}" for constant in self.constants}
        names.update((own[constant], value) for constant, value in self.constants.items())
        return self.sound.format(**own)


def wrong_type(value: object, words: str) -> WrongKind:
    """The error for a value of another type; `words` name the right one."""
    name = type(value).__name__
    return WrongKind(f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name} where {words} belongs")


def _same(value: Any) -> Any:
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(value, "a bool")
    return value


def _float(value: Any) -> float:
    """An integer is one where a type checker is asked (PEP 484)."""
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise wrong_type(value, "a float")
    if isinstance(value, int) and not -_EXACT_FLOAT_MAX <= value <= _EXACT_FLOAT_MAX:
        raise ValueError("an integer that is no float exactly")
    if value - value != 0:
        raise ValueError(f"the float {value}, which no database keeps")
    # Not all databases keep -0.0, which this makes 0.0.
    return float(value) + 0.0


def _read_float(value: Any) -> float:
    """An integer, or what a column of decimals gives."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise wrong_type(value, "a float")
    found = float(value)
    if found - found != 0:
        raise ValueError("a float that is no number")
    return found + 0.0


def _read_bool(value: Any) -> bool:
    if not isinstance(value, int):
        raise wrong_type(value, "a bool")
    return bool(value)


def _date(value: Any) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise wrong_type(value, "a date")
    made: date = exact(value)
    return made


def _read_date(value: Any) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else _date(value)


def _time(value: Any) -> time:
    if not isinstance(value, time):
        raise wrong_type(value, "a time of day")
    if value.tzinfo is not None:
        raise ValueError("a time of day with a zone")
    made: time = exact(value)
    return made.replace(fold=0)


def _read_time(value: Any) -> time:
    if isinstance(value, timedelta):
        # MySQL's TIME is a span, of up to 838 hours either way.
        if not timedelta(0) <= value < _DAY:
            raise ValueError("a span of more than a day, or a negative one")
        return (_MIDNIGHT + value).time()
    return time.fromisoformat(value) if isinstance(value, str) else _time(value)


def _timedelta(value: Any) -> timedelta:
    if not isinstance(value, timedelta):
        raise wrong_type(value, "a timedelta")
    if not -_TIMEDELTA_MAX <= value <= _TIMEDELTA_MAX:
        raise ValueError(f"a timedelta out of range: at most {_TIMEDELTA_MAX.days} days")
    made: timedelta = exact(value)
    return made


def _read_timedelta(value: Any) -> timedelta:
    return timedelta(microseconds=value) if isinstance(value, int) else _timedelta(value)


def _uuid(value: Any) -> UUID:
    if not isinstance(value, UUID):
        raise wrong_type(value, "a UUID")
    made: UUID = exact(value)
    return made


def _read_uuid(value: Any) -> UUID:
    if not isinstance(value, str):
        return _uuid(value)
    # Without the looks of `UUID` at other forms of a text, which cost three times as long as this.
    return UUID(int=int(value, 16)) if len(value) == _UUID_DIGITS and value.isalnum() else UUID(value)


VALUE_TYPES: Final[Mapping[Any, ValueType]] = {
    bool: ValueType(
        kind=bool,
        canonical=_bool,
        sound="type(value) is bool",
        plain=int,
        read=_read_bool,
        column=Boolean(),
    ),
    float: ValueType(
        kind=float,
        canonical=_float,
        sound="type(value) is float and value - value == 0 and (value or str(value) == '0.0')",
        plain=_same,
        read=_read_float,
        column=Double(),
    ),
    date: ValueType(
        kind=date,
        canonical=_date,
        sound="type(value) is {date}",
        plain=date.isoformat,
        read=_read_date,
        column=Date(),
        constants={"date": date},
    ),
    time: ValueType(
        kind=time,
        canonical=_time,
        sound="type(value) is {time} and value.tzinfo is None and not value.fold",
        plain=lambda value: value.isoformat("microseconds"),
        read=_read_time,
        column=TIMES_OF_DAY,
        constants={"time": time},
    ),
    timedelta: ValueType(
        kind=timedelta,
        canonical=_timedelta,
        sound="type(value) is {timedelta} and -{longest} <= value <= {longest}",
        plain=lambda value: value // _MICROSECOND,
        read=_read_timedelta,
        column=BigInteger(),
        constants={"timedelta": timedelta, "longest": _TIMEDELTA_MAX},
    ),
    UUID: ValueType(
        kind=UUID,
        canonical=_uuid,
        sound="type(value) is {uuid}",
        plain=lambda value: value.hex,
        read=_read_uuid,
        column=UUIDS,
        constants={"uuid": UUID},
    ),
}
"""By the type in a field's annotation."""


@cache
def decimal_type(digits: Digits) -> ValueType:
    """Decimals with so many digits, all of those after the point written."""
    quantum, limit = Decimal((0, (1,), -digits.scale)), Decimal((0, (1,), digits.precision - digits.scale))
    made = with_digits(digits)

    def canonical(value: Any) -> Decimal:
        if not isinstance(value, Decimal):
            raise wrong_type(value, "a Decimal")
        return made(value)

    def read(value: Any) -> Decimal:
        if isinstance(value, float):
            raise wrong_type(value, "a Decimal")
        # MongoDB's driver has a type of its own for them.
        found = value if isinstance(value, Decimal) else Decimal(str(value))
        return found if found.same_quantum(quantum) else canonical(found)

    return ValueType(
        kind=Decimal,
        canonical=canonical,
        sound=(
            "type(value) is {decimal} and value.same_quantum({quantum}) and -{limit} < value < {limit}"
            " and (value or not value.is_signed())"
        ),
        plain=lambda value: f"{value:f}",
        read=read,
        column=decimals(digits.precision, digits.scale),
        constants={"decimal": Decimal, "quantum": quantum, "limit": limit},
    )


@cache
def enum_type(of: type[Enum]) -> ValueType:
    """The members of an enum, kept by their values. Raises UnknownType unless these are all texts or all integers."""
    kinds = {str if isinstance(member.value, str) else type(member.value) for member in of}
    if kinds not in ({str}, {int}) or issubclass(of, Flag):
        raise UnknownType(f"the values of enum {of.__name__} must be all texts or all integers, and no flags")
    for member in of:
        is_text = isinstance(member.value, str)
        if len(member.value) > COMPARED_CHARACTERS_MAX if is_text else abs(member.value) > INTEGER_MAX:
            raise UnknownType(f"the value of {member} is too large for its column")

    members = {member.value: member for member in of}

    def canonical(value: Any) -> Enum:
        if not isinstance(value, of):
            raise wrong_type(value, f"a {of.__name__}")
        return value

    def read(value: Any) -> Enum:
        # Asking the class takes ten times as long; it also knows what `_missing_` says.
        return members[value] if value in members else of(value)

    return ValueType(
        kind=Enum,
        canonical=canonical,
        sound="type(value) is {enum}",
        plain=attrgetter("_value_"),
        read=read,
        column=texts(COMPARED_CHARACTERS_MAX) if kinds == {str} else BigInteger(),
        constants={"enum": of},
    )
