"""The operator's commands, as an operator runs them, on the real system."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pika
import pytest
from click.testing import CliRunner
from msgspec import Struct
from sqlalchemy import text

from coordinator.cli import EXIT_CONFIGURATION, cli
from coordinator.operate.output import as_user
from coordinator.protocol.actors import HEADER_ACTOR
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import CommandMessage, encode_pack
from coordinator.registry import registry
from coordinator.service.errors import ConfigurationError
from coordinator.service.ids import replay_command_id
from coordinator.stores.lane_tables import OutboxEntry, ParkedCommand
from coordinator.stores.open import open_store
from coordinator.stores.port import Changes, Store
from coordinator.transports.rabbitmq.topology import dead_queue_name, queue_name
from tests.support.callers import CALLER
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

pytestmark = pytest.mark.operators

LANES = ("users", "items", "payments")
ONE_OF_SQL_ONE_OF_MONGODB = ("users", "items")
CREATE = {
    "users": ("users.create", {"name": "Ada", "email": "ada@example.org"}),
    "items": ("items.create", {"name": "Pen", "price": 100, "currency": "EUR", "stock": 5}),
    "payments": ("payments.open", {"user_id": 1, "amount": 5, "currency": "EUR"}),
}
TIMEOUT_S = 60

Run = Callable[..., "Ran"]


class Ran(Struct, frozen=True):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(system: System) -> Run:
    """Run a command of the CLI in the system's environment; in this process, since one of its own takes a second."""

    def run_one(*arguments: object, expect: int = 0, **settings: str) -> Ran:
        ran = CliRunner().invoke(cli, list(map(str, arguments)), env=system.environment | settings)
        status, error = ran.exit_code, ran.stderr
        if isinstance(ran.exception, ConfigurationError):
            status, error = EXIT_CONFIGURATION, str(ran.exception)
        elif ran.exception is not None and not isinstance(ran.exception, SystemExit):
            raise ran.exception
        assert status == expect, f"{arguments}: {status}\n{ran.stdout}\n{error}"
        return Ran(status, ran.stdout, error)

    return run_one


def run_process(system: System, *arguments: str, **settings: str) -> Ran:
    """The same as a process, as an operator has it."""
    process = subprocess.run(
        [sys.executable, "-m", "coordinator", *arguments],
        env=system.environment | settings,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Ran(process.returncode, process.stdout, process.stderr)


def create(lane: str) -> tuple[str, str]:
    command_type, arguments = CREATE[lane]
    return command_type, json.dumps(arguments)


def user(number: int) -> str:
    return json.dumps({"name": "Ada", "email": f"ada{number}@example.org"})


def enqueue(system: System, lane: str, command_type: str, body: bytes, **properties: Any) -> str:
    """Publish past the CLI, which would refuse it, as a gateway does for somebody who may issue it."""
    command_id = str(uuid4())
    with system.broker() as channel:
        channel.confirm_delivery()
        asked = {"user_id": system.account, "headers": {HEADER_ACTOR: CALLER.as_json}}
        fields = {"message_id": command_id, "type": command_type, **asked, **properties}
        channel.basic_publish("writes", lane, body, pika.BasicProperties(**fields), mandatory=True)
    return command_id


def mark(system: System, lane: str, publisher: str, number: int) -> None:
    """A command of a publisher session that changes nothing."""
    with system.broker() as channel:
        session = {"publisher": publisher, "publisher-seq": number}
        properties = pika.BasicProperties(message_id=str(uuid4()), type="lane.marker", headers=session)
        channel.basic_publish("writes.system", lane, b"{}", properties, mandatory=True)


def depth(system: System, queue: str) -> int:
    with system.broker() as channel:
        return int(channel.queue_declare(queue, passive=True).method.message_count)


def letters_of(run: Run, *arguments: object) -> list[dict[str, Any]]:
    return list(run("dead", "list", *arguments, "--json").json)


def wait_dead(run: Run, lane: str, count: int) -> None:
    wait_until(lambda: len(letters_of(run, lane, "--limit", 1000)) == count, f"{count} dead letters")


@pytest.fixture
def query(system: System) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    engine = sql_engine(system.environment["USERS_DATABASE_URL"])

    def fetch(statement: str) -> list[tuple[Any, ...]]:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement)).all()]

    yield fetch
    engine.dispose()


