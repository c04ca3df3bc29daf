"""An address means one thing, to every process and driver; what means nothing is refused by name."""

import os
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from coordinator.cache.driver_arguments import connection_of as redis_connection
from coordinator.runtime import settings as all_settings
from coordinator.runtime.addresses import Address, Host, Secret, parse_address
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.runtime.settings import BrokerSettings, DatabaseSettings, ReaderSettings, load
from coordinator.service.errors import ConfigurationError
from coordinator.stores.kinds import kind_of
from coordinator.stores.mongodb.driver_arguments import connection_of as mongodb_connection
from coordinator.stores.mysql.driver_arguments import connection_of as mysql_connection
from coordinator.stores.mysql.driver_arguments import reading_connection_of as mysql_reading
from coordinator.stores.postgresql.driver_arguments import connection_of as postgresql_connection
from coordinator.stores.postgresql.driver_arguments import session_of, with_session
from coordinator.transports.rabbitmq.driver_arguments import broker_addresses, broker_parameters
from tests.support.ledger import LEDGER

SECRET = "hunter2"
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
HOSTILE = """p%w %% %s %(x)s 'q' "d" `b` \\ @:/?#&=+,; é 漢 😀 ${x} {y} $1 --"""


def url(scheme: str, user: str, password: str, database: str) -> str:
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@h:1/{quote(database, safe='')}"


@given(TEXTS, TEXTS, TEXTS)
def test_every_character_comes_out_as_it_was_escaped(user: str, password: str, database: str) -> None:
    address = parse_address(url("postgresql", user, password, database))
    assert (address.user, address.plain_password, address.database) == (user, password, database)
    given_to_libpq = conninfo_to_dict(make_conninfo("", **postgresql_connection(address)))
    ours = given_to_libpq.pop("client_encoding"), given_to_libpq.pop("application_name")
    assert ours == ("UTF8", "coordinator")
    assert given_to_libpq == {"user": user, "password": password, "dbname": database, "host": "h", "port": "1"}
    mysql = mysql_connection(parse_address(url("mysql", user, password, database)))
    assert (mysql["user"], mysql["database"]) == (user, database)
    # What its drivers then send.
    assert mysql["password"].encode("latin-1") == password.encode()
    (broker,) = broker_parameters(BrokerSettings(url=url("amqp", user, password, database)), "x")
    assert (broker.credentials.username, broker.credentials.password, broker.virtual_host) == (user, password, database)
    mongodb = mongodb_connection(parse_address(url("mongodb", user, password, "db")))
    assert (mongodb["username"], mongodb["password"]) == (user, password)
    redis = redis_connection(CacheSettings(url=url("redis", user, password, "3")))
    assert (redis["username"], redis["password"], redis["db"]) == (user, password, 3)


@given(st.text(string.printable + "é漢%", max_size=40))
def test_a_text_is_an_address_or_is_refused_in_words(text: str) -> None:
    for scheme in ("postgresql", "sqlite", "amqp"):
        try:
            parse_address(f"{scheme}://{text}")
        except ConfigurationError:
            continue


@pytest.mark.parametrize(
    ("path", "file"),
    [("here.db", "here.db"), ("/a%2Fb/#c?d=e&f/it's.db", "/a%2Fb/#c?d=e&f/it's.db"), (":memory:", ":memory:")],
)
def test_the_path_of_a_file_is_as_it_stands(path: str, file: str) -> None:
    assert parse_address(f"sqlite:///{path}") == Address(scheme="sqlite", database=file)


