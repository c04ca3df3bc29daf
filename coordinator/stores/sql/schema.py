"""What the SQL stores have in common: tables by model, statements by table, rows by columns."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import Column, MetaData, Table

from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import R, Row
from coordinator.stores import lane_tables
from coordinator.stores.port import BatchFault

BACKLOG = f"SELECT lane, COUNT(*), MIN(created_at) FROM {lane_tables.OutboxEntry.table} GROUP BY lane"  # noqa: S608
"""What waits in the outbox, by target."""


class TableOf(Struct, frozen=True):
    """How a model is stored: its table, and its columns in one fixed order."""

    name: str
    key: str
    columns: tuple[str, ...]
    table: Table

    @property
    def others(self) -> tuple[str, ...]:
        """All columns but the key."""
        return tuple(column for column in self.columns if column != self.key)

    def column(self, name: str) -> Column[Any]:
        """The definition of a column."""
        return self.table.c[name]

    def values(self, row: Row) -> tuple[Any, ...]:
        """A row's fields in the order of the columns."""
        return tuple(getattr(row, column) for column in self.columns)


class Schema:
    """The tables of one database: the service's and the lane's."""

    def __init__(self, metadata: MetaData | None) -> None:
        self._metadata = (lane_tables.metadata, *(() if metadata is None else (metadata,)))
        self._known: dict[type[Row], TableOf] = {}
        tables = [table for each in self._metadata for table in each.tables.values()]
        self.names = frozenset(table.name for table in tables).union(*(table.columns.keys() for table in tables))
        """Of all tables and their columns."""

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
                raise ConfigurationError(f"{model.__name__}: no table {model.table!r} in the service's metadata")
            known = self._known[model] = TableOf(model.table, model.key, tuple(model.__struct_fields__), table)
        return known


def row_of(model: type[R], columns: Sequence[str], values: Sequence[Any]) -> R:
    """A row of the values of a result, in the order of the columns."""
    fields: Mapping[str, Any] = dict(zip(columns, values, strict=True))
    return model(**fields)


def aware(value: Any) -> Any:
    """Datetimes that come without a zone are UTC."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def naive(value: Any) -> Any:
    """A datetime for a database that keeps no zone: UTC without saying so."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


def missing_table(name: str, url_setting: str, detail: str) -> ConfigurationError:
    """The schema is not there, or not as it must be."""
    return ConfigurationError(
        f"table {name} is not as it must be in the database of {url_setting}: run `coordinator migrate` ({detail})"
    )


def dropped(written: int, given: int, tables: Iterable[str]) -> BatchFault:
    """A rule of the database's silently wrote fewer rows than it was given, or a row to change was gone."""
    return BatchFault(f"wrote {written} of {given} rows of {', '.join(dict.fromkeys(tables))}")


def unsynced(detail: str, url_setting: str) -> ConfigurationError:
    """A commit there may be lost with the machine's power, after it was acknowledged."""
    return ConfigurationError(
        f"the database of {url_setting} does not sync its commits to disk: {detail}; change it, or accept the loss of "
        "acknowledged commands with LANE_ALLOW_UNSYNCED=true"
    )
