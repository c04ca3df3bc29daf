"""PostgreSQL as a kind of database."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Final

from psycopg.errors import Diagnostic
from sqlalchemy import ColumnElement, Connection, Engine, event, func, inspect, select, text

from coordinator.runtime.addresses import Address
from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.admin import ChangeUnknown
from coordinator.stores.foreign_rights import ForeignRights
from coordinator.stores.port import Lack, Store
from coordinator.stores.postgresql.driver_arguments import connection_of, schema_of, session_of
from coordinator.stores.postgresql.durability import WAIT_FOR_STANDBY
from coordinator.stores.postgresql.errors import (
    has_met_another,
    is_lock_timeout,
    is_of_schema,
    is_of_value,
    lack,
    pooler_refusing,
)
from coordinator.stores.postgresql.grants import (
    NO_FUNCTIONS,
    Grantable,
    entry,
    grants,
    limits,
    migrating,
    narrowing,
    no_temporary_tables,
    quoted,
    reading,
)
from coordinator.stores.postgresql.indexes import check_texts
from coordinator.stores.postgresql.migration_lock import MIGRATION_LOCK, migration_holder, table_holders
from coordinator.stores.postgresql.missing_rights import UNENTERED
from coordinator.stores.postgresql.pooler import pooler_between
from coordinator.stores.postgresql.session import SET_UP, SET_UP_TRANSACTION, defect_of_encoding
from coordinator.stores.postgresql.store import PostgresStore
from coordinator.stores.reader_excess import ReaderExcess, ReaderQuery
from coordinator.stores.reading_rights import ReadingRights
from coordinator.stores.sql.dialect import MIGRATION_LOCK_TIMEOUT_S, Dialect, first_row
from coordinator.stores.sql.kind import SqlKind
from coordinator.stores.sql.migration_waits import take_turn
from coordinator.stores.writers import Writers, WritersQuery

_UNREPLICATED: Final = "unreplicated"
_GRANTABLE = text("""
    SELECT relname, relkind = 'S' FROM pg_class
    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema) AND (
        relname = ANY(:tables) OR pg_has_role(relowner, 'USAGE') OR CASE relkind
            WHEN 'S' THEN has_sequence_privilege(oid, 'USAGE WITH GRANT OPTION')
            ELSE has_table_privilege(oid, 'SELECT WITH GRANT OPTION, INSERT WITH GRANT OPTION')
        END
    ) AND relkind IN ('r', 'v', 'm', 'f', 'p', 'S') ORDER BY relname
