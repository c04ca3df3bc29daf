"""What a field of a row may hold, and what is wrong with a value that it may not hold."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

from msgspec import Struct

from coordinator.service.exact_types import exact
from coordinator.stores.value_types import ValueType, WrongType, wrong_type


class FieldCheck(Struct, frozen=True):
    """The allowed values of one field; `kinds` is empty if the database has to check it."""

    name: str
    kinds: tuple[type, ...]
    is_optional: bool
    is_ascii: bool
    low: int
    high: int
    width: int | None
    is_compared: bool
    """Whether rows are found by it: it is the key, unique or in an index."""
    is_ordered: bool = False
    """Whether rows are put in order by it: it is the key of a model with an index."""
    values: ValueType | None = None
    """The type of its values, if they are more than plain."""
    choices: frozenset[Any] | None = None
    """The values that its `Literal` has; None: it has none."""
    broken: Callable[[Any], str | None] | None = None
    """Which limit of its annotation a value breaks, such as `Meta(ge=0)`; None: the annotation has none."""


class _KindWords:
    """The name of a kind of value in messages."""

    names: ClassVar[dict[type, str]] = {
        int: "an integer",
        str: "text",
        bytes: "bytes",
        datetime: "a time with its zone",
    }


def canonical(field: FieldCheck, value: Any) -> Any:
    """A value as every database gives it back.

    Raises ValueError, which says why there is none, and WrongType for a value of another type, or of no `Literal` of
    the field's.
    """
    canonical = _unlimited(field, value)
    problem = None if field.broken is None or value is None else field.broken(canonical)
    if problem is not None:
        raise ValueError(f"{problem}, and it is {canonical!r:.100}")
    return canonical


def _unlimited(field: FieldCheck, value: Any) -> Any:
    if field.values is not None and value is not None:
        return field.values.canonical(value)
    if field.kinds:
        value = exact(value)
    problem = _problem(field, value)
    if problem is not None:
        raise ValueError(problem)
    return value.astimezone(UTC) if datetime in field.kinds and isinstance(value, datetime) else value


def _problem(field: FieldCheck, value: object) -> str | None:
    """The fault of a value; None: it has none. Raises WrongType."""
    if value is None:
        return None if field.is_optional else "it is None, and must not be"
    if not field.kinds:
        return None
    if isinstance(value, bool) or not isinstance(value, field.kinds):
        wanted = " or ".join(_KindWords.names[kind] for kind in field.kinds)
        raise wrong_type(value, wanted)
    if field.choices is not None and value not in field.choices:
        raise WrongType(f"{value!r:.100} is none of {', '.join(sorted(map(repr, field.choices)))}")
    if isinstance(value, int) and not field.low <= value <= field.high:
        return f"an integer out of range: {field.low} to {field.high}"
    if isinstance(value, str | bytes) and field.width is not None and len(value) > field.width:
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{len(value)} {unit}, and at most {field.width} fit"
    if isinstance(value, str):
        return _text_problem(field, value)
    return _time_problem(value) if isinstance(value, datetime) else None


def _text_problem(field: FieldCheck, value: str) -> str | None:
    if "\0" in value:
        return "text with a NUL character"
    if field.is_ascii and not value.isascii():
        return "text that is not ASCII"
    if field.is_compared and value.endswith(" "):
        # MySQL and MariaDB take it for the same text without the space, and the other databases do not.
        return "text that ends in a space, by which rows are found"
    if field.is_ordered and min(value, default=" ") < " ":
        # MySQL and MariaDB put it in order as if spaces came after each text.
        return "text with a control character, by which rows are put in order"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "text with half a surrogate pair"
    return None


def _time_problem(value: datetime) -> str | None:
    if value.utcoffset() is None:
        raise WrongType("a time without its zone")
    if value.microsecond % 1000:
        return "a time with microseconds, and databases keep milliseconds: .replace(microsecond=0) drops them"
    try:
        value.astimezone(UTC)
    except OverflowError:
        return "a time out of range in UTC"
    return None
