"""What an address says holds for the lane, for reads, for operators and for migrations alike, on real servers."""

import asyncio
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import monotonic
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from coordinator.client.database import close_database, fetch, open_database
from coordinator.dev.servers.mysql import MySQL
from coordinator.dev.servers.ports import free_port
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import Address, parse_address
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError, CoordinatorError, DatabaseUnavailable
from coordinator.service.service import Service
from coordinator.stores.kinds import kind_of
from coordinator.stores.open import open_store
from coordinator.stores.port import Conflict, StoreError
from coordinator.stores.writers import WritersQuery
from tests.support.authority import Authority
from tests.support.databases import sql_engine
from tests.support.ledger import LEDGER, Account, metadata
from tests.support.servers import Environment
from tests.support.store_contract import NOW, account, changes, commit

_numbers = itertools.count(1)
HOSTILE = """p%w %% %s %(x)s :y 'q' "d" `b` \\ @:/?#&=+,;_ é漢😀 ${x} {y} $1 --"""
SHORT = """a%2%s \\'"`@:/?#_é\\_\\\\"""
READS = Service(name="ledger", models=(Account,), handlers=LEDGER.handlers, metadata=metadata)


def url_of(
    scheme: str, host: str, user: str, password: str, database: str, options: Mapping[str, object] | None = None
) -> str:
    query = f"?{urlencode({name: str(value) for name, value in options.items()}, quote_via=quote)}" if options else ""
    user, password, database = (quote(each, safe="") for each in (user, password, database))
    return f"{scheme}://{user}:{password}@{host}/{database}{query}"


def everybody(owner: str, lane: str, reader: str) -> list[Callable[[], object]]:
    """What each process does first, in this order."""

    def migrated() -> None:
        engine = sql_engine(owner)
        try:
            metadata.create_all(engine)
        finally:
            engine.dispose()
        migrate(READS, DatabaseSettings(database_url=lane, reader_url=reader, migration_url=owner))

    def applied() -> None:
        with closing(open_store(lane, LEDGER)) as store:
            store.check(LEDGER.models)
            lease = store.take_over("holder", NOW)
            commit(store, lease, changes(inserts=[account(lease.sequence + 1)]))

    def told() -> None:
        address = parse_address(lane)
        with closing(kind_of(address).open_admin(address, "ledger")) as admin:
            state = admin.state()
        assert state.lease is not None
        assert state.lease.sequence > 0

    def looked() -> None:
        address = parse_address(lane)
        query = WritersQuery(tables=("accounts",), lane="ledger", role=address.user, database=address.database)
        found = kind_of(address).writers(address, query).found
        # On PostgreSQL it is shown if others use it, too.
        own = [each for each in found if each.does.startswith("the lane's own role, with the lane's connections")]
        assert own or address.scheme != "mysql", found

    return [migrated, applied, told, looked, lambda: read(reader)]


def read(url: str) -> int:
    """As a gateway does, on its loop. Returns how many there are."""

    async def rows() -> int:
        database = open_database(url, pool_max=2)
        try:
            return len(await fetch(database, select(metadata.tables["accounts"]), Account))  # type: ignore[arg-type]
        finally:
            await close_database(database)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(rows())


def all_refuse(asked: list[Callable[[], object]], *said: str) -> None:
    for ask in asked:
        with pytest.raises((CoordinatorError, StoreError, SQLAlchemyError)) as refused:
            ask()
        assert any(each in str(refused.value) for each in said), (ask, refused.value)


