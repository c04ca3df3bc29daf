"""What is wrong with a service's rows where a database is to keep them, whichever it is."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from coordinator.service.class_defects import fields_of
from coordinator.service.defects import defects_of
from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Row, VersionedRow
from coordinator.service.service import Service
from coordinator.stores import lane_tables
from coordinator.stores.field_types import field_type
from coordinator.stores.value_types import UnknownType

_NAME_CHARACTERS_MAX: Final = 63
"""PostgreSQL cuts a longer name."""
_SYSTEM_COLUMNS: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
"""Those that every table of PostgreSQL has."""
_MIGRATION_TABLES: Final = frozenset({"lane_schema_version", "migration_progress"})


def check_declaration(*services: Service) -> None:
    """Raise ConfigurationError, which names every defect, for the first service that is declared wrongly."""
    for service in services:
        if defects := [*defects_of(service), *_of_storage(service)]:
            raise ConfigurationError("\n  ".join((f"service {service.name} is declared wrongly:", *defects)))


def _of_storage(service: Service) -> Iterator[str]:
    models = [each for each in dict.fromkeys(service.models) if isinstance(each, type) and issubclass(each, Row)]
    tables: defaultdict[str, list[str]] = defaultdict(list)
    for model in models:
        table = getattr(model, "table", None)
        if isinstance(table, str):
            if table not in tables[table.lower()]:
                tables[table.lower()].append(table)
            yield from _of_table(model, table, service)
        hints = fields_of(model)
        if not isinstance(hints, str):
            yield from _of_fields(model, hints)
            yield from _of_columns(model, hints, service)
    for alike in tables.values():
        if len(alike) > 1:
            yield f"tables {' and '.join(alike)} have one name where the case of letters does not count, as on SQLite"


def _of_table(model: type[Row], table: str, service: Service) -> Iterator[str]:
    # Where the case of letters does not count, as on SQLite, it is the same table.
    if table.lower() in {*lane_tables.metadata.tables, *_MIGRATION_TABLES, f"{service.name}_schema_version"}:
        yield f"{model.__name__}: {table} is a table of the lane's own: choose another name"
    elif table.lower().startswith("sqlite_"):
        yield f"{model.__name__}: SQLite keeps names that begin with sqlite_ for itself: {table} is one"


def _of_fields(model: type[Row], hints: Mapping[str, Any]) -> Iterator[str]:
    name = model.__name__
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for field, hint in hints.items():
        alike[field.lower()].append(field)
        if len(field.encode()) > _NAME_CHARACTERS_MAX:
            yield f"{name}.{field}: the name of a column has at most {_NAME_CHARACTERS_MAX} bytes"
        elif field.lower() in _SYSTEM_COLUMNS or field == "_id":
            kind = "MongoDB" if field == "_id" else "PostgreSQL"
            yield f"{name}.{field}: {kind} has a column of that name in every table: choose another"
        try:
            field_type(hint)
        except UnknownType as error:
            yield f"{name}.{field}: {error}"
    for fields in alike.values():
        if len(fields) > 1:
            yield f"{name}: {' and '.join(fields)} are one column where the case of letters does not count"
    yield from _of_meaning(model, hints)


def _of_meaning(model: type[Row], hints: Mapping[str, Any]) -> Iterator[str]:
    """Of fields that stand for more than a column."""
    name = model.__name__
    if "version" in hints and hints["version"] is not int and issubclass(model, VersionedRow):
        yield f"{name}.version: the unit of work counts it, so it is an int"
    for column in model.unique if isinstance(model.unique, tuple) else ():
        constraint = f"{getattr(model, 'table', '')}_{column}_unique"
        if len(constraint) > _NAME_CHARACTERS_MAX:
            yield (
                f"{name}.{column}: the constraint {constraint} would have a name of more than {_NAME_CHARACTERS_MAX} "
                "characters: shorten the name of the table or of the unique column"
            )


def _of_columns(model: type[Row], hints: Mapping[str, Any], service: Service) -> Iterator[str]:
    """Fields for which the service's own metadata has no column."""
    table = None if service.metadata is None else service.metadata.tables.get(getattr(model, "table", ""))
    if table is None:
        return
    for field in hints:
        if field not in table.columns:
            has = f"the metadata of {service.name} has a table {table.name} with {', '.join(table.columns.keys())}"
            what = f"add the column there, or leave the table out of `metadata`, and give it by {model.__name__}"
            yield f"{model.__name__}.{field} has no column: {has}: {what}"