def test_status_shows_every_lane(system: System, run: Run) -> None:
    system.prepare(*LANES)
    system.start_coordinators(*LANES)
    system.start_coordinator("users")
    for lane in LANES:
        run("send", *create(lane), "--wait", 20)
    failed = run(
        "send", "--json", "users.create", '{"name": "Ada", "email": "ada@example.org"}', "--wait", 20, expect=1
    )
    assert failed.json["error"]["code"] == "email_taken"
    enqueue(system, "users", "users.nonsense", b"{}")
    wait_dead(run, "users", 1)
    found = {lane["lane"]: lane for lane in run("status", "--json", "--sample-s", "0.2").json}
    assert list(found) == list(LANES)
    users = found["users"]
    assert (users["epoch"], users["sequence"], users["is_paused"], users["ready"]) == (1, 3, False, 0)
    assert (users["consumers"], users["dead_letters"], users["errors"]) == (1, 1, [])
    assert (users["dead_in_broker"], users["outbox"]) == (0, [])
    assert users["holder"].startswith("coordinator users ")
    assert users["last_failed"]["code"] == "unknown_command_type"
    assert users["last_settled_at"] >= users["taken_at"]
    for lane in ("items", "payments"):
        assert (found[lane]["sequence"], found[lane]["consumers"], found[lane]["last_failed"]) == (1, 1, None)
    table = run("status", "users").out
    assert "unknown_command_type" in table
    assert users["holder"] in table


def test_status_shows_what_is_away(system: System, run: Run) -> None:
    system.prepare("users")
    dead_end = "127.0.0.1:1"
    away = run(
        "status",
        "--json",
        "--sample-s",
        "0",
        expect=1,
        AMQP_URL=f"amqp://operator:operator@{dead_end}/%2F",
        ITEMS_DATABASE_URL=f"mongodb://{dead_end}/items",
        PAYMENTS_DATABASE_URL=f"mysql://root@{dead_end}/payments",
    )
    users, items, payments = away.json
    assert [len(lane["errors"]) for lane in (users, items, payments)] == [1, 2, 2]
    assert "cannot be reached" in users["errors"][0]
    assert "database of lane items" in items["errors"][0]
    assert users["sequence"] == 0
    # Its owner's, since no migration has made the lane's role yet.
    owner = system.owner("payments")
    ran = run("status", "payments", "--json", expect=1, PAYMENTS_DATABASE_URL=owner)
    assert "not migrated" in ran.json[0]["errors"][0]
    # What is dead is in the databases, whatever is away.
    assert run("dead", "list", "users", AMQP_URL=f"amqp://{dead_end}/%2F").err == ""
    assert "cannot be reached" in run("send", *create("users"), expect=1, AMQP_URL=f"amqp://{dead_end}").err
    assert "USERS_DATABASE_URL" in run("pause", "users", "--reason", "x", expect=2, USERS_DATABASE_URL="nonsense").err
    for arguments, settings, expected in (
        (("send", *create("users"), "--json"), {"AMQP_URL": f"amqp://{dead_end}"}, 1),
        (("pause", "users", "--reason", "x"), {"USERS_DATABASE_URL": "nonsense"}, 2),
    ):
        ran = run_process(system, *arguments, **settings)
        assert (ran.status, ran.out) == (expected, "")
        assert len(ran.err.splitlines()) == 1, ran.err


def test_send_prints_the_outcome_and_command_finds_it(system: System, run: Run) -> None:
    system.prepare(*LANES)
    system.start_coordinators(*LANES)
    for lane in LANES:
        outcome = run("send", *create(lane), "--wait", 20, "--json", "--reason", "TICKET-9").json
        act = run("audit", lane, "--operators", "--limit", 1, "--json").json[0]
        assert (act["act"], act["author"], act["reason"]) == ("send", as_user(), "TICKET-9")
        assert act["details"] == {"command_id": outcome["command_id"], "type": create(lane)[0]}
        assert (outcome["lane"], outcome["status"], outcome["sequence"]) == (lane, "applied", 1)
        entry = run("command", outcome["command_id"], "--json").json
        assert (entry["lane"], entry["status"], entry["result"]) == (lane, "applied", outcome["result"])
        again = run("send", *create(lane), "--id", outcome["command_id"], "--wait", 20, "--json").json
        assert (again["replayed"], again["sequence"]) == (True, 1)
    stale = run("send", "users.update", '{"id": 1}', "--expected-version", 7, "--wait", 20, "--json", expect=1).json
    assert stale["error"]["code"] == "version_conflict"
    late = run("send", *create("users"), "--deadline", "2020-01-01T00:00:00Z", "--wait", 20, "--json", expect=1).json
    assert late["status"] == "expired"
    assert "no lane has settled" in run("command", uuid4(), expect=1).err
    assert "lane items has not settled command" in run("command", stale["command_id"], "--lane", "items", expect=1).err