class _Sql:
    scheme: str
    setting: str

    @pytest.fixture
    def server(self, administrators: Environment) -> Address:
        return parse_address(administrators[self.setting])

    @pytest.fixture
    def names(self, server: Address, administrators: Environment) -> Iterator[tuple[str, str, str, str]]:
        """A database, and roles for its owner, its lane and its readers, of names with every character."""
        number = f"{os.getpid()}-{next(_numbers)}"
        database, owner, lane, reader = (f"{each}{number}{SHORT}" for each in ("d", "o", "l", "r"))
        self.make(administrators[self.setting], database, owner)
        yield database, owner, lane, reader
        self.drop(administrators[self.setting], database, owner, lane, reader)

    def make(self, url: str, database: str, owner: str) -> None:
        raise NotImplementedError

    def drop(self, url: str, database: str, *roles: str) -> None:
        raise NotImplementedError

    def test_every_character_does_in_names_and_passwords(
        self, server: Address, names: tuple[str, str, str, str]
    ) -> None:
        """The roles of the lane and of the readers are made by the migration, with their passwords."""
        database, *roles = names
        host = str(server.hosts[0])
        owner, lane, reader = (url_of(self.scheme, host, role, f"{HOSTILE}{role}", database) for role in roles)
        for _ in range(2):
            for ask in everybody(owner, lane, reader):
                ask()
        assert read(reader) == 2
        with pytest.raises(StoreError, match=r"(?i)denied"), closing(open_store(reader, LEDGER)) as store:
            store.check(LEDGER.models)

    def test_a_takeover_ends_a_holder_that_is_stopped_whatever_their_user_is_called(
        self, server: Address, names: tuple[str, str, str, str]
    ) -> None:
        database, *roles = names
        urls = [url_of(self.scheme, str(server.hosts[0]), role, f"{HOSTILE}{role}", database) for role in roles]
        everybody(*urls)[0]()
        with closing(open_store(urls[1], LEDGER)) as old, closing(open_store(urls[1], LEDGER)) as successor:
            old.take_over("old", NOW)
            stopped: Any = old.begin()
            stopped._connection.cursor().execute("UPDATE lane_lease SET batches = batches + 1")
            deadline_s = monotonic() + 10
            while True:
                try:
                    assert successor.take_over("successor", NOW).holder == "successor"
                    break
                except Conflict:
                    assert monotonic() < deadline_s

    def test_a_wrong_password_is_shown_to_nobody(self, server: Address, names: tuple[str, str, str, str]) -> None:
        wrong = url_of(self.scheme, str(server.hosts[0]), names[1], "hunter2%", names[0])
        for ask in everybody(wrong, wrong, wrong):
            with pytest.raises(Exception, match=r"(?i)denied|authentication") as refused:
                ask()
            assert "hunter2" not in str(refused.value)


def _execute(url: str, *statements: str) -> None:
    engine = sql_engine(url)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    engine.dispose()


def _quoted(name: str, mark: str) -> str:
    return f"{mark}{name.replace(mark, mark * 2)}{mark}"