WRONG = {
    "postgresql://u:hunter2%@h/d": "%25",
    "postgresql://u:hun%zter2@h/d": "%25",
    "postgresql://u:hunter2@x@h/d": "%40",
    "postgresql://u:12/hunter2@h/d": "%2F",
    "postgresql://u:hunter2#x@h/d": "%23",
    "postgresql://u:12?hunter2=@h/d": "%40",
    "postgresql://u:hunter2%0A@h/d": "password must hold no control characters",
    "postgresql://u:hunter2%00@h/d": "password must hold no control characters",
    "postgresql://u:hunter2%FF@h/d": "UTF-8",
    "postgresql://u:hunter2\n@h/d": "control characters",
    "postgresql://u:hunter2 @h/d": "%20",
    "postgresql://u:hunter2@h:33o6/d": "its port is no number from 1 to 65535",
    "postgresql://u:hunter2@h:0/d": "its port",
    "postgresql://u:hunter2@h:65536/d": "its port",
    "postgresql://u:hunter2@h:/d": "one port",
    "postgresql://u:hunter2@h,:5/d": "one host",
    "postgresql://u:hunter2@[::1/d": "one host",
    "postgresql://u:hunter2@a..b/d": "its host has a part that is empty",
    "mysql://u:hunter2@h,./d": "its host has a part that is empty",
    f"mysql://u:hunter2@{'x' * 64}/d": "or longer than 63 letters",
    "postgresql://u:hunter2@h": "must name a database",
    "postgresql://u:hunter2@h/": "must name a database",
    "postgresql://u:hunter2@h/d?hunter2": "name=value",
    "postgresql://u:hunter2@h/d?sslmode=a&sslmode=b": "'sslmode' is there twice",
    "postgresql://u:hunter2@h/d?sslmode=a+b": "%2B",
    "mysql://u:hunter2@h/": "must name a database",
    "mongodb://u:hunter2@h/": "must name a database",
    "sqlite://": "sqlite:///",
    "sqlite:///": "names no file",
    "postgresql+srv://u:hunter2@h/d": "no kind of database for 'postgresql+srv'",
    "postgres://u:hunter2@h/d": "postgresql",
    "postgresql+psycopg://u:hunter2@h/d": "postgresql",
    "postgresql://u:hunter2@h/d,postgresql://u:hunter2@i/d": "a second address begins behind a comma",
    "hunter2": "no address of these",
    "hunter2://u:p@h/d": "no address of these",
    "u:hunter2://x@h/d": "no address of these",
    "A=hunter2B=sqlite://": "no address of these",
    "hunter2://u:p@h/d,postgresql://u:p@i/d": "no address of these",
}


@pytest.mark.parametrize(("address", "said"), WRONG.items())
def test_what_two_readers_could_take_for_two_things_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    monkeypatch.setenv("USERS_DATABASE_URL", address)
    with pytest.raises(ConfigurationError) as refused:
        load(DatabaseSettings, prefix="USERS_")
    assert str(refused.value).startswith("USERS_DATABASE_URL: ")
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("address", ["hunter2://u:p@h/d", "hunter2://u:p@h/d,postgresql://u:p@i/d"])
def test_a_part_of_a_password_is_not_shown_as_a_scheme(address: str) -> None:
    """Of an address that no setting has, such as that of an option."""
    with pytest.raises(ConfigurationError) as refused:
        _ = parse_address(address).folder
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "option"),
    [
        ("postgresql://u:hunter2@h/d?sslmode=on", "sslmode"),
        ("postgresql://u:hunter2@h/d?sslrootcert=/no/such/file", "sslrootcert"),
        ("postgresql://u:hunter2@h/d?service=hunter2", "service"),
        ("postgresql://u:hunter2@h/d?password=hunter2", "password"),
        ("postgresql://u:hunter2@h/d?connect_timeout=3", "connect_timeout"),
        ("postgresql://u:hunter2@h/d?target_session_attrs=hunter2", "target_session_attrs"),
        ("postgresql://u:hunter2@h/d?host=h2", "host"),
        ("postgresql://u:hunter2@/d?host=a,b,c&port=1,2", "port"),
        ("postgresql://u:hunter2@/d?host=a&port=hunter2", "port"),
        ("postgresql://u:hunter2@h/d?options=-c%20lock_timeout%3D1", "lock_timeout"),
        ("postgresql://u:hunter2@h/d?options=-d%205", "options"),
        ("mysql://u:hunter2@h/d?ssl_mode=REQUIRED", "ssl_mode"),
        ("mysql://u:hunter2@h/d?ssl_ca=/no/such/file", "ssl_ca"),
        ("mysql://u:hunter2@h/d?ssl_key=/k", "ssl_key"),
        ("mysql://u:hunter2@h/d?ssl_verify_identity=hunter2", "ssl_verify_identity"),
        ("mysql://u:hunter2@h/d?ssl_disabled=true&ssl_verify_cert=true", "ssl_disabled"),
        ("mysql://u:hunter2@h/d?ssl_verify_cert=false&ssl_verify_identity=true", "ssl_verify_cert"),
        ("mysql://u:hunter2@h/d?charset=latin1", "charset"),
        ("mysql://u:hunter2@h/d?init_command=hunter2", "init_command"),
        ("mongodb://u:hunter2@h/d?tls=hunter2", "tls"),
        ("mongodb://u:hunter2@h/d?w=1", "w"),
        ("mongodb://u:hunter2@h/d?nonsense=hunter2", "nonsense"),
        ("mongodb://u:hunter2@h/d?appName=hunter2", "appName"),
        ("mongodb://u:hunter2@h1,h2/d?directConnection=true", "options"),
        ("mongodb://u:hunter2@h/a%2Eb", "name a database"),
        ("mongodb+srv://u:hunter2@h:1/d", "port"),
    ],
)
def test_what_an_address_asks_for_and_no_process_does_is_refused_by_name(address: str, option: str) -> None:
    taken = parse_address(address)
    kind = kind_of(taken)
    asked: list[Callable[[], object]] = [
        lambda: kind.check_address(taken),
        lambda: kind.open_store(taken, LEDGER),
        lambda: kind.open_admin(taken, "ledger"),
        lambda: kind.open_reader(taken, 1, 1000),
        lambda: kind.migrate(LEDGER, taken, taken, None, ()),
    ]
    said = set()
    for ask in asked:
        with pytest.raises(ConfigurationError) as refused:
            ask()
        said.add(str(refused.value))
    assert len(said) == 1
    assert option in said.pop()
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("postgresql://u@a:1,b:2/d", "a,b", "1,2"),
        ("postgresql://u@a,b:2/d", "a,b", ",2"),
        ("postgresql://u@/d?host=a,b&port=1,2", "a,b", "1,2"),
        ("postgresql:///d?host=/run/postgresql", "/run/postgresql", None),
        ("postgresql://%2Frun%2Fpostgresql/d", "/run/postgresql", None),
        ("postgresql://[::1]:5/d", "::1", "5"),
        ("postgresql:///d", None, None),
    ],
)
def test_both_forms_of_several_hosts_are_the_same(address: str, host: str | None, port: str | None) -> None:
    found = postgresql_connection(parse_address(address))
    assert (found.get("host"), found.get("port")) == (host, port)


