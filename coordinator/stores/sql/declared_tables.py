"""The tables that rows declare by their classes."""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Column, Index, MetaData, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.sql import quoted_name
from sqlalchemy.types import TypeEngine

from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Row, indexed_columns, indexes_of, key_columns, ordered_index
from coordinator.service.service import Service
from coordinator.stores.field_types import FieldType, field_type, hints_of
from coordinator.stores.sql.column_types import BYTES, COMPARED_CHARACTERS_MAX, TIMES, texts
from coordinator.stores.sql.mapped_columns import fit_columns
from coordinator.stores.value_types import UnknownType

WITHOUT_PRIMARY: Final = "IGNORE INDEX (PRIMARY)"
"""MySQL's and MariaDB's hint for rows that an index has in the order of their keys."""
_NAME_CHARACTERS_MAX: Final = 63
_BYTE_BY_BYTE: Final[dict[str, Any]] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_OF_TEXTS: Final = (
    *("mysql_charset", "mysql_collate", "mysql_default_charset", "mysql_default_collate"),
    *("mariadb_charset", "mariadb_collate", "mariadb_default_charset", "mariadb_default_collate"),
)
"""Of the arguments of a table those that say how its texts are kept."""


def quoted(name: str) -> quoted_name:
    """The name of a table or column, for SQLAlchemy, which does not know each word that some server reserves."""
    return quoted_name(name, quote=True)


def tables_of(service: Service) -> MetaData:
    """The tables of a service: those that it describes or its models name, and one for each other model.

    Raises ConfigurationError for a model with a field whose type has no column.
    """
    return _tables(service.metadata, service.models)


def index_name(model: type[Row], columns: Sequence[str]) -> str:
    """The name of one of a model's indexes, as short as every database takes it."""
    name = f"{model.table}_{'_'.join(columns)}_index"
    if len(name) <= _NAME_CHARACTERS_MAX:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{name[: _NAME_CHARACTERS_MAX - len(digest) - 1]}_{digest}"


def missing_indexes(model: type[Row], there: Iterable[Sequence[str]], quote: str) -> list[str]:
    """The statements that make those of a model's indexes that are missing. `there` has the columns of each index."""
    known = [tuple(columns) for columns in there]
    return [_create_index(model, columns, quote) for columns in indexes_of(model) if not _has_first(columns, known)]


def _has_first(columns: tuple[str, ...], there: Iterable[tuple[str, ...]]) -> bool:
    """Whether one of these indexes begins with these columns."""
    return any(each[: len(columns)] == columns for each in there)


def _create_index(model: type[Row], columns: tuple[str, ...], quote: str) -> str:
    def quoted(*names: str) -> str:
        return ", ".join(f"{quote}{name}{quote}" for name in names)

    named = quoted(index_name(model, columns))
    return f"CREATE INDEX {named} ON {quoted(model.table)} ({quoted(*ordered_index(model, columns))});"


class OrderedIndex(NamedTuple):
    """One that ends with the key, of a table that is declared."""

    last: str
    """The last of the columns before the key."""
    hint: str
    """MySQL's, for a selection by all columns before the key; empty where it needs none."""


def ordered_indexes(model: type[Row], table: Table) -> dict[tuple[str, ...], OrderedIndex]:
    """A model's indexes, by their columns in order of the columns' names, as selections have them.

    Rows with values in all columns of an index that ends with the key are in it in order of their keys. A server may
    go along the primary key all the same, and read all rows with other values on its way. It has no choice if it is
    asked for an order with the last column before the key, and does not know that it is constant: for a range of one
    value. An index of a table that is declared elsewhere may not end with the key, and then it would have to sort.

    Where another index has all columns of the rows, MySQL goes along this one from its very beginning, unless a hint
    names it. With the hint it does that where this one has them all, if no column before the last is constant.
    """
    found = {}
    for columns in indexes_of(model):
        wanted = ordered_index(model, columns)
        for index in table.indexes:
            parts = tuple(getattr(part, "name", "") for part in index.expressions)
            if _has_first(wanted, [parts]):
                has_all = len(columns) == 1 and set(model.__struct_fields__).issubset(parts)
                hint = "" if has_all else _hint(table.name, str(index.name))
                found[tuple(sorted(columns))] = OrderedIndex(columns[-1], hint)
    return found


