"""Columns of tables that an application declares, in the copies of them that a lane has, as a lane needs them.

What SQLAlchemy makes of a column without a word about the kind of database may take less than a row may have. In the
copy it is what a class's own column would be, if it is the same to Python. So the tables that `migrate` makes of it are
such as it accepts, and whoever has such a table already keeps it as it is.
"""

import math
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import Column, Enum, Table
from sqlalchemy.types import TypeEngine

from coordinator.service.rows import Row, indexed_columns, is_selected, key_columns
from coordinator.stores.field_types import enum_of, field_type, hints_of
from coordinator.stores.sql.column_types import UNSAID_BYTES, UTF8_BYTES_MAX, byte_by_byte, of_floats, widened
from coordinator.stores.sql.enum_texts import without_members
from coordinator.stores.value_types import UnknownType

_MAPPED_AS: Final = "coordinator_mapped_as"


def fit_columns(model: type[Row], table: Table) -> None:
    """Change the columns of a copied table."""
    hints = hints_of(model)
    compared = {*key_columns(model), *model.unique, *indexed_columns(model)} if is_selected(model) else set()
    for name in model.__struct_fields__:
        if name not in table.columns:
            continue
        column = table.columns[name]
        if name in compared:
            column.type = byte_by_byte(column.type)
        if isinstance(column.type, Enum):
            column.type = without_members(column.type, enum_of(hints.get(name)))
        elif name in hints:
            if _is_float(hints[name]):
                column.type = of_floats(column.type)
            _widen(column, hints[name])


def mapped_as(column: Column[Any]) -> TypeEngine[Any]:
    """The type that the application gives a column, whose tables may be there already."""
    mapped: TypeEngine[Any] = column.info.get(_MAPPED_AS, column.type)
    return mapped


def _widen(column: Column[Any], hint: Any) -> None:
    kind = column.type
    wider = widened(kind)
    if wider is not None and _most_bytes(hint) > UNSAID_BYTES:
        column.info = {**column.info, _MAPPED_AS: kind}
        column.type = wider


def _is_float(hint: Any) -> bool:
    with suppress(UnknownType):
        return field_type(hint).kind is float
    return False


def _most_bytes(hint: Any) -> float:
    """What the largest value of a field takes, if these are floats, texts or bytes: of floats more than any."""
    with suppress(UnknownType):
        field = field_type(hint)
        if field.kind in (float, str, bytes):
            return math.inf if field.width is None else field.width * (UTF8_BYTES_MAX if field.kind is str else 1)
    return 0
