"""Tables by model."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from sqlalchemy import Column, MetaData, Table

from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Row, key_columns
from coordinator.stores import lane_tables
from coordinator.stores.row_makers import value_types_of
from coordinator.stores.sql.declared_tables import OrderedIndex, ordered_indexes
from coordinator.stores.value_types import ValueType

T = TypeVar("T")


class TableOf(Struct, frozen=True):
    """How a model is stored: its table, and its columns in one fixed order."""

    name: str
    keys: tuple[str, ...]
    """The columns of its key, in order."""
    columns: tuple[str, ...]
    table: Table
    value_types: Mapping[str, ValueType] = {}
    """By column, the types of values that are more than plain."""
    indexes: Mapping[tuple[str, ...], OrderedIndex] = {}
    """Those that end with the key, by their columns in order of the columns' names."""

    @property
    def others(self) -> tuple[str, ...]:
        """All columns but those of the key."""
        return tuple(column for column in self.columns if column not in self.keys)

    def column(self, name: str) -> Column[Any]:
        """The definition of a column."""
        return self.table.c[name]


class Schema:
    """The tables of one database: the service's and the lane's."""

    def __init__(self, tables: MetaData) -> None:
        self._metadata = (lane_tables.metadata, tables)
        self._known: dict[type[Row], TableOf] = {}
        every = [table for metadata in self._metadata for table in metadata.tables.values()]
        # SQLAlchemy's own texts do not let a name that it quotes be made lower case.
        self.names = frozenset(str(name) for table in every for name in (table.name, *table.columns.keys()))
        """The names of all tables and columns."""

    @property
    def used(self) -> Collection[TableOf]:
        """The tables that were asked for so far."""
        return self._known.values()

    def of(self, model: type[Row]) -> TableOf:
        """Raises ConfigurationError when the service declared no such table."""
        known = self._known.get(model)
        if known is None:
            table = next((m.tables[model.table] for m in self._metadata if model.table in m.tables), None)
            if table is None:
                raise ConfigurationError(f"{model.__name__} is no row of this service: declare it with its `row`")
            known = self._known[model] = TableOf(
                name=model.table,
                keys=key_columns(model),
                columns=tuple(model.__struct_fields__),
                table=table,
                value_types=value_types_of(model),
                indexes=ordered_indexes(model, table),
            )
        return known


class ByModel(dict[type[Row], T]):
    """Values made from the tables of models, each once, when it is first asked for."""

    def __init__(self, schema: Schema, make: Callable[[TableOf], T]) -> None:
        super().__init__()
        self._schema = schema
        self._make = make

    def __missing__(self, model: type[Row]) -> T:
        made = self[model] = self._make(self._schema.of(model))
        return made


def writes(table: TableOf, quote: str) -> Sequence[str]:
    """Every way in which a lane changes a table."""
    name, key = f"{quote}{table.name}{quote}", f"{quote}{table.keys[0]}{quote}"
    columns = ", ".join(f"{quote}{column}{quote}" for column in table.columns)
    return (
        f"INSERT INTO {name} ({columns}) SELECT {columns} FROM {name}",  # noqa: S608  # names are code, not input
        f"UPDATE {name} SET {key} = {key}",  # noqa: S608
        f"DELETE FROM {name}",  # noqa: S608
    )
