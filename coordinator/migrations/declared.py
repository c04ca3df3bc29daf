"""Making the tables of a service without revisions of its own, and what they lack for its rows."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import msgspec
import structlog
from sqlalchemy import Column, Connection, DefaultClause, Inspector, MetaData, Table, inspect, select, text
from sqlalchemy import literal as sa_literal
from sqlalchemy.engine.interfaces import Compiled
from sqlalchemy.exc import CompileError, DBAPIError, StatementError
from sqlalchemy.schema import CreateColumn

from coordinator.runtime.addresses import WITHOUT_SERVER
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.port import UnfitTables
from coordinator.stores.row_makers import value_types_of
from coordinator.stores.sql.declared_tables import missing_indexes, tables_of
from coordinator.stores.sql.dialect import Dialect
from coordinator.stores.sql.schema import Schema
from coordinator.stores.sql.table_differences import differences

log = structlog.get_logger("migrate")


def make_declared(dialect: Dialect, connection: Connection, service: Service, database: str) -> None:
    """Make the tables that are missing, of a service without revisions of its own, with the indexes of their models.

    On SQLite, and where a table has no rows, also the indexes that are missing.

    Raises ConfigurationError for a table that is there without some of its columns: what becomes of its rows is for the
    service's author to say.
    """
    inspector, tables = inspect(connection), tables_of(service)
    defaults = {
        (model.table, field.name): (field.default, _plain(model, field))
        for model in service.models
        for field in msgspec.structs.fields(model)
    }
    statements = [
        _adding(column, *defaults.get((table.name, column.name), (None, None)), connection)
        for table in tables.sorted_tables
        if inspector.has_table(table.name)
        for column in table.columns
        if column.name not in {each["name"] for each in inspector.get_columns(table.name)}
    ]
    if statements:
        raise ConfigurationError(
            f"{service.lane}: its rows have fields for which its tables have no column. Say what the rows that are "
            "there are to have, by Alembic revisions (`migrations` of the service names their folder) or by hand, in "
            f"{_place_of(connection, database)}: " + "\n".join(["", *statements])
        )
    # Foreign keys lead to tables of other schemas, which are not this service's.
    made = [table for table in tables.sorted_tables if not inspector.has_table(table.name, schema=table.schema)]
    tables.create_all(connection)
    _take_back_unfit(dialect, connection, service, tables, made)
    connection.commit()
    for model, statement in list(lacking_indexes(inspect(connection), service.models, connection)):
        # The file has this process alone. Elsewhere an index of a large table holds up a lane, and somebody says when.
        if connection.dialect.name in WITHOUT_SERVER or _is_empty(connection, tables.tables[model.table]):
            _make_index(dialect, connection, service.lane, statement)
    connection.commit()


def _make_index(dialect: Dialect, connection: Connection, lane: str, statement: str) -> None:
    """Whether a lane can do without one that a database refuses, as too wide or as another's table, is said where all
    that is wrong with tables is."""
    try:
        connection.execute(text(statement))
        connection.commit()
    except DBAPIError as error:
        if error.orig is None or dialect.is_lock_timeout(error.orig):
            raise
        connection.rollback()
        log.warning("index_refused", service=lane, statement=statement, error=str(error.orig))


def _is_empty(connection: Connection, table: Table) -> bool:
    return connection.execute(select(sa_literal(1)).select_from(table).limit(1)).first() is None


def _take_back_unfit(
    dialect: Dialect, connection: Connection, service: Service, tables: MetaData, made: Sequence[Table]
) -> None:
    """Raise ConfigurationError, without the tables that were made, where these are not as the rows need them: they are
    declared elsewhere, and whoever mends that could not have them made anew."""
    new = {table.name for table in made}
    models = [model for model in service.models if model.table in new]
    found = [*differences(connection, Schema(tables), models), *unfit_texts(dialect, connection, service, models)]
    if found:
        tables.drop_all(connection, tables=made)
        connection.commit()
        head = f"{service.lane}: its tables would not be as its rows need them, so none was made; change the classes:"
        raise ConfigurationError("\n  ".join((head, *found)))


def unfit_texts(
    dialect: Dialect, connection: Connection, service: Service, models: Sequence[type[Row]]
) -> Sequence[str]:
    """What is wrong with the texts in the tables of these models, in one piece."""
    try:
        dialect.check_texts(connection, models, f"{settings_prefix(service.lane)}DATABASE_URL")
    except UnfitTables as error:
        return [str(error)]
    return []


def _place_of(connection: Connection, database: str) -> str:
    """The database, for a person who is to change it."""
    if connection.dialect.name in WITHOUT_SERVER:
        return f"the file {unquote((connection.engine.url.database or '').removeprefix('file:'))}"
    return f"the database {database}"


def _plain(model: type[Row], field: msgspec.structs.FieldInfo) -> object:
    values = value_types_of(model).get(field.name)
    if values is None or field.default is msgspec.NODEFAULT or field.default is None:
        return field.default
    return values.plain(values.canonical(field.default))


def _adding(column: Column[Any], default: object, plain: object, connection: Connection) -> str:
    """The statement that adds a column. Rows that are there get the default of their class, if it has a form in SQL.

    `plain` is its plain form, for a database that has no type of its own for it.
    """
    dialect = connection.dialect
    added = column._copy()  # noqa: SLF001  # there is no public one
    advice = f" -- {column.name} is never NULL and has no default: give it one" if not added.nullable else ""
    if advice and default is not msgspec.NODEFAULT and default is not None:
        for value, kind in ((default, added.type), (plain, None)):
            with suppress(CompileError, StatementError, NotImplementedError, TypeError, ValueError):
                literal = sa_literal(value, kind).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
                # Not to be taken for a parameter's name.
                added.server_default, advice = DefaultClause(text(_shown(literal).replace(":", "\\:"))), ""
                break
    # Of the column of a key a dialect asks the table whether it fills it.
    added.autoincrement = False
    Table(column.table.name, MetaData(), added)
    quoted = dialect.identifier_preparer.quote(column.table.name)
    return f"ALTER TABLE {quoted} ADD COLUMN {_shown(CreateColumn(added).compile(dialect=dialect))};{advice}"


def _shown(statement: Compiled) -> str:
    """For a person, who sends it without parameters: then no %% is taken for one %."""
    is_formatted = statement.dialect.paramstyle in ("format", "pyformat")
    return str(statement).replace("%%", "%") if is_formatted else str(statement)


def lacking_indexes(
    inspector: Inspector, models: Iterable[type[Row]], connection: Connection
) -> Iterator[tuple[type[Row], str]]:
    """The statements that make the indexes that these rows are selected by, and that their tables do not have."""
    quote = connection.dialect.identifier_preparer.initial_quote
    for model in models:
        if model.index:
            for statement in missing_indexes(model, columns_of_indexes(inspector, model.table), quote):
                yield model, statement


def columns_of_indexes(inspector: Inspector, table: str) -> Iterator[Sequence[str]]:
    """The columns of each index of a table, those of constraints too."""
    yield inspector.get_pk_constraint(table)["constrained_columns"]
    for each in inspector.get_unique_constraints(table):
        yield each["column_names"]
    for index in inspector.get_indexes(table):
        yield [column or "" for column in index["column_names"]]
