"""MySQL and MariaDB as a kind of database."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, ClassVar

from pymysql.constants import ER
from sqlalchemy import ColumnElement, Connection, Engine, event, func, inspect, text
from sqlalchemy.exc import DBAPIError

from coordinator.runtime.addresses import Address
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.foreign_rights import ForeignRights
from coordinator.stores.mysql.collations import check_texts
from coordinator.stores.mysql.driver_arguments import connections_of, reading_connection_of
from coordinator.stores.mysql.errors import is_of_schema, lack
from coordinator.stores.mysql.grants import (
    READERS_DEFAULT,
    account,
    grant,
    naming_what_the_owner_lacks,
    no_longer,
    not_reading,
    pattern,
    readers_max,
    reading,
)
from coordinator.stores.mysql.migration_lock import migration_holder, migration_lock, transaction_holders
from coordinator.stores.mysql.narrow_texts import narrow_texts
from coordinator.stores.mysql.nodes import ALL, READS, first_that_takes
from coordinator.stores.mysql.opening import opening
from coordinator.stores.mysql.session import ENDED_IDLE, set_up
from coordinator.stores.mysql.store import MysqlStore
from coordinator.stores.port import Lack, Store
from coordinator.stores.reader_excess import ReaderExcess, ReaderQuery
from coordinator.stores.reading_rights import ReadingRights
from coordinator.stores.sql.dialect import CONNECT_TIMEOUT_S, MIGRATION_LOCK_TIMEOUT_S, Dialect, first_row
from coordinator.stores.sql.kind import SqlKind
from coordinator.stores.sql.migration_waits import take_turn
from coordinator.stores.writers import Writers, WritersQuery


class _Mysql(Dialect):
    driver = "mysql+pymysql"
    reading_driver: ClassVar[str] = "mysql+aiomysql"
    ends_indexes_with_key: ClassVar[bool] = True
    clock: ClassVar[str | None] = "SELECT UNIX_TIMESTAMP() + MICROSECOND(NOW(6)) / 1000000"
    follows: ClassVar[str | None] = "SELECT @@global.read_only"
    # Not the server's default, whose gap locks would hold up the lane's inserts into the log.
    admin_isolation: ClassVar[str | None] = "READ COMMITTED"
    leading: ClassVar[Mapping[str, Any]] = {"waits": READS}

    def open_store(self, address: Address, service: Service) -> Store:
        return MysqlStore(address, service)

    def connection(self, address: Address) -> dict[str, Any]:
        return connections_of(address)[0]

    def reading_connection(self, address: Address) -> dict[str, Any]:
        from coordinator.stores.mysql.reading import connect  # noqa: PLC0415  # a lane needs no asynchronous driver

        return {**reading_connection_of(address), "async_creator_fn": connect}

    def engine(
        self,
        address: Address,
        *,
        connect_timeout_s: int = CONNECT_TIMEOUT_S,
        silence_s: float | None = None,
        **options: Any,
    ) -> Engine:
        engine = super().engine(address, connect_timeout_s=connect_timeout_s, **options)
        hosts = connections_of(address)

        def connect(dialect: Any, _record: object, given: Sequence[Any], named: Mapping[str, Any]) -> Any:
            # The driver's limit for connecting ends where a server takes the connection, and says nothing. TLS begins
            # with a write, whose limit is that of its whole handshake.
            limits = {"read_timeout": connect_timeout_s, "write_timeout": connect_timeout_s}
            limited = {**named, **limits, "defer_connect": True}

            with opening(connect_timeout_s) as opened:

                def to(host: Mapping[str, Any]) -> Any:
                    made = dialect.connect(*given, **{**limited, "host": host["host"], "port": host["port"]})
                    return opened.connect(made)

                return first_that_takes(hosts, to, waits=ALL).connection

        event.listen(engine, "do_connect", connect)
        event.listen(engine, "connect", partial(_limit_statements, silence_s))
        return engine

    async def probe(self, connection: Any) -> None:
        await connection.probe()

    def limited(self, connection: dict[str, Any], lock_timeout_s: int) -> dict[str, Any]:
        # The second counts for tables, such as those that a backup holds: a day by default.
        limits = {"innodb_lock_wait_timeout": lock_timeout_s, "lock_wait_timeout": lock_timeout_s}
        return {**connection, "init_command": f"{set_up(limits)} {ENDED_IDLE}"}

    def is_of_schema(self, error: BaseException) -> bool:
        return is_of_schema(error)

    def lack(self, error: BaseException) -> Lack | None:
        return lack(error)

    def writers(self, connection: Connection, query: WritersQuery) -> Writers:
        from coordinator.stores.mysql.writers import writers  # noqa: PLC0415  # a lane does not look at others

        return writers(connection, query)

    def foreign_rights(self, connection: Connection, query: WritersQuery) -> ForeignRights:
        from coordinator.stores.mysql.foreign_rights import foreign_rights  # noqa: PLC0415  # nor takes their rights

        return foreign_rights(connection, query)

    def reader_excess(self, connection: Connection, query: ReaderQuery) -> ReaderExcess:
        from coordinator.stores.mysql.reader_excess import reader_excess  # noqa: PLC0415

        return reader_excess(connection, query)

    def position(self, column: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[int]:
        return func.locate(part, column)

    @contextmanager
    def alone(self, connection: Connection, database: str) -> Iterator[None]:
        lock = {"name": migration_lock(database)}

        def taken() -> bool:
            return bool(connection.execute(text("SELECT GET_LOCK(:name, 0)"), lock).scalar() == 1)

        take_turn(taken, lambda: migration_holder(connection, database))
        yield
        connection.execute(text("SELECT RELEASE_LOCK(:name)"), lock)

    def bound_locks(self, engine: Engine) -> None:
        event.listen(engine, "connect", _bound_locks)

    def is_lock_timeout(self, error: BaseException) -> bool:
        return bool(error.args) and error.args[0] == ER.LOCK_WAIT_TIMEOUT

    def narrow_columns(self, connection: Connection, models: Sequence[type[Row]]) -> Sequence[str]:
        return narrow_texts(connection, models)

    def check_texts(self, connection: Connection, models: Sequence[type[Row]], setting: str) -> None:
        check_texts(partial(first_row, connection), models, setting)

    def lock_holders(self, connection: Connection) -> str:
        return transaction_holders(connection)

    def resumable(self, connection: Connection, history: str) -> AbstractContextManager[Callable[[], None]]:
        from coordinator.stores.mysql.migration_progress import resumable  # noqa: PLC0415  # a lane migrates nothing

        return resumable(connection, history)

    def allow(self, connection: Connection, role: Address, database: str, tables: Sequence[str]) -> None:  # noqa: ARG002
        with naming_what_the_owner_lacks(connection, database):
            _create(connection, role)
            _run(connection, grant(str(role.user), database))

    def allow_reading(self, connection: Connection, reader: Address, database: str, rights: ReadingRights) -> None:
        with naming_what_the_owner_lacks(connection, database):
            _create(connection, reader, " WITH MAX_USER_CONNECTIONS " + str(readers_max(connection)))
            _allow_reading(connection, str(reader.user), database, rights)

    def renew(self, connection: Connection, role: Address) -> None:
        if role.plain_password is not None:
            connection.exec_driver_sql("ALTER USER %s@'%%' IDENTIFIED BY %s", (role.user, role.plain_password))

    def confine(self, connection: Connection, reader: Address, database: str) -> None:  # noqa: ARG002
        limit = f"WITH MAX_USER_CONNECTIONS {readers_max(connection)}"
        connection.exec_driver_sql(f"ALTER USER %s@'%%' {limit}", (reader.user,))

    def account_lines(
        self, owner: Address | None, lane: Address, reader: Address | None, rights: ReadingRights
    ) -> Sequence[str]:
        lines = ["-- MySQL and MariaDB: as an administrator; put a password in the place of each PASSWORD"]
        if owner is not None and owner.user not in (None, lane.user):
            name, every = account(str(owner.user)), f"{pattern(lane.database)}.*"
            database = lane.database.replace("`", "``")
            lines += [
                f"CREATE DATABASE IF NOT EXISTS `{database}` CHARACTER SET utf8mb4;",
                f"CREATE USER IF NOT EXISTS {name} IDENTIFIED BY 'PASSWORD';",
                f"GRANT CREATE USER ON *.* TO {name};",
                f"GRANT ALL PRIVILEGES ON {every} TO {name} WITH GRANT OPTION;",
            ]
        for role in (lane, reader):
            if role is not None and role.user is not None:
                limit = f" WITH MAX_USER_CONNECTIONS {READERS_DEFAULT}" if role is reader else ""
                lines.append(f"CREATE USER IF NOT EXISTS {account(role.user)} IDENTIFIED BY 'PASSWORD'{limit};")
        if lane.user is not None:
            lines.append(f"{grant(lane.user, lane.database)};")
        if reader is not None and reader.user is not None:
            lines.append("-- Once the tables are there; `coordinator migrate` does it, too, if it has this address:")
            lines += [f"-- {reading(reader.user, lane.database, table)};" for table in rights.tables]
        return lines


def _limit_statements(silence_s: float | None, connection: Any, _record: object) -> None:
    """Without a limit a count, or a migration's statement, may take as long as it takes."""
    connection._read_timeout, connection._write_timeout = silence_s, None  # noqa: SLF001  # there is no other way


