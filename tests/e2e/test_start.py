"""What is not as it must be is refused at the start, in one line that says what to do; nothing is left running."""

import json
import socket
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import pytest
from sqlalchemy import Connection, text

from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.reading_rights import OF_GATEWAYS
from coordinator.transports.rabbitmq.topology import queue_name
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until


def run(system: System, directory: Path, *arguments: str, **settings: str) -> tuple[int | None, str]:
    process = system.run(list(arguments), directory / "refused.log", settings)
    assert process.wait(30), "it should have refused to start"
    errors = [line for line in process.log_tail(50).splitlines() if not line.startswith("{")]
    return process.exit_status, "\n".join(errors)


def test_a_queue_with_other_arguments_is_refused(system: System, tmp_path: Path) -> None:
    system.prepare("users")
    with system.broker() as channel:
        channel.queue_declare(queue_name("users"), durable=True)
    status, error = run(system, tmp_path, "coordinator", "run", "users")
    with system.broker() as channel:
        channel.queue_delete(queue_name("users"))
    assert status == 2
    assert "writes.users" in error
    assert "x-queue-type" in error or "inequivalent" in error


def test_a_database_that_is_not_migrated_is_refused(system: System, tmp_path: Path) -> None:
    system.prepare()
    # Its owner's, since no migration has made the lane's role yet.
    status, error = run(system, tmp_path, "coordinator", "run", "users", USERS_DATABASE_URL=system.owner("users"))
    assert status == 2
    assert "USERS_DATABASE_URL" in error
    assert "coordinator migrate" in error


@pytest.mark.parametrize(
    ("service", "name", "said"),
    [
        ("items", "nothing_here", "ITEMS_READER_URL: the database has no lane: correct its address"),
        ("users", "lane", "USERS_READER_URL: the database is that of lane other, and not of users"),
    ],
)
def test_a_gateway_refuses_a_database_that_is_not_its_lane_s(
    system: System, tmp_path: Path, service: str, name: str, said: str
) -> None:
    """It would answer 404 for what exists."""
    system.prepare(service)
    setting = f"{service.upper()}_READER_URL"
    url = system.environment[setting]
    if name == "lane":
        engine = sql_engine(system.owner(service))
        with engine.connect() as connection:
            connection.execute(text("UPDATE lane_lease SET lane = 'other'"))
        engine.dispose()
    else:
        url = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    status, error = run(system, tmp_path, "gateways", service, "--port", "0", **{setting: url})
    assert status == 2
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("LANE_PREFETCH", "0"),
        ("LANE_BATCH_COMMANDS_MAX", "many"),
        ("AMQP_URL", "http://x"),
        ("USERS_DATABASE_URL", "x"),
        ("USERS_DATABASE_URL", "postgresql://u:p@127.0.0.1:1/d?nosuch=1"),
        ("AMQP_URL", f"amqp://o:o@127.0.0.1/{'v' * 400}"),
    ],
)
def test_a_wrong_setting_is_named(system: System, tmp_path: Path, setting: str, value: str) -> None:
    status, error = run(system, tmp_path, "coordinator", "run", "users", **{setting: value})
    assert status == 2
    assert setting in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("lane", ["users", "items", "payments"])
def test_a_password_or_a_database_that_the_server_does_not_know_is_named(
    system: System, tmp_path: Path, lane: str
) -> None:
    """Whatever the server: waiting would be no use. One that is not there yet is waited for."""
    system.prepare(lane)
    setting = f"{lane.upper()}_DATABASE_URL"
    right = urlsplit(system.environment[setting])
    host = f"{right.hostname}:{right.port}"
    wrong = [right._replace(netloc=f"nobody:wrong@{host}")]
    if lane != "items":  # MongoDB makes a database when it is written to
        wrong.append(right._replace(path="/nowhere"))
    for each in wrong:
        status, error = run(system, tmp_path, "coordinator", "run", lane, **{setting: urlunsplit(each)})
        assert (status, len(error.splitlines())) == (2, 1), error
        assert setting in error
        assert "wrong" not in error


RIGHTS = {
    "users": ("REVOKE INSERT ON command_log FROM {role}", "GRANT INSERT ON command_log TO {role}"),
    "payments": (
        r"REVOKE INSERT ON `{pattern}`.* FROM {role}@'%'",
        r"GRANT INSERT ON `{pattern}`.* TO {role}@'%'",
    ),
}
"""What takes a right from a lane's role, and gives it back."""