class TestPostgresql(_Sql):
    scheme = "postgresql"
    setting = "USERS_DATABASE_URL"

    def make(self, url: str, database: str, owner: str) -> None:
        role, name = _quoted(owner, '"'), _quoted(database, '"')
        password = f"{HOSTILE}{owner}".replace("'", "''")
        _execute(
            url, f"CREATE ROLE {role} LOGIN CREATEROLE PASSWORD '{password}'", f"CREATE DATABASE {name} OWNER {role}"
        )

    def drop(self, url: str, database: str, *roles: str) -> None:
        _execute(url, f"DROP DATABASE {_quoted(database, chr(34))} WITH (FORCE)")
        _execute(url, *(f"DROP ROLE IF EXISTS {_quoted(role, chr(34))}" for role in roles))

    def test_a_role_without_a_password_is_made_without_one(
        self, server: Address, names: tuple[str, str, str, str], administrators: Environment
    ) -> None:
        """It may log in by other means. Where the server wants a password, every process says so."""
        database, *roles = names
        host = str(server.hosts[0])
        owner, lane = (url_of(self.scheme, host, role, f"{HOSTILE}{role}", database) for role in roles[:2])
        reader = url_of(self.scheme, host, roles[2], "", database)
        everybody(owner, lane, reader)[0]()
        engine = sql_engine(administrators[self.setting])
        with engine.connect() as connection:
            asked = text("SELECT rolcanlogin AND rolpassword IS NULL FROM pg_authid WHERE rolname = :name")
            assert connection.execute(asked, {"name": roles[2]}).scalar() is True
        engine.dispose()
        all_refuse(everybody(reader, reader, reader), "no password supplied")

    def test_several_hosts_and_their_state_are_looked_for_by_all(
        self, server: Address, names: tuple[str, str, str, str]
    ) -> None:
        """In both forms; nobody listens at the first."""
        database, *roles = names
        (host,) = server.hosts
        two = (f"127.0.0.1:{free_port()},{host}", {"target_session_attrs": "read-write"})
        options = {"host": f"127.0.0.1,{host.name}", "port": f"{free_port()},{host.port}"}
        for authority, given in (two, ("", options)):
            urls = [url_of(self.scheme, authority, role, f"{HOSTILE}{role}", database, given) for role in roles]
            for ask in everybody(*urls):
                ask()
        standby = [
            url_of(self.scheme, str(host), role, f"{HOSTILE}{role}", database, {"target_session_attrs": "standby"})
            for role in roles
        ]
        all_refuse(everybody(*standby), "not in hot standby mode")

    def test_options_set_the_session_of_all(self, server: Address, names: tuple[str, str, str, str]) -> None:
        database, *roles = names
        host, schema = str(server.hosts[0]), SHORT
        search_path = re.sub(r"([\\ ])", r"\\\1", _quoted(schema, '"'))
        in_schema = {"options": f"-c search_path={search_path}"}
        urls = [url_of(self.scheme, host, role, f"{HOSTILE}{role}", database, in_schema) for role in roles]
        _execute(
            url_of(self.scheme, host, roles[0], f"{HOSTILE}{roles[0]}", database),
            f"CREATE SCHEMA {_quoted(schema, chr(34))}",
        )
        for ask in everybody(*urls):
            ask()
        assert read(urls[2]) == 1
        # Nothing of it is elsewhere.
        plain = [url_of(self.scheme, host, role, f"{HOSTILE}{role}", database) for role in roles]
        with (
            pytest.raises(ConfigurationError, match="coordinator migrate"),
            closing(open_store(plain[1], LEDGER)) as store,
        ):
            store.check(LEDGER.models)

    def test_the_server_ends_a_read_too_should_its_gateway_be_gone(
        self, server: Address, names: tuple[str, str, str, str]
    ) -> None:
        database, *roles = names
        urls = [url_of(self.scheme, str(server.hosts[0]), role, f"{HOSTILE}{role}", database) for role in roles]
        everybody(*urls)[0]()
        engine = sql_engine(urls[2])
        with engine.connect() as connection:
            assert connection.execute(text("SHOW statement_timeout")).scalar() == "5s"
        engine.dispose()

    def test_tls_that_the_server_does_not_offer_is_asked_for_by_all(
        self, server: Address, names: tuple[str, str, str, str]
    ) -> None:
        database, *roles = names
        tls = {"sslmode": "require"}
        urls = [url_of(self.scheme, str(server.hosts[0]), role, f"{HOSTILE}{role}", database, tls) for role in roles]
        all_refuse(everybody(*urls), "does not support SSL")


