"""Rows: immutable records of one table (or collection), and references to them.

A row's class names its table, its key and its unique columns, and says nothing else about storage. The lane's stores
and the repositories map it to SQL columns or to document fields of the same names (in MongoDB the key is `_id`).
"""

from datetime import datetime
from typing import ClassVar, Generic, TypeVar

from msgspec import Struct

Scalar = int | str | bytes | datetime | None
"""The types of a row's fields. Datetimes are UTC with a resolution of one millisecond."""


class Row(Struct, frozen=True, kw_only=True):
    """One row. Changing it means saving another with the same key."""

    table: ClassVar[str]
    key: ClassVar[str]
    unique: ClassVar[tuple[str, ...]] = ()


class VersionedRow(Row, frozen=True, kw_only=True):
    """A row that clients may change if it has a given version. The unit of work counts the version up."""

    version: int = 1


R = TypeVar("R", bound=Row)
R_co = TypeVar("R_co", bound=Row, covariant=True)


class Ref(Struct, Generic[R_co], frozen=True):
    """Names the row of `model` whose `column` (its key, or a unique column) is `value`."""

    model: type[R_co]
    column: str
    value: int | str


def by_key(model: type[R], value: int | str) -> Ref[R]:
    """The row with this key."""
    return Ref(model, model.key, value)


def by_unique(model: type[R], column: str, value: int | str) -> Ref[R]:
    """The row that has this value in a unique column."""
    return Ref(model, column, value)