def test_send_without_a_lane_waits_in_the_queue_or_is_refused(system: System, run: Run) -> None:
    system.prepare("users")
    assert "no queue of lane users" in run("send", *create("users"), expect=1).err
    system.start_coordinator("users").stop(signal.SIGTERM, 20)
    pending = run("send", *create("users"), "--wait", "0.5", "--json", expect=3)
    assert pending.json["status"] == "pending"
    assert pending.json["command_id"] in pending.err
    command_id = run("send", "users.create", user(1)).out.strip()
    system.start_coordinator("users")
    run("drain", "users")
    assert run("command", command_id, "--json").json["sequence"] == 2


@pytest.mark.parametrize("lane", ONE_OF_SQL_ONE_OF_MONGODB)
def test_a_paused_lane_commits_nothing_until_it_is_resumed(system: System, run: Run, lane: str) -> None:
    system.prepare(lane)
    system.start_coordinator(lane)
    run("send", *create(lane), "--wait", 20)
    paused = run("pause", lane, "--reason", "maintenance of the disk", "--json").json
    assert (paused["sequence"], paused["paused"]) == (1, "maintenance of the disk")
    command_type = CREATE[lane][0]
    other = {"users": user(2)}.get(lane, create(lane)[1])
    waiting = run("send", command_type, other, "--wait", 2, "--json", expect=3).json["command_id"]
    [status] = run("status", lane, "--json").json
    assert (status["is_paused"], status["paused"], status["sequence"]) == (True, "maintenance of the disk", 1)
    # The coordinator has the command, and the broker does not say so: nobody is told that nothing waits.
    assert (status["ready"], status["lag_s"]) == (0, None)
    assert "  held    up to LANE_PREFETCH messages more" in run("status", lane).out
    assert "maintenance of the disk" in run("drain", lane, expect=1).err
    assert "goes on" in run("resume", lane).out
    assert run("drain", lane, "--json").json["sequence"] == 3
    assert run("command", waiting, "--json").json["status"] == "applied"
    assert run("resume", lane, "--json").json == {"lane": lane, "was_paused": False, "reason": None}


@pytest.mark.parametrize("lane", ONE_OF_SQL_ONE_OF_MONGODB)
def test_a_lane_that_never_ran_can_be_paused_and_starts_paused(system: System, run: Run, lane: str) -> None:
    system.prepare(lane)
    run("pause", lane, "--reason", "not yet")
    run("pause", lane, "--reason", "still not")
    process, url = system.launch_coordinator(lane, {})
    wait_until(lambda: _says(url, "paused by an operator: still not"), "the idle lane says so", process)
    wait_until(lambda: '"consuming"' in process.log_path.read_text(), "it consumes", process)
    assert run("send", *create(lane), "--wait", 1, "--json", expect=3).json["status"] == "pending"
    [status] = run("status", lane, "--json").json
    assert (status["paused"], status["sequence"]) == ("still not", 0)
    run("resume", lane)
    run("drain", lane)


@pytest.mark.parametrize("lane", ONE_OF_SQL_ONE_OF_MONGODB)
def test_a_cancelled_command_is_never_applied(system: System, run: Run, lane: str) -> None:
    system.prepare(lane)
    system.start_coordinator(lane)
    run("send", *create(lane), "--wait", 20)
    run("pause", lane, "--reason", "look before it is applied")
    command_type, arguments = create(lane)
    doomed = run("send", command_type, arguments).out.strip()
    run("cancel", doomed, "--lane", lane, "--reason", "a mistake")
    run("cancel", doomed, "--lane", lane, "--reason", "once more")
    run("resume", lane)
    run("drain", lane)
    entry = run("command", doomed, "--json").json
    assert (entry["status"], entry["error_code"]) == ("rejected", "cancelled")
    assert "settled already, as rejected" in run("cancel", doomed, "--lane", lane, expect=1).err
    # One that is not published yet is cancelled, too.
    early = str(uuid4())
    run("cancel", early, "--lane", lane)
    late = run("send", command_type, arguments, "--id", early, "--wait", 20, "--json", expect=1).json
    assert late["error"]["code"] == "cancelled"