class TestMysql(_Sql):
    scheme = "mysql"
    setting = "PAYMENTS_DATABASE_URL"

    def make(self, url: str, database: str, owner: str) -> None:
        name, role = _quoted(database, "`"), _literal(owner)
        pattern = _quoted(re.sub(r"([_%\\])", r"\\\1", database), "`")
        _execute(
            url,
            f"CREATE DATABASE {name}",
            f"CREATE USER {role}@'%' IDENTIFIED BY {_literal(HOSTILE + owner)}",
            f"GRANT ALL ON {pattern}.* TO {role}@'%' WITH GRANT OPTION",
            f"GRANT CREATE USER ON *.* TO {role}@'%'",
        )

    def drop(self, url: str, database: str, *roles: str) -> None:
        _execute(url, f"DROP DATABASE {_quoted(database, '`')}")
        _execute(url, *(f"DROP USER IF EXISTS {_literal(role)}@'%'" for role in roles))

    def test_rights_are_for_this_database_and_for_none_of_a_name_like_it(
        self, server: Address, administrators: Environment, names: tuple[str, str, str, str]
    ) -> None:
        """In a GRANT _ stands for any character."""
        database, *roles = names
        host = str(server.hosts[0])
        for ask in everybody(*(url_of(self.scheme, host, role, f"{HOSTILE}{role}", database) for role in roles)):
            ask()
        like = database.replace("_", "x")
        _execute(administrators[self.setting], f"CREATE DATABASE {_quoted(like, '`')}")
        try:
            with pytest.raises(DatabaseUnavailable, match="denied"):
                read(url_of(self.scheme, host, roles[2], f"{HOSTILE}{roles[2]}", like))
        finally:
            _execute(administrators[self.setting], f"DROP DATABASE {_quoted(like, '`')}")


class TestSqlite:
    def test_every_character_does_in_a_path(self, tmp_path: Path) -> None:
        """But a control character, which no address has; SQLite itself reads `file:`, ?, # and % as parts of a URI."""
        for name in (HOSTILE.replace("/", ""), "file:a?mode=memory#b%00", "a\\", " ", ":memory: "):
            path = tmp_path / "file:%2F?#" / name
            path.parent.mkdir(exist_ok=True)
            url = f"sqlite:///{path}"
            migrate(READS, DatabaseSettings(database_url=url))
            for ask in everybody(url, url, url)[1:]:
                ask()
            assert read(url) == 1
            assert {each.name for each in path.parent.iterdir() if each.name.startswith(name)} - {
                f"{name}-wal",
                f"{name}-shm",
                f"{name}-wal-of",
            } == {name}


class TestMongodb:
    @pytest.mark.parametrize("database", ["p%w%s(x):y'q'`b`@?#&=+,;_-é", "%25", "漢"])
    def test_every_character_does_in_a_name_that_the_server_takes(
        self, administrators: Environment, database: str
    ) -> None:
        server = administrators["ITEMS_DATABASE_URL"]
        before, _, options = server.partition("?")
        url = f"{before.rpartition('/')[0]}/{quote(f'{database}{os.getpid()}', safe='')}?{options}"
        address = parse_address(url)
        assert address.database.startswith(database)
        migrate(READS, DatabaseSettings(database_url=url))
        with closing(open_store(url, LEDGER)) as store:
            store.check(LEDGER.models)
            lease = store.take_over("holder", NOW)
            commit(store, lease, changes(inserts=[account(1)]))
        with closing(kind_of(address).open_admin(address, "ledger")) as admin:
            lease_of_it = admin.state().lease
        assert lease_of_it is not None
        assert lease_of_it.sequence == 1
        kind_of(address).writers(
            address, WritersQuery(tables=("accounts",), lane="ledger", role=None, database=address.database)
        )


