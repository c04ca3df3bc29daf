"""The tables that rows declare by their classes."""

from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Meta, Struct
from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, MetaData, String, Table, Text, UniqueConstraint
from sqlalchemy.dialects.mysql import DATETIME, LONGBLOB, LONGTEXT
from sqlalchemy.types import TypeEngine

from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Row
from coordinator.service.service import Service

COMPARED_CHARACTERS_MAX: Final = 255
"""The width of a text by which rows are found, if its type says none."""
_WIDTH_MAX: Final = 16_383
"""The characters of four bytes that a row of MySQL has room for."""


class UnknownType(TypeError):
    """Raised for a field whose type has no column."""


class _ColumnType(Struct, frozen=True):
    kind: Any
    is_optional: bool
    width: int | None


def tables_of(service: Service) -> MetaData:
    """The tables of a service: those that it describes, and one for each other model.

    Raises ConfigurationError for a model with a field whose type has no column.
    """
    return _tables(service.metadata, service.models)


def columns_of(model: type[Row]) -> dict[str, Column[Any]]:
    """The columns that its class declares, by name; a field whose type has no column is left out."""
    hints = hints_of(model)
    columns = {}
    for name in model.__struct_fields__:
        with suppress(UnknownType, KeyError):
            columns[name] = _column(model, name, _field(hints[name]))
    return columns


@lru_cache(maxsize=64)
def _tables(known: MetaData | None, models: tuple[type[Row], ...]) -> MetaData:
    tables = MetaData()
    for table in () if known is None else known.tables.values():
        table.to_metadata(tables)
    for model in models:
        if model.table not in tables.tables:
            _declare(model, tables)
    return tables


def hints_of(model: type[Row]) -> dict[str, Any]:
    """The annotations of the fields; empty for a model whose annotations name what its module does not have."""
    try:
        return get_type_hints(model, include_extras=True)
    except NameError:
        return {}


def _declare(model: type[Row], tables: MetaData) -> None:
    hints = hints_of(model)
    columns = []
    for name in model.__struct_fields__:
        try:
            columns.append(_column(model, name, _field(hints.get(name, Any))))
        except UnknownType as error:
            raise ConfigurationError(f"{model.__name__}.{name}: {error}") from None
    uniques = [UniqueConstraint(column, name=f"{model.table}_{column}_unique") for column in model.unique]
    Table(model.table, tables, *columns, *uniques, mysql_engine="InnoDB", mysql_charset="utf8mb4")


def _column(model: type[Row], name: str, field: _ColumnType) -> Column[Any]:
    is_compared = name == model.key or name in model.unique
    kind = _type(field, is_compared=is_compared)
    return Column(name, kind, primary_key=name == model.key, autoincrement=False, nullable=field.is_optional)


def _type(field: _ColumnType, *, is_compared: bool) -> TypeEngine[Any]:
    if field.kind is int:
        return BigInteger()
    if field.kind is str:
        width = field.width or (COMPARED_CHARACTERS_MAX if is_compared else None)
        return _text(width)
    if field.kind is bytes:
        return LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
    if field.kind is datetime:
        return DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")
    raise UnknownType(
        f"a row cannot hold {getattr(field.kind, '__name__', field.kind)}: it holds int, str, bytes, datetime"
    )


def _text(width: int | None) -> TypeEngine[Any]:
    """Text is compared byte by byte on every database, as Python compares it."""
    if width is None or width > _WIDTH_MAX:
        return Text().with_variant(LONGTEXT(collation="utf8mb4_bin"), "mysql", "mariadb")
    return (
        String(width)
        .with_variant(String(width, collation="utf8mb4_bin"), "mysql", "mariadb")
        .with_variant(String(width, collation="C"), "postgresql")
    )


def _field(hint: Any) -> _ColumnType:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        field = _field(arguments[0])
        widths = [each.max_length for each in arguments[1:] if isinstance(each, Meta) and each.max_length is not None]
        return _ColumnType(field.kind, field.is_optional, min(widths)) if widths else field
    if origin in (Union, UnionType):
        others = [part for part in arguments if part is not NoneType]
        if len(others) != 1:
            raise UnknownType(f"{hint} is of several types")
        field = _field(others[0])
        return _ColumnType(field.kind, NoneType in arguments, field.width)
    if origin is Literal:
        kinds = {type(value) for value in arguments if value is not None}
        if kinds == {str}:
            # Not the longest one's: a later release may have longer ones.
            return _ColumnType(str, None in arguments, COMPARED_CHARACTERS_MAX)
        if kinds == {int}:
            return _ColumnType(int, None in arguments, None)
        raise UnknownType(f"{hint} is of several types")
    return _ColumnType(hint, is_optional=False, width=None)