def test_drain_returns_when_everything_before_it_is_settled(system: System, run: Run) -> None:
    system.prepare("users")
    system.start_coordinator("users").stop(signal.SIGTERM, 20)
    run("send", *create("users"))
    with system.broker() as channel:
        channel.confirm_delivery()
        for _ in range(500):
            properties = pika.BasicProperties(message_id=str(uuid4()), type="users.credit")
            channel.basic_publish("writes", "users", b'{"id": 1, "amount": 1}', properties)
    assert run("drain", "users", "--timeout-s", "0.5", expect=3).out == ""
    system.start_coordinator("users")
    # The first drain's marker is settled as well.
    assert run("drain", "users", "--json").json["sequence"] == 503
    assert depth(system, queue_name("users")) == 0


@pytest.mark.parametrize("lane", ONE_OF_SQL_ONE_OF_MONGODB)
def test_dead_letters_are_found_and_shown_in_their_order_and_stay(system: System, run: Run, lane: str) -> None:
    system.prepare(lane)
    system.start_coordinator(lane)
    assert letters_of(run, lane) == []
    count = 70
    ids = [enqueue(system, lane, f"{lane}.nonsense", b'{"n": %d, "s": "%%_\\\\"}' % number) for number in range(count)]
    enqueue(system, lane, f"{lane}.nonsense", b"\xff\x00", message_id=None)
    enqueue(system, lane, f"{lane}.nonsense", b"\xff\x00", message_id=None)
    wait_until(lambda: [each["copies"] for each in letters_of(run, lane, "--after", count)] == [2], "the last one")
    assert run("dead", "list", lane, "--limit", count).err.endswith(f"dead list {lane} --after {count}\n")
    listed = letters_of(run, lane, "--limit", count)
    assert [letter["command_id"] for letter in listed] == ids
    assert [letter["letter"] for letter in listed] == list(range(1, count + 1))
    for options, expected in (
        (("--code", "missing_command_id"), [count + 1]),
        (("--command", ids[3]), [4]),
        (("--contains", '{"n": 6}'), []),
        (("--contains", '"n": 6,'), [7]),
        (("--contains", "%_\\\\"), list(range(1, count + 1))),
        (("--contains", "\udcff\x00"), [count + 1]),
        (("--origin", "system"), []),
        (("--since", "1h", "--after", count - 1), [count, count + 1]),
        (("--until", "1h"), []),
        (
            ("--until", listed[10]["dead_at"], "--type", f"{lane}.nonsense"),
            [each["letter"] for each in listed if each["dead_at"] < listed[10]["dead_at"]],
        ),
    ):
        assert [letter["letter"] for letter in letters_of(run, lane, *options)] == expected, options
    shown = run("dead", "show", "--all", "--lane", lane, "--json").json
    assert [letter["arguments"]["n"] for letter in shown[:count]] == list(range(count))
    assert (shown[count]["text"], shown[count]["kept_bytes"]) == ("\\xff\x00", 2)
    assert "\\xff\\u0000" in run("dead", "show", "--letter", count + 1, "--lane", lane).out
    assert ids[3] in run("dead", "show", ids[3]).out
    # Other lanes have no tables here, and none is named.
    assert "no dead letter" in run("dead", "show", uuid4(), expect=2).err
    assert "no dead letter" in run("dead", "show", uuid4(), "--lane", lane, expect=1).err
    run("dead", "discard", ids[40])
    left = [*ids[:40], *ids[41:], None]
    assert [letter["command_id"] for letter in letters_of(run, lane)] == left
    assert len(run("dead", "discard", "--all", "--lane", lane, "--json").json) == count
    assert letters_of(run, lane) == []