""")
_IS_SUPERUSER = text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")


class _Postgresql(Dialect):
    driver = "postgresql+psycopg"
    reading_driver: ClassVar[str] = "postgresql+psycopg"
    clock: ClassVar[str | None] = "SELECT EXTRACT(EPOCH FROM clock_timestamp())"
    follows: ClassVar[str | None] = "SELECT pg_is_in_recovery()"
    unentered: ClassVar[str | None] = UNENTERED

    def open_store(self, address: Address, service: Service) -> Store:
        return PostgresStore(address, service)

    def open_store_with_standby(self, address: Address, service: Service) -> Store:
        return PostgresStore(address, service, needs_standby=True)

    def connection(self, address: Address) -> dict[str, Any]:
        return connection_of(address)

    def reading_connection(self, address: Address) -> dict[str, Any]:
        """Leave nothing on the server that the next one must not find, where PgBouncer may give each transaction
        another session: prepare no statement, and send only the address's parameters. The gateway cancels a read that
        takes too long.
        """
        from coordinator.stores.postgresql.reading import PromptConnection  # noqa: PLC0415  # a lane does not read so

        return {
            **connection_of(address),
            "prepare_threshold": None,
            "async_creator_fn": PromptConnection.connect,
        }

    def reads_in_turns(self, address: Address) -> bool:
        """Without this option several hosts are those of one database, of which libpq takes the first that answers."""
        return len(address.hosts) > 1 and address.option("load_balance_hosts") == "random"

    async def probe(self, connection: Any) -> None:
        """The empty statement, which leaves nothing on the server and needs no plan."""
        await connection.execute(";")

    def engine(self, address: Address, *, lock_timeout_s: int | None = None, **options: Any) -> Engine:
        """What an operator's command has done, such as a cancellation, is as durable as what a lane has.

        With a limit for locks it needs no session of the server's own: each transaction sets what it needs, and no
        statement is prepared, so a pooler may be between.
        """
        engine = super().engine(address, lock_timeout_s=lock_timeout_s, **options)
        event.listen(engine, "connect", _note_warnings)
        if lock_timeout_s is None:
            event.listen(engine, "connect", _set_up, insert=True)
        else:
            parameters = session_of(address) | {"lock_timeout": f"{lock_timeout_s}s"}
            event.listen(engine, "begin", partial(_set_for_transaction, parameters))
        return engine

    def silence(self, silence_s: float) -> dict[str, Any]:
        """A connection that was lost without a word. A server that is alive may take its time."""
        thirds = max(1, round(silence_s / 3))
        return {
            "tcp_user_timeout": round(silence_s * 1000),
            "keepalives_idle": thirds,
            "keepalives_interval": thirds,
            "keepalives_count": 2,
        }

    def limited(self, connection: dict[str, Any], lock_timeout_s: int) -> dict[str, Any]:  # noqa: ARG002
        """Without parameters of the session, which PgBouncer refuses, or does not pass on: see `engine`."""
        rest = {name: value for name, value in connection.items() if name != "options"}
        return {**rest, "prepare_threshold": None}

    def is_of_schema(self, error: BaseException) -> bool:
        return is_of_schema(error)

    def is_of_value(self, error: BaseException) -> bool:
        return is_of_value(error)

    def lack(self, error: BaseException) -> Lack | None:
        return lack(error)

    def pooler(self, error: BaseException) -> str | None:
        return pooler_refusing(error)

    def writers(self, connection: Connection, query: WritersQuery) -> Writers:
        from coordinator.stores.postgresql.writers import writers  # noqa: PLC0415  # a lane does not look at others

        return writers(connection, query)

    def foreign_rights(self, connection: Connection, query: WritersQuery) -> ForeignRights:
        from coordinator.stores.postgresql.foreign_rights import foreign_rights  # noqa: PLC0415  # nor takes their rights

        return foreign_rights(connection, query)

    def reader_excess(self, connection: Connection, query: ReaderQuery) -> ReaderExcess:
        from coordinator.stores.postgresql.reader_excess import reader_excess  # noqa: PLC0415

        return reader_excess(connection, query)

    def reader_elsewhere(self, connection: Connection, query: ReaderQuery) -> Sequence[str]:
        from coordinator.stores.postgresql.reader_excess import entered_elsewhere  # noqa: PLC0415

        return entered_elsewhere(connection, query)

    def position(self, column: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[int]:
        return func.pg_catalog.position(column, part)

    @contextmanager
    def alone(self, connection: Connection, database: str) -> Iterator[None]:
        driver: Any = connection.connection.driver_connection
        if (problem := pooler_between(driver)) is not None:
            raise ConfigurationError(problem)
        if (defect := defect_of_encoding(driver)) is not None:
            raise ConfigurationError(f"the database {database} {defect}")

        def taken() -> bool:
            is_taken = connection.execute(text("SELECT pg_try_advisory_lock(:number)"), {"number": MIGRATION_LOCK})
            return bool(is_taken.scalar())

        take_turn(taken, lambda: migration_holder(connection))
        connection.commit()
        yield
        connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": MIGRATION_LOCK})
        connection.commit()

    def bound_locks(self, engine: Engine) -> None:
        """Of transactions only: an index made concurrently waits for all that runs, and would be left invalid."""
        event.listen(engine, "begin", _bound_locks)

    def check_committed(self, connection: Connection) -> None:
        if (warning := connection.info.pop(_UNREPLICATED, None)) is not None:
            raise ChangeUnknown(f"a change may not be on the synchronous standby: {warning}; look, and repeat it")

    def has_met_another(self, error: BaseException) -> bool:
        return has_met_another(error)

    def is_lock_timeout(self, error: BaseException) -> bool:
        return is_lock_timeout(error)

    def check_texts(self, connection: Connection, models: Sequence[type[Row]], setting: str) -> None:
        check_texts(partial(first_row, connection), models, setting)

    def lock_holders(self, connection: Connection) -> str:
        return table_holders(connection)

    def allow(self, connection: Connection, role: Address, database: str, tables: Sequence[str]) -> None:  # noqa: ARG002
        _create(connection, role)
        here, schema = _here(connection)
        there = _grantable(connection, schema, tables)
        _run_all(connection, grants(str(role.user), here, schema, there=there))

    def allow_reading(self, connection: Connection, reader: Address, database: str, rights: ReadingRights) -> None:  # noqa: ARG002
        name = str(reader.user)
        here, schema = _here(connection)
        if _create(connection, reader):
            _run_all(connection, limits(name, here))
        inspector = inspect(connection)
        tables, withheld = (
            [table for table in some if inspector.has_table(table, schema)] for some in (rights.tables, rights.withheld)
        )
        given = [reading(name, schema, tables)] if tables else []
        _run_all(connection, (*entry(name, here, schema), *given, *narrowing(name, schema, withheld)))

    def renew(self, connection: Connection, role: Address) -> None:
        if role.plain_password is not None:
            _run(connection, "ALTER ROLE %I LOGIN PASSWORD %L", str(role.user), _verifier(connection, role))

    def confine(self, connection: Connection, reader: Address, database: str) -> None:
        _run_all(connection, (*limits(str(reader.user), database), no_temporary_tables(database)))
        if connection.execute(_IS_SUPERUSER).scalar():
            _run_as_it_is(connection, NO_FUNCTIONS)

    def account_lines(
        self, owner: Address | None, lane: Address, reader: Address | None, rights: ReadingRights
    ) -> Sequence[str]:
        database = quoted(lane.database)
        lines = ["-- PostgreSQL: as an administrator in psql, which asks for the passwords"]
        if owner is not None and owner.user not in (None, lane.user):
            name = quoted(str(owner.user))
            create = f"CREATE DATABASE {database} OWNER {name} ENCODING 'UTF8' TEMPLATE template0;"
            lines += [f"CREATE ROLE {name} LOGIN CREATEROLE;", f"\\password {name}", create]
        lines.append(f"\\connect {database}")
        maker = None if owner is None else owner.user
        schema = schema_of(lane)
        if lane.user is not None:
            name = quoted(lane.user)
            lines += [f"CREATE ROLE {name} LOGIN;", f"\\password {name}"]
            lines += [f"{statement};" for statement in grants(lane.user, lane.database, schema, maker)]
        if reader is not None and reader.user is not None:
            name = quoted(reader.user)
            lines += [f"CREATE ROLE {name} LOGIN;", f"\\password {name}"]
            made = (*limits(reader.user, lane.database), *entry(reader.user, lane.database, schema))
            lines += [f"{statement};" for statement in made]
            lines.append(
                "-- From everybody in this database, since with these a reader fills disk and locks. Give them"
            )
            lines.append("-- back to whom else needs temporary tables, advisory locks or large objects here:")
            lines += [f"{no_temporary_tables(lane.database)};", f"{NO_FUNCTIONS};"]
            lines.append(
                "-- From another database of this server he fills them, too: keep him out of those in pg_hba.conf, or,"
            )
            lines.append("-- where nobody else lives of that, for each of them:")
            lines.append("-- REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;")
            if (migrator := maker or lane.user) is not None:
                lines.append(f"{migrating(migrator)};")
            lines.append("-- Once the tables are there; `coordinator migrate` does it, too, if it has this address:")
            lines.append(f"-- {reading(reader.user, schema, rights.tables)};")
        return lines


def _create(connection: Connection, role: Address) -> bool:
    """Make a role that is missing; whether it was."""
    name = str(role.user)
    exists = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name}).scalar()
    if exists is None:
        _run(connection, "CREATE ROLE %I LOGIN PASSWORD %L", name, _verifier(connection, role))
    return exists is None


def _grantable(connection: Connection, schema: str, tables: Sequence[str]) -> Grantable:
    """These tables, and what else the session's role may give rights on: others are their owners' own."""
    found = connection.execute(_GRANTABLE, {"schema": schema, "tables": list(tables)}).all()
    of_both: tuple[list[str], list[str]] = ([], [])
    for name, is_sequence in found:
        of_both[is_sequence].append(name)
    return Grantable(*of_both)


def _here(connection: Connection) -> tuple[str, str]:
    """The database, and the schema where its tables are."""
    schema = connection.execute(text("SELECT current_schema()")).scalar()
    if schema is None:
        raise ConfigurationError("the database has no schema of those in search_path: create it")
    return connection.execute(text("SELECT current_database()")).scalar_one(), schema


def _note_warnings(connection: Any, record: Any) -> None:
    connection.add_notice_handler(partial(_note_warning, record.info))


def _note_warning(info: dict[str, Any], notice: Diagnostic) -> None:
    if notice.source_function == WAIT_FOR_STANDBY:
        info[_UNREPLICATED] = notice.message_primary


def _set_up(connection: Any, _: object) -> None:
    connection.execute(SET_UP)
    connection.commit()


def _set_for_transaction(parameters: Mapping[str, str], connection: Connection) -> None:
    """Only until the transaction ends: its session may be another client's next."""
    connection.exec_driver_sql(SET_UP_TRANSACTION)
    for name, value in parameters.items():
        connection.execute(select(func.set_config(name, value, True)))


def _bound_locks(connection: Connection) -> None:
    connection.execute(select(func.set_config("lock_timeout", f"{MIGRATION_LOCK_TIMEOUT_S}s", True)))


def _run(connection: Connection, statement: str, *values: str) -> None:
    """A statement into which the server puts names (`%I`) and texts (`%L`); the driver does not interpret their %."""
    written = connection.execute(select(func.format(statement, *values))).scalar_one()
    _run_as_it_is(connection, written)


def _run_all(connection: Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        _run_as_it_is(connection, statement)


def _run_as_it_is(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _verifier(connection: Connection, role: Address) -> str:
    """The form in which the server stores a password, so that no log of statements has the password itself."""
    driver: Any = connection.connection.driver_connection
    made: bytes = driver.pgconn.encrypt_password((role.plain_password or "").encode(), str(role.user).encode())
    return made.decode()


KIND = SqlKind(_Postgresql())