@given(st.dictionaries(st.sampled_from(["search_path", "work_mem", "a.b"]), TEXTS))
def test_the_options_of_a_session_are_kept_beside_our_own(parameters: dict[str, str]) -> None:
    given = with_session({}, parameters)["options"]
    address = parse_address(f"postgresql://h/d?options={quote(given, safe='')}")
    assert session_of(address) == parameters
    assert with_session(postgresql_connection(address), {"lock_timeout": 5})["options"].endswith("-c lock_timeout=5")


def test_mysql_is_asked_for_tls_alike_by_the_lane_and_by_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an option for it there is no connection without; with none it is taken where it is offered."""
    for query, tls, identity in (
        ("", None, None),
        ("?ssl_verify_cert=true", True, False),
        ("?ssl_verify_identity=1", True, True),
    ):
        address = parse_address(f"mysql://u:p@h/d{query}")
        lane, reader = mysql_connection(address), mysql_reading(address)
        assert reader["requires_tls"] is (tls is not None)
        if tls is not None:
            for arguments in (lane, reader):
                assert arguments["ssl"].check_hostname is identity
    without = parse_address("mysql://u:p@h/d?ssl_disabled=true")
    assert mysql_connection(without)["ssl_disabled"]
    assert "ssl" not in mysql_reading(without)
    seen: dict[str, Any] = {}

    def connect(**arguments: Any) -> None:
        seen.update(arguments)
        raise pymysql.err.OperationalError(2003, "only looking")

    monkeypatch.setattr(pymysql, "connect", connect)
    store = kind_of(address).open_store(
        parse_address("mysql://u:p@h/d?ssl_verify_identity=1&unix_socket=/run/s"), LEDGER
    )
    with pytest.raises(Exception, match="only looking"):
        store.check(())
    assert seen["unix_socket"] == "/run/s"
    assert seen["ssl"].check_hostname


def test_a_secret_is_in_no_repr() -> None:
    with_secrets = parse_address("postgresql://u:hunter2@h/d?sslpassword=hunter2&options=hunter2")
    database = DatabaseSettings(
        database_url="postgresql://u:hunter2@h/d",
        reader_url="postgresql://r:hunter2@h/d",
        migration_url="postgresql://m:hunter2@h/d",
    )
    reader = ReaderSettings(reader_url="postgresql://r:hunter2@h/d", database_url="postgresql://u:hunter2@h/d")
    shown = [
        with_secrets,
        Secret(SECRET),
        Host("h"),
        database,
        reader,
        BrokerSettings(url="amqp://u:hunter2@h,i/"),
        CacheSettings(url="redis://:hunter2@h"),
        broker_parameters(BrokerSettings(url="amqp://u:hunter2@h,i/"), "x"),
        kind_of(with_secrets).open_reader(parse_address("postgresql://u:hunter2@h/d"), 1, 1000),
    ]
    for each in shown:
        for text in (repr(each), str(each), f"{each}", repr([each])):
            assert SECRET not in text
    assert "sslpassword=…" in repr(with_secrets)


def test_a_field_that_may_hold_a_secret_is_in_no_repr_of_its_group() -> None:
    groups = [each for each in vars(all_settings).values() if isinstance(each, type) and hasattr(each, "model_fields")]
    urls = {
        (each.__name__, name): field.repr
        for each in groups
        for name, field in each.model_fields.items()
        if name.endswith("url")
    }
    assert len(urls) > 5
    assert not any(urls.values())


def test_a_validation_error_shows_no_address() -> None:
    with pytest.raises(ValueError, match="port") as refused:
        DatabaseSettings(database_url="postgresql://u:hunter2@h:hunter2/d")
    assert SECRET not in str(refused.value)


def test_tls_of_a_broker_is_asked_for_as_rabbitmq_s_clients_do(tmp_path: Any) -> None:
    (checked,) = broker_parameters(BrokerSettings(url="amqps://u:p@h/"), "x")
    assert checked.port == 5671
    assert checked.ssl_options.context.check_hostname
    (unchecked,) = broker_parameters(
        BrokerSettings(url="amqps://u:p@h/?verify=verify_none&server_name_indication=x"), "x"
    )
    assert not unchecked.ssl_options.context.check_hostname
    assert unchecked.ssl_options.server_hostname == "x"
    missing = quote(str(tmp_path / "missing"), safe="")
    for query, option in (
        ("ssl_options=1", "ssl_options"),
        ("heartbeat=1", "heartbeat"),
        ("verify=maybe", "verify"),
        (f"cacertfile={missing}", "cacertfile"),
        (f"keyfile={missing}", "keyfile"),
    ):
        with pytest.raises(ConfigurationError, match=f"^AMQP_URL: .*{option}"):
            broker_parameters(BrokerSettings(url=f"amqps://u:p@h/?{query}"), "x")


def test_a_broker_has_as_many_nodes_as_its_address_has_hosts() -> None:
    nodes = broker_parameters(BrokerSettings(url="amqps://u:p,w@a,b:1,[::1]:2/v?verify=verify_none"), "x")
    assert broker_addresses(nodes) == "a:5671, b:1, [::1]:2"
    assert {(each.credentials.password, each.virtual_host) for each in nodes} == {("p,w", "v")}
    # A node's certificate must name this node.
    assert [each.ssl_options.server_hostname for each in nodes] == ["a", "b", "::1"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("amqp://u:hunter2@a:1,amqp://u:hunter2@b:1/", "a second address begins behind a comma"),
        ("amqp://u:hunter2@a:1/,amqp://u:hunter2@b:1/", "amqp://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME"),
        ("amqp://u:hunter2@a:1,u:hunter2@b:1/", "%40"),
        ("amqp://u:hunter2@a:1/v,b:2/v", "%2F"),
        ("amqp://u:hunter2@a:1,,b:2/", "one host"),
        ("amqp://u:hunter2@a,b/v?c,d", "name=value"),
        ("redis://:hunter2@a,b/", "one host"),
    ],
)
def test_another_list_of_a_brokers_addresses_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    monkeypatch.setenv("AMQP_URL", address)
    with pytest.raises(ConfigurationError, match=f"^AMQP_URL: .*{re.escape(said)}") as refused:
        load(BrokerSettings)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("postgresql://u:p@h/d?", ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")),
        ("mysql://u:p@h/d?", ("ssl_ca", "ssl_cert", "ssl_key")),
        ("mongodb://u:p@h/d?", ("tlsCAFile", "tlsCertificateKeyFile")),
        ("amqps://u:p@h/?", ("cacertfile", "certfile")),
        ("rediss://h?", ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")),
    ],
)
def test_a_file_of_an_address_that_is_a_pipe_is_refused_at_once(
    tmp_path: Path, address: str, options: tuple[str, ...]
) -> None:
    """Whoever opened it would wait for somebody who writes."""
    os.mkfifo(tmp_path / "pipe")
    taken: Callable[[str], object] = {
        "amqps": lambda text: broker_parameters(BrokerSettings(url=text), "x"),
        "rediss": lambda text: redis_connection(CacheSettings(url=text)),
    }.get(address.partition(":")[0], lambda text: kind_of(parse_address(text)).check_address(parse_address(text)))
    for option in options:
        with pytest.raises(ConfigurationError, match=f"'{option}' names no plain file"):
            taken(f"{address}{option}={quote(str(tmp_path / 'pipe'), safe='')}")


@pytest.mark.parametrize(
    ("query", "said"),
    [("/x", "number of a database"), ("/0?db=1", "'db'"), ("?ssl_cert_reqs=none", "'ssl_cert_reqs'")],
)
def test_an_address_of_a_cache_that_asks_for_what_is_not_done_is_refused(query: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^REDIS_URL: .*{said}"):
        redis_connection(CacheSettings(url=f"redis://:hunter2@h{query}"))


def test_hostile_texts_are_given_to_every_driver() -> None:
    """The example that all kinds have in common."""
    address = parse_address(url("mysql", HOSTILE, HOSTILE, HOSTILE))
    assert (address.user, address.plain_password, address.database) == (HOSTILE,) * 3