@pytest.mark.parametrize("lane", ONE_OF_SQL_ONE_OF_MONGODB)
def test_a_replay_applies_the_command_once_under_a_derived_id(system: System, run: Run, lane: str) -> None:
    system.prepare(lane)
    system.start_coordinator(lane)
    command_type, arguments = create(lane)
    failed = enqueue(system, lane, command_type, b'{"x": 1}')
    wait_dead(run, lane, 1)
    assert run("dead", "replay", failed, expect=1).err.count("not_replayable") == 1
    [replayed] = run("dead", "replay", failed, "--args", arguments, "--as-sender", "--json").json
    assert replayed["replayed_as"] != failed
    assert (replayed["lane"], replayed["letter"], replayed["status"]) == (lane, 1, "applied")
    wait_until(lambda: run("status", lane, "--json", "--sample-s", 0).json[0]["outbox"] == [], "it is sent")
    run("drain", lane)
    entry = run("command", replayed["replayed_as"], "--json").json
    assert (entry["status"], entry["result"]["id"]) == ("applied", 1)
    assert "no dead letter of command" in run("dead", "replay", failed, "--args", arguments, expect=2).err
    assert letters_of(run, lane) == []


def test_an_operator_that_is_killed_may_ask_again(
    system: System, run: Run, query: Callable[[str], list[tuple[Any, ...]]]
) -> None:
    """The order is confirmed and not carried out yet: nobody knows. It is carried out once, whoever asks again."""
    system.prepare("users")
    coordinator = system.start_coordinator("users")
    run("send", *create("users"), "--wait", 20)
    failed = enqueue(system, "users", "users.credit", b'{"id": 1}')
    wait_dead(run, "users", 1)
    coordinator.stop(signal.SIGTERM, 20)
    arguments = ("dead", "replay", failed, "--as-sender", "--args", '{"id": 1, "amount": 5}')
    operator = subprocess.Popen([sys.executable, "-m", "coordinator", *arguments], env=system.environment)
    try:
        wait_until(lambda: depth(system, queue_name("users")) == 1, "the order is in the queue")
    finally:
        operator.kill()
        operator.wait()
    assert run(*arguments, "--wait", 0, "--json", expect=3).json[0]["status"] == "pending"
    system.start_coordinator("users")
    run("drain", "users")
    wait_until(lambda: query("SELECT count(*) FROM outbox") == [(0,)], "the command is sent")
    run("drain", "users")
    assert query("SELECT credit FROM users") == [(5,)]
    assert letters_of(run, "users") == []


def bury(system: System, key: str, command_type: str, body: bytes, **properties: Any) -> None:
    """A dead letter as releases before published it."""
    headers = {"reason": "handler_error", "error": "a defect", "lane": key} | properties.pop("headers", {})
    with system.broker() as channel:
        channel.confirm_delivery()
        fields = {"type": command_type, "headers": headers, **properties}
        channel.basic_publish("writes.dead", key, body, pika.BasicProperties(**fields), mandatory=True)


def test_letters_that_nothing_bears_out_are_taken_in_once_and_replayed_by_their_number(
    system: System, run: Run, query: Callable[[str], list[tuple[Any, ...]]]
) -> None:
    """Anybody may have written them: their id is not believed, and no command of that id is touched."""
    system.prepare("users")
    system.start_coordinator("users")
    run("send", *create("users"), "--wait", 20)
    never_logged = str(uuid4())
    for _ in range(2):  # that release left one twice
        bury(
            system,
            "users",
            "users.credit",
            b'{"id": 1, "amount": 5}',
            message_id=never_logged,
            headers={"publisher": "p", "publisher-seq": 9},
        )
    wait_dead(run, "users", 1)
    wait_until(lambda: depth(system, dead_queue_name("users")) == 0, "both are taken in")
    [letter] = letters_of(run, "users")
    wait_until(lambda: letters_of(run, "users")[0]["copies"] == 2, "it is counted twice")
    assert letter["command_id"] is None
    [replayed] = run("dead", "replay", "--letter", letter["letter"], "--lane", "users", "--as-system", "--json").json
    assert replayed["replayed_as"] not in (None, never_logged)
    wait_until(lambda: query("SELECT credit FROM users") == [(5,)], "it is applied")
    run("drain", "users")
    assert (query("SELECT credit FROM users"), letters_of(run, "users")) == ([(5,)], [])