def _bound_locks(connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION lock_wait_timeout = {MIGRATION_LOCK_TIMEOUT_S}")


def _allow_reading(connection: Connection, user: str, database: str, rights: ReadingRights) -> None:
    inspector = inspect(connection)
    for table in rights.tables:
        if inspector.has_table(table):
            _run(connection, reading(user, database, table))
    # Earlier releases gave readers all tables. Nobody may ask for another account's rights, but on MariaDB a right that
    # no reader needs can be taken from it exactly where it has others on all tables, and on MySQL only one that it has.
    if _revoked(connection, no_longer("CREATE", user, database)) or _revoked(
        connection, no_longer("SELECT", user, database)
    ):
        lanes = {*rights.tables, *rights.withheld}
        for table in (*inspector.get_table_names(), *inspector.get_view_names()):
            if table not in lanes:
                _run(connection, reading(user, database, table))
        _revoked(connection, no_longer("SELECT", user, database))
    for table in rights.withheld:
        _revoked(connection, not_reading(user, database, table))


def _create(connection: Connection, role: Address, limit: str = "") -> None:
    password = role.plain_password or ""
    connection.exec_driver_sql(f"CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY %s{limit}", (role.user, password))


def _run(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _revoked(connection: Connection, statement: str) -> bool:
    """Whether there was such a right to take."""
    try:
        _run(connection, statement)
    except DBAPIError as error:
        if error.orig is None or error.orig.args[0] not in (ER.NONEXISTING_GRANT, ER.NONEXISTING_TABLE_GRANT):
            raise
        return False
    return True


KIND = SqlKind(_Mysql())
