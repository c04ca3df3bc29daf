"""Columns of MySQL and MariaDB that refuse, or do not keep, some of the texts and bytes that a row may have.

An application has such ones where its tables were made by what it maps, and gets along with them. So a lane does, too,
and says it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import BINARY, CHAR, Connection, Dialect, inspect
from sqlalchemy.types import NullType

from coordinator.service.rows import Row, indexed_columns, key_columns
from coordinator.stores.field_types import choices_of, field_type, hints_of
from coordinator.stores.sql.column_shapes import shape_of
from coordinator.stores.sql.column_types import UTF8_BYTES_MAX
from coordinator.stores.sql.declared_tables import columns_of


def narrow_texts(connection: Connection, models: Sequence[type[Row]]) -> list[str]:
    """What is to be said of each such column."""
    dialect, inspector = connection.dialect, inspect(connection)
    tables = [model for model in models if inspector.has_table(model.table)]
    types = [{each["name"]: each["type"] for each in inspector.get_columns(model.table)} for model in tables]
    return [line for model, found in zip(tables, types, strict=True) for line in _of_model(model, found, dialect)]


def _of_model(model: type[Row], found: Mapping[str, Any], dialect: Dialect) -> Iterator[str]:
    hints, compared = hints_of(model), {*key_columns(model), *model.unique, *indexed_columns(model)}
    for name, own in columns_of(model).items():
        wanted, actual = shape_of(own.type, dialect), shape_of(found.get(name, NullType()), dialect)
        if choices_of(hints[name]) is not None or wanted is None or actual is None or wanted.family != actual.family:
            continue
        place, kind, of = f"{model.table}.{name}", found[name], field_type(hints[name]).kind
        if of is str and isinstance(kind, CHAR) and name not in compared:
            yield f"{place} is CHAR, which drops the spaces at the end of a text: make it VARCHAR"
        if of is bytes and isinstance(kind, BINARY):
            yield f"{place} is BINARY, which fills shorter bytes up with zeros: make it VARBINARY"
        each = UTF8_BYTES_MAX if wanted.family == "texts" else 1
        if actual.counts_bytes and actual.size is not None and (wanted.size or math.inf) * each > actual.size:
            kept = type(kind).__name__
            yield (
                f"{place} is {kept}, with {actual.size} bytes, and a row may have more: a command that writes more "
                f"fails. Make it LONG{kept.removeprefix('TINY').removeprefix('MEDIUM')}, or annotate the field with "
                f"Meta(max_length={actual.size // each})"
            )