@pytest.mark.parametrize("lane", RIGHTS)
def test_a_role_that_migrate_made_does_for_a_lane_and_what_it_lacks_is_named(
    system: System, tmp_path: Path, lane: str
) -> None:
    """At the start the process ends; later the lane waits, and says for what."""
    setting = f"{lane.upper()}_DATABASE_URL"
    owner = system.owner(lane)
    address = urlsplit(owner)
    role = f"lane_of_{lane}"
    system.environment[setting] = address._replace(netloc=f"{role}:secret@{address.hostname}:{address.port}").geturl()
    system.prepare()
    migration = {setting.replace("DATABASE", "MIGRATION"): owner}
    status, said = run(system, tmp_path, "coordinator", "migrate", lane, **migration)
    assert status == 0, said
    pattern = address.path[1:].replace("_", r"\_")
    revoke, grant = (statement.format(role=role, pattern=pattern) for statement in RIGHTS[lane])
    engine = sql_engine(owner)
    with engine.connect() as connection:
        try:
            coordinator = system.start_coordinator(lane)
            execute(connection, revoke)
            status, said = run(system, tmp_path, "coordinator", "run", lane)
            assert (status, len(said.splitlines())) == (2, 1), said
            for part in (setting, f"role {role} lacks" if lane == "users" else "denied", "GRANT", "command_log"):
                assert part in said or (part == "command_log" and lane == "payments")
            if lane == "users":  # MySQL looks at them again when a session chooses its database
                send = ("coordinator", "send", "users.create", '{"name": "Ada", "email": "ada@example.org"}')
                assert run(system, tmp_path, *send)[0] == 0
                wait_until(lambda: "denied for table command_log" in (held(system) or ""), "it says what it lacks")
                assert "denied for table command_log" in coordinator.log_path.read_text()
            execute(connection, grant)
            wait_until(lambda: held(system) is None, "the lane goes on")
            execute(connection, "ALTER TABLE lane_lease RENAME TO lane_lease_away")
            status, said = run(system, tmp_path, "coordinator", "run", lane)
            assert (status, len(said.splitlines())) == (2, 1), said
            assert "lane_lease" in said
            assert "coordinator migrate" in said
            execute(connection, "ALTER TABLE lane_lease_away RENAME TO lane_lease")
        finally:
            system.stop()
            if lane == "users":
                execute(connection, f"DROP OWNED BY {role}")
            execute(connection, f"DROP {'ROLE' if lane == 'users' else 'USER'} {role}")
    engine.dispose()


READERS = {"users": "users_reader", "payments": "payments_reader@'%'"}
AT_THE_START = (LogEntry.table, LEASE_TABLE)
"""The tables for which a process is started: all are read by the same query there and later."""


@pytest.mark.parametrize("service", READERS)
def test_a_gateway_that_may_not_read_a_table_names_it(system: System, tmp_path: Path, service: str) -> None:
    """At the start the process ends; later it is not ready, and says why: for each table that it reads."""
    system.start(service)
    url = f"{system.urls[service]}/readyz"
    engine = sql_engine(system.owner(service))
    with engine.connect() as connection:
        for table in (service, *OF_GATEWAYS):
            execute(connection, f"REVOKE SELECT ON {table} FROM {READERS[service]}")
            with pytest.raises(HTTPError) as unready:
                urlopen(url, timeout=10)
            reason = json.loads(unready.value.read())["reasons"]["database"]
            assert reason.startswith(f"the gateway's role may not SELECT from {table}: GRANT it")
            if table in AT_THE_START:
                status, said = run(system, tmp_path, "gateways", service, "--port", "1")
                assert (status, len(said.splitlines())) == (2, 1), said
                assert f"{service.upper()}_READER_URL" in said
                assert f"may not SELECT from {table}" in said
            execute(connection, f"GRANT SELECT ON {table} TO {READERS[service]}")
        with urlopen(url, timeout=10) as ready:
            assert ready.status == 200
    engine.dispose()


def execute(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def held(system: System) -> str | None:
    """What the only coordinator says in /readyz that it waits for."""
    (url,) = (url for _, _, url in system._starts.values())
    try:
        with urlopen(url, timeout=10) as response:
            body = response.read()
    except HTTPError as unready:
        body = unready.read()
    reason: str | None = json.loads(body)["reason"]
    return reason


@pytest.mark.parametrize("url", ["amqp://operator:wrong@{}/", "amqp://operator:operator@{}/nowhere"])
def test_an_operator_whom_the_broker_refuses_is_told_the_setting(system: System, tmp_path: Path, url: str) -> None:
    right = urlsplit(system.environment["AMQP_URL"])
    command = ["coordinator", "send", "users.credit", '{"id": 1, "amount": 1}']
    status, error = run(system, tmp_path, *command, AMQP_URL=url.format(f"{right.hostname}:{right.port}"))
    assert (status, len(error.splitlines())) == (2, 1), error
    assert "AMQP_URL" in error


def test_a_port_in_use_is_named(system: System, tmp_path: Path) -> None:
    system.prepare("users")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, error = run(system, tmp_path, "coordinator", "run", "users", "--metrics-port", port)
    assert status == 2
    assert port in error
    assert "--metrics-port" in error


def test_two_lanes_cannot_share_a_database(system: System, tmp_path: Path) -> None:
    system.prepare("users")
    coordinator = system.start_coordinator("users")
    assert coordinator.alive
    from uuid import uuid4

    from tests.e2e.test_direct_enqueue import amqp_publish, users
    from tests.support.system import wait_until

    amqp_publish(system, '{"name": "Ada", "email": "a@b"}', f"command-id: {uuid4()}", "command-type: users.create")
    wait_until(lambda: len(users(system)) == 1, "Ada")
    status, error = run(
        system,
        tmp_path,
        "coordinator",
        "run",
        "payments",
        PAYMENTS_DATABASE_URL=system.environment["USERS_DATABASE_URL"],
    )
    assert status == 2
    assert "PAYMENTS_DATABASE_URL" in error
