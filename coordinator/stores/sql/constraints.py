"""What a database's own constraints ask of the order in which a lane writes."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, Inspector, TableClause, inspect, table
from sqlalchemy.exc import SAWarning

from coordinator.service.rows import Row, key_columns
from coordinator.stores.sql.schema import Schema, TableOf
from coordinator.stores.write_order import Reference, Uniqueness, WriteOrder


def write_order(connection: Connection, schema: Schema, models: Sequence[type[Row]]) -> WriteOrder:
    """By the foreign keys among the tables of these models, and what is unique in them.

    A constraint with a column that rows do not have is left out: nobody sees its values.
    """
    inspector = inspect(connection)
    views = set(inspector.get_view_names())
    tables = {
        model.table: (model, schema.of(model))
        for model in models
        if model.table not in views and inspector.has_table(model.table)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)
        references = [each for name in tables for each in _references(inspector, tables, name)]
        uniques = [each for model, table in tables.values() for each in _uniques(inspector, model, table)]
    return WriteOrder(models, references, uniques)


class OutwardReference(Struct, frozen=True):
    """A foreign key of a table of a service's, to one that is none."""

    table: str
    columns: tuple[str, ...]
    other: TableClause


def outward_references(connection: Connection, models: Sequence[type[Row]]) -> list[OutwardReference]:
    """The foreign keys from the tables of these models to all others."""
    inspector = inspect(connection)
    own, views = {model.table for model in models}, set(inspector.get_view_names())
    return [
        OutwardReference(
            name, tuple(key["constrained_columns"]), table(key["referred_table"], schema=key["referred_schema"])
        )
        for name in sorted(own - views)
        for key in inspector.get_foreign_keys(name)
        if key["referred_schema"] is not None or key["referred_table"] not in own
    ]


_Tables = Mapping[str, tuple[type[Row], TableOf]]
_FOLLOWING: Final = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})


def _references(inspector: Inspector, tables: _Tables, name: str) -> Iterator[Reference]:
    model, table = tables[name]
    for key in inspector.get_foreign_keys(name):
        if key["referred_schema"] is not None or key["referred_table"] not in tables:
            continue
        other, others = tables[key["referred_table"]]
        columns, referred = tuple(key["constrained_columns"]), tuple(key["referred_columns"])
        if _are_seen(table, columns) and _are_seen(others, referred):
            events = (key.get("options", {}).get(name, "") for name in ("ondelete", "onupdate"))
            follows = any(event.upper() in _FOLLOWING for event in events)
            yield Reference(model, columns, other, referred, follows)


def _uniques(inspector: Inspector, model: type[Row], table: TableOf) -> Iterator[Uniqueness]:
    found: list[Sequence[str | None]] = [each["column_names"] for each in inspector.get_unique_constraints(model.table)]
    # SQLite has an index of its own for each constraint.
    indexes = inspector.get_indexes(model.table, include_auto_indexes=True)
    found += [each["column_names"] for each in indexes if each["unique"]]
    found.append(inspector.get_pk_constraint(model.table)["constrained_columns"])
    # Of an expression there is no name.
    for columns in dict.fromkeys(tuple(name or "" for name in names) for names in found):
        if columns and set(columns) != set(key_columns(model)) and _are_seen(table, columns):
            yield Uniqueness(model, columns)


def _are_seen(table: TableOf, columns: Sequence[str]) -> bool:
    """Whether rows have these columns, with values that can be looked up."""
    return all(
        name in table.columns and (name not in table.value_types or table.value_types[name].copy is None)
        for name in columns
    )