def test_dead_effects_are_listed_and_replayed_under_their_own_id(system: System, run: Run) -> None:
    """Their id is their idempotency key at the provider: another one would call twice."""
    system.prepare(*LANES)
    system.start_coordinator("payments")
    run("send", *create("payments"), "--wait", 20)
    key = "effects.payments"
    capture, odd = str(uuid4()), str(uuid4())
    for command_id in (capture, odd):
        bury(system, key, "payments.effects.capture", b'{"payment_id": 1}', message_id=command_id)
    wait_dead(run, key, 2)
    assert [letter["target"] for letter in letters_of(run)] == [key, key]
    assert len(letters_of(run, "payments")) == 2
    assert run("dead", "show", capture, "--lane", key, "--json").json[0]["arguments"] == {"payment_id": 1}
    assert "forbidden_command_type" in run("dead", "replay", capture, expect=1).err
    [replayed] = run("dead", "replay", capture, "--as-system", "--json").json
    assert (replayed["target"], replayed["command_id"], replayed["replayed_as"]) == (key, capture, capture)
    run("dead", "discard", odd)
    wait_until(lambda: depth(system, queue_name(key)) == 1, "it is sent again")
    assert letters_of(run) == []
    with system.broker() as channel:
        _, properties, body = channel.basic_get(queue_name(key), auto_ack=True)
    assert (properties.message_id, properties.type, body) == (capture, "payments.effects.capture", b'{"payment_id": 1}')


@pytest.mark.parametrize("lane", ONE_OF_SQL_ONE_OF_MONGODB)
def test_what_is_emitted_to_nobody_is_shown_and_discarded(system: System, run: Run, lane: str) -> None:
    system.prepare(lane)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    entries = [
        OutboxEntry(
            id=number,
            lane="nobody",
            command_id=str(uuid4()),
            type="nobody.note",
            arguments=b"{}",
            created_at=at,
            continuation="users.continue_purchase" if number == 1 else None,
        )
        for number in range(1, 1203)
    ]
    store = open_store(system.database(lane).database_url, registry().service(lane))
    lease = store.take_over("test", at)
    store.begin().commit(lease, 0, Changes([], [], [entries]))
    store.close()
    system.start_coordinator(lane)
    run("send", *create(lane), "--wait", 20)
    [status] = run("status", lane, "--json", "--sample-s", 0).json
    assert [(each["target"], each["entries"]) for each in status["outbox"]] == [("nobody", 1202)]
    assert "1202 for nobody, the oldest for" in run("status", lane, "--sample-s", 0).out
    listed = run("outbox", "list", lane, "--limit", 2, "--json").json
    assert listed["targets"] == [
        {"lane": lane, "target": "nobody", "entries": 1202, "oldest_at": "2026-01-01T00:00:00.000000Z"}
    ]
    assert [(each["entry"], each["continuation"]) for each in listed["entries"]] == [
        (1, "users.continue_purchase"),
        (2, None),
    ]
    assert "1 of 1 are withdrawn" in run("outbox", "discard", lane, "--entry", 7).out
    gone = run("outbox", "discard", lane, "--target", "nobody", "--all", "--json").json
    assert (len(gone), {each["withdrawn"] for each in gone}) == (1201, {True})
    assert run("outbox", "list", lane, "--json").json == {"targets": [], "entries": []}
    assert run("drain", lane, "--json").json["sequence"] > 0


@pytest.mark.parametrize("lane", ONE_OF_SQL_ONE_OF_MONGODB)
def test_commands_that_wait_for_a_key_go_on_when_the_failed_one_is_discarded(
    system: System, run: Run, lane: str
) -> None:
    system.prepare(*LANES)
    failed, waits = str(uuid4()), str(uuid4())
    command_type, arguments = CREATE[lane]
    store = open_store(system.database(lane).database_url, registry().service(lane))
    park(store, lane, failed, waits, command_type, json.dumps(arguments))
    store.close()
    system.start_coordinator(lane)
    bury(system, lane, command_type, json.dumps(arguments).encode(), message_id=failed)
    wait_dead(run, lane, 1)
    assert [(key["ordering_key"], key["failed_id"], key["waiting"]) for key in run("parked", lane, "--json").json] == [
        ("rows.id=1", failed, [waits])
    ]
    assert f"behind command {failed}" in run("command", waits, expect=1).err
    run("dead", "discard", failed)
    run("drain", lane)
    assert run("command", waits, "--json").json["status"] == "applied"
    assert run("parked", lane, "--json").json == []
    assert letters_of(run, lane) == []