def _hint(table: str, index: str) -> str:
    """Where the index has another name MySQL warns, and goes on. MariaDB before 12 takes it for a comment."""
    return f"/*+ INDEX(`{table}` `{index}`) */"


def indexes_without_key(model: type[Row], there: Iterable[Sequence[str]], quote: str) -> list[str]:
    """The statements that make those of a model's indexes that are there without the key at their end, with it."""
    known = [tuple(columns) for columns in there]
    return [
        _create_index(model, columns, quote)
        for columns in indexes_of(model)
        if not _has_first(ordered_index(model, columns), known)
    ]


def columns_of(model: type[Row]) -> dict[str, Column[Any]]:
    """The columns that its class declares, by name; a field whose type has no column is left out."""
    hints = hints_of(model)
    columns = {}
    for name in model.__struct_fields__:
        with suppress(UnknownType, KeyError):
            columns[name] = _column(model, name, field_type(hints[name]))
    return columns


@lru_cache(maxsize=64)
def _tables(known: MetaData | None, models: tuple[type[Row], ...]) -> MetaData:
    tables = MetaData()
    for table in () if known is None else known.tables.values():
        _copy(table, tables)
    for model in models:
        if model.table not in tables.tables:
            if model.__table__ is None:
                _declare(model, tables)
            else:
                _take(model.__table__, tables)
        table = tables.tables[model.table]
        fit_columns(model, table)
        for column in _columns(model, [name for name in model.__struct_fields__ if name not in table.columns]):
            # Such as a version, of which nobody else needs to know.
            table.append_column(column)
    return tables


def _take(table: Table, tables: MetaData) -> None:
    """Copy a table that is declared elsewhere, and those that its foreign keys refer to."""
    if table.key not in tables.tables:
        _copy(table, tables)
        for key in table.foreign_keys:
            with suppress(NoReferenceError):
                _take(key.column.table, tables)


def _copy(table: Table, tables: MetaData) -> None:
    """Copy a table. Where it says nothing of its texts, MySQL is to compare them byte by byte, as those of `_declare`:
    its default takes different ones for the same, and no lane would find rows by them."""
    copied = table.to_metadata(tables, name=quoted(table.name))
    for column in copied.columns:
        column.name = quoted(column.name)
    if not any(name in copied.kwargs for name in _OF_TEXTS):
        copied.kwargs.update(_BYTE_BY_BYTE)


def _declare(model: type[Row], tables: MetaData) -> None:
    uniques = [UniqueConstraint(column, name=f"{model.table}_{column}_unique") for column in model.unique]
    # In the order of the key, which may be another one than that of the fields.
    primary = () if isinstance(model.key, str) else (PrimaryKeyConstraint(*model.key),)
    Table(
        quoted(model.table),
        tables,
        *_columns(model, model.__struct_fields__),
        *primary,
        *uniques,
        *(Index(index_name(model, index), *ordered_index(model, index)) for index in indexes_of(model)),
        mysql_engine="InnoDB",
        **_BYTE_BY_BYTE,
    )


def _columns(model: type[Row], names: Sequence[str]) -> Sequence[Column[Any]]:
    hints = hints_of(model)
    columns = []
    for name in names:
        try:
            columns.append(_column(model, name, field_type(hints.get(name, Any))))
        except UnknownType as error:
            raise ConfigurationError(f"{model.__name__}.{name}: {error}") from None
    return columns


def _column(model: type[Row], name: str, field: FieldType) -> Column[Any]:
    is_compared = name in key_columns(model) or name in model.unique or name in indexed_columns(model)
    kind = _type(field, is_compared=is_compared)
    return Column(quoted(name), kind, primary_key=name == model.key, autoincrement=False, nullable=field.is_optional)


def _type(field: FieldType, *, is_compared: bool) -> TypeEngine[Any]:
    if field.values is not None:
        return field.values.column
    if field.kind is int:
        return BigInteger()
    if field.kind is str:
        return texts(field.width or (COMPARED_CHARACTERS_MAX if is_compared else None))
    return BYTES if field.kind is bytes else TIMES