def _literal(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


TlsServer = tuple[MySQL, Authority, Authority]


@pytest.fixture(scope="module")
def tls_server() -> Iterator[TlsServer]:
    """One that requires TLS, its certificate's authority, and another authority."""
    directory = Path(mkdtemp(prefix="write-coordinator-tls-"))
    directory.chmod(0o755)
    (directory / "other").mkdir()
    authority, other = Authority(directory), Authority(directory / "other")
    certificate, key = authority.issue("server", "DNS:db.example.org,IP:127.0.0.1")
    server = MySQL(directory / "mysql", ["ledger"])
    server.options = (
        *(f"--ssl-ca={authority.certificate}", f"--ssl-cert={certificate}", f"--ssl-key={key}"),
        "--require-secure-transport=ON",
    )
    server.start()
    yield server, authority, other
    server.stop()
    rmtree(directory, ignore_errors=True)


class TestTls:
    def urls(self, server: MySQL, options: Mapping[str, object], host: str = "127.0.0.1") -> tuple[str, str, str]:
        """One who may do everything, a lane and a reader."""
        at = f"{host}:{server.port}"
        owner = url_of("mysql", at, "coordinator", "coordinator", "ledger", options)
        lane, reader = (url_of("mysql", at, role, role, "ledger", options) for role in ("lane", "reader"))
        return owner, lane, reader

    def test_all_take_a_server_whose_certificate_is_checked(self, tls_server: TlsServer) -> None:
        server, authority, _ = tls_server
        for options in (
            {"ssl_ca": authority.certificate, "ssl_verify_identity": "true"},
            {"ssl_ca": authority.certificate},
            {},
        ):
            for ask in everybody(*self.urls(server, options)):
                ask()

    def test_all_refuse_one_of_another_authority(self, tls_server: TlsServer) -> None:
        server, _, other = tls_server
        for options in ({"ssl_ca": other.certificate}, {"ssl_verify_cert": "true"}, {"ssl_verify_identity": "true"}):
            all_refuse(everybody(*self.urls(server, options)), "CERTIFICATE_VERIFY_FAILED")

    def test_all_refuse_one_of_another_name(self, tls_server: TlsServer) -> None:
        server, authority, _ = tls_server
        named = self.urls(server, {"ssl_ca": authority.certificate, "ssl_verify_identity": "true"}, "localhost")
        all_refuse(everybody(*named), "not valid for 'localhost'", "Hostname mismatch")

    def test_without_tls_all_are_refused(self, tls_server: TlsServer) -> None:
        server, _, _ = tls_server
        all_refuse(everybody(*self.urls(server, {"ssl_disabled": "true"})), "insecure transport", "denied")

    def test_all_show_a_certificate_of_their_own(self, tls_server: TlsServer) -> None:
        server, authority, _ = tls_server
        own = {"ssl_ca": authority.certificate}
        everybody(*self.urls(server, own))[0]()
        _execute(self.urls(server, {})[0], "ALTER USER lane@'%' REQUIRE X509", "ALTER USER reader@'%' REQUIRE X509")
        try:
            all_refuse(everybody(*self.urls(server, own))[1:], "denied")
            certificate, key = authority.issue("client", "DNS:client")
            for ask in everybody(*self.urls(server, own | {"ssl_cert": certificate, "ssl_key": key})):
                ask()
        finally:
            _execute(self.urls(server, {})[0], "ALTER USER lane@'%' REQUIRE NONE", "ALTER USER reader@'%' REQUIRE NONE")

    def test_all_take_the_server_s_socket(self, tls_server: TlsServer) -> None:
        """Nobody listens at the address's own host and port."""
        server, _, _ = tls_server
        socket = {"unix_socket": server.data / "mysqld.sock"}
        nowhere = f"127.0.0.1:{free_port()}"
        owner = url_of("mysql", nowhere, "coordinator", "coordinator", "ledger", socket)
        others = [url_of("mysql", nowhere, role, role, "ledger", socket) for role in ("lane", "reader")]
        for ask in everybody(owner, *others):
            ask()

    def test_no_password_is_sent_where_tls_is_asked_for_and_not_offered(self, administrators: Environment) -> None:
        server = parse_address(administrators["PAYMENTS_DATABASE_URL"])
        url = url_of("mysql", str(server.hosts[0]), "nobody", "hunter2", "ledger", {"ssl_verify_cert": "true"})
        if _offers_tls(administrators["PAYMENTS_DATABASE_URL"]):
            pytest.skip("this server offers TLS by itself")
        all_refuse(everybody(url, url, url), "SSL is required", "TLS is asked for", "support SSL", "doesn't support")


def _offers_tls(url: str) -> bool:
    engine = sql_engine(url)
    with engine.connect() as connection:
        found = connection.execute(text("SHOW VARIABLES LIKE 'have_ssl'")).first()
    engine.dispose()
    return found is None or found[1] == "YES"