def park(store: Store, lane: str, failed: str, waits: str, command_type: str, arguments: str) -> None:
    """As the lane does when a command with the policy park-key fails, and another one with its key comes."""
    content = CommandMessage(command_id=failed, type=command_type, arguments=arguments.encode())
    common: dict[str, Any] = {
        "ordering_key": "rows.id=1",
        "fingerprint": UNKEYED.of(content),
        "reply_to": None,
        "correlation_id": None,
    }
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        ParkedCommand(
            command_id=command_id,
            position=position,
            message=encode_pack([msgspec.structs.replace(content, command_id=command_id)]),
            error_code=code,
            error_message=code,
            parked_at=at,
            **common,
        )
        for position, (command_id, code) in enumerate(((failed, "handler_error"), (waits, None)), 1)
    ]
    lease = store.take_over("test", at)
    store.begin().commit(lease, 0, Changes([], [], [rows]))


@pytest.mark.parametrize("lane", ONE_OF_SQL_ONE_OF_MONGODB)
def test_pruning_keeps_the_young_the_last_and_what_has_a_letter(system: System, run: Run, lane: str) -> None:
    system.prepare(lane)
    system.start_coordinator(lane)
    failed = [str(uuid4()) for _ in range(3)]
    for command_id in failed:
        enqueue(system, lane, f"{lane}.unknown", b"{}", message_id=command_id)
    sent = [run("send", *create(lane)).out.strip() for _ in range(5)]
    for publisher in "abc":
        mark(system, lane, publisher, 1)
    run("drain", lane)
    assert "--force" in run("log", "prune", lane, "--older-than", "1m", expect=2).err
    kept = run("log", "prune", lane, "--older-than", "7d", "--json").json
    assert (kept["deleted"], kept["publishers"]) == (0, 0)
    dry = run("log", "prune", lane, "--older-than", "0s", "--force", "--dry-run", "--json").json
    # Three in a row have letters: two of them are a whole batch of what stays.
    assert (dry["found"], dry["deleted"], dry["publishers"]) == (8, 0, 3)
    late_id = str(uuid4())
    run("cancel", late_id, "--lane", lane)
    pruned = run("log", "prune", lane, "--older-than", "0s", "--force", "--batch-rows", 2, "--json").json
    assert (pruned["deleted"], pruned["publishers"]) == (8, 3)
    run("command", sent[-1], expect=1)
    [status] = run("status", lane, "--json", "--sample-s", 0).json
    assert status["sequence"] == 12
    # However late the command comes, it was said that it will not be applied.
    assert "cancelled" in run("send", *create(lane), "--id", late_id, "--wait", 20, expect=1).out
    # The lane remembered where that publisher was.
    mark(system, lane, "b", 2)
    assert run("drain", lane, "--json").json["sequence"] == 15
    # So none fails for a second time whose letter is still there.
    enqueue(system, lane, f"{lane}.unknown", b'{"other": 1}', message_id=failed[0])
    run("drain", lane)
    assert sorted(letter["command_id"] for letter in letters_of(run, lane)) == sorted(failed)
    again = run("log", "prune", lane, "--older-than", "0s", "--force", "--dry-run", "--json").json
    assert again["publishers"] == 1
    # As long as there is a replay of one, too: the next one would have the same id.
    with system.broker() as channel:
        replay = pika.BasicProperties(message_id=replay_command_id(failed[1]), type="lane.marker")
        channel.basic_publish("writes.system", lane, b"{}", replay, mandatory=True)
    run("drain", lane)
    run("dead", "discard", failed[1])
    for left in (failed, [failed[0], failed[2]]):
        run("log", "prune", lane, "--older-than", "0s", "--force", "--batch-rows", 2)
        for command_id in failed:
            run("command", command_id, expect=0 if command_id in left else 1)


def _says(url: str, what: str) -> bool:
    """Whether /readyz is 503, with this in its body."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return False
    except urllib.error.HTTPError as answer:
        with answer:
            return what in answer.read().decode()
    except OSError:
        return False
