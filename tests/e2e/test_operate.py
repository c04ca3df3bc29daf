"""The operator's commands, as an operator runs them, on the real system."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pika
import pytest
import structlog
from click.testing import CliRunner
from msgspec import Struct
from sqlalchemy import text

from coordinator.cli import EXIT_CONFIGURATION, cli
from coordinator.stores.open import open_store
from coordinator.stores.port import Changes, Store
from shared.errors import ConfigurationError
from shared.lane_tables import ParkedCommand
from shared.messaging.topology import dead_queue_name, queue_name
from shared.messaging.wire import CommandMessage, encode_pack
from shared.services import service_named
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

LANES = ("users", "items", "payments")
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
def run(system: System) -> Iterator[Run]:
    """Run a command of the CLI in the system's environment; in this process, since one of its own takes a second."""
    logging = structlog.get_config()

    def run_one(*arguments: object, expect: int = 0, **settings: str) -> Ran:
        ran = CliRunner().invoke(cli, list(map(str, arguments)), env=system.environment | settings)
        status, error = ran.exit_code, ran.stderr
        if isinstance(ran.exception, ConfigurationError):
            status, error = EXIT_CONFIGURATION, str(ran.exception)
        elif ran.exception is not None and not isinstance(ran.exception, SystemExit):
            raise ran.exception
        assert status == expect, f"{arguments}: {status}\n{ran.stdout}\n{error}"
        return Ran(status, ran.stdout, error)

    yield run_one
    structlog.configure(**logging)


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
    """Publish past the CLI, which would refuse it."""
    command_id = str(uuid4())
    with system.broker() as channel:
        channel.confirm_delivery()
        fields = {"message_id": command_id, "type": command_type, **properties}
        channel.basic_publish("writes", lane, body, pika.BasicProperties(**fields), mandatory=True)
    return command_id


def depth(system: System, queue: str) -> int:
    with system.broker() as channel:
        return int(channel.queue_declare(queue, passive=True).method.message_count)


def wait_dead(system: System, lane: str, count: int) -> None:
    wait_until(lambda: depth(system, dead_queue_name(lane)) == count, f"{count} dead letters")


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
    wait_dead(system, "users", 1)
    found = {lane["lane"]: lane for lane in run("status", "--json", "--sample-s", "0.2").json}
    assert list(found) == list(LANES)
    users = found["users"]
    assert (users["epoch"], users["sequence"], users["is_paused"], users["ready"]) == (1, 3, False, 0)
    assert (users["consumers"], users["dead_letters"], users["errors"]) == (1, 1, [])
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
        AMQP_URL=f"amqp://guest:guest@{dead_end}/%2F",
        ITEMS_DATABASE_URL=f"mongodb://{dead_end}/items",
        PAYMENTS_DATABASE_URL=f"mysql://root@{dead_end}/payments",
    )
    users, items, payments = away.json
    assert [len(lane["errors"]) for lane in (users, items, payments)] == [1, 2, 2]
    assert "RabbitMQ cannot be reached" in users["errors"][0]
    assert "database of lane items" in items["errors"][0]
    assert users["sequence"] == 0
    assert "not migrated" in run("status", "payments", "--json", expect=1).json[0]["errors"][0]
    assert "RabbitMQ cannot be reached" in run("dead", "list", expect=1, AMQP_URL=f"amqp://{dead_end}/%2F").err
    assert "RabbitMQ cannot be reached" in run("send", *create("users"), expect=1, AMQP_URL=f"amqp://{dead_end}").err
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
        outcome = run("send", *create(lane), "--wait", 20, "--json").json
        assert (outcome["lane"], outcome["status"], outcome["sequence"]) == (lane, "applied", 1)
        entry = run("command", outcome["command_id"], "--json").json
        assert (entry["lane"], entry["status"], entry["result"]) == (lane, "applied", outcome["result"])
        again = run("send", *create(lane), "--id", outcome["command_id"], "--wait", 20, "--json").json
        assert (again["replayed"], again["sequence"]) == (True, 1)
    stale = run("send", "users.update", '{"id": 1}', "--expected-version", 7, "--wait", 20, "--json", expect=1).json
    assert stale["error"]["code"] == "version_conflict"
    late = run("send", *create("users"), "--deadline", "2020-01-01T00:00:00Z", "--wait", 20, "--json", expect=1).json
    assert late["status"] == "expired"
    assert "not settled" in run("command", uuid4(), expect=1).err
    assert "not settled in items" in run("command", stale["command_id"], "--lane", "items", expect=1).err


def test_send_without_a_lane_waits_in_the_queue_or_is_refused(system: System, run: Run) -> None:
    system.prepare("users")
    assert "no queue of lane users" in run("send", *create("users"), expect=1).err
    system.start_coordinator("users").stop(15, 20)
    pending = run("send", *create("users"), "--wait", "0.5", "--json", expect=3)
    assert pending.json["status"] == "pending"
    assert pending.json["command_id"] in pending.err
    command_id = run("send", "users.create", user(1)).out.strip()
    system.start_coordinator("users")
    run("drain", "users")
    assert run("command", command_id, "--json").json["sequence"] == 2


@pytest.mark.parametrize("lane", LANES)
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
    assert "maintenance of the disk" in run("drain", lane, expect=1).err
    assert "goes on" in run("resume", lane).out
    assert run("drain", lane, "--json").json["sequence"] == 3
    assert run("command", waiting, "--json").json["status"] == "applied"
    assert run("resume", lane, "--json").json == {"lane": lane, "was_paused": False, "reason": None}


@pytest.mark.parametrize("lane", LANES)
def test_a_lane_that_never_ran_can_be_paused_and_starts_paused(system: System, run: Run, lane: str) -> None:
    system.prepare(lane)
    run("pause", lane, "--reason", "not yet")
    run("pause", lane, "--reason", "still not")
    system.start_coordinator(lane)
    assert run("send", *create(lane), "--wait", 1, "--json", expect=3).json["status"] == "pending"
    [status] = run("status", lane, "--json").json
    assert (status["paused"], status["sequence"]) == ("still not", 0)
    run("resume", lane)
    run("drain", lane)


@pytest.mark.parametrize("lane", LANES)
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
    system.start_coordinator("users").stop(15, 20)
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


def test_dead_letters_are_listed_and_shown_in_their_order_and_stay(system: System, run: Run) -> None:
    system.prepare("users", "items")
    system.start_coordinators("users", "items")
    assert run("dead", "list", "--json").json == []
    count = 70
    ids = [enqueue(system, "users", "users.nonsense", b'{"n": %d}' % number) for number in range(count)]
    wait_dead(system, "users", count)
    for _ in range(2):
        listed = run("dead", "list", "users", "--json").json
        assert [letter["command_id"] for letter in listed] == ids
        assert [letter["arguments"]["n"] for letter in listed] == list(range(count))
        assert depth(system, dead_queue_name("users")) == count
    shown = run("dead", "show", ids[3], "--json").json
    assert [letter["reason"] for letter in shown] == ["unknown_command_type"]
    assert ids[3] in run("dead", "show", ids[3]).out
    assert "no dead letter" in run("dead", "show", uuid4(), expect=1).err
    run("dead", "discard", ids[40])
    left = [*ids[:40], *ids[41:]]
    assert [letter["command_id"] for letter in run("dead", "list", "--json").json] == left
    assert len(run("dead", "discard", "--all", "--lane", "users", "--json").json) == count - 1
    assert depth(system, dead_queue_name("users")) == 0


def test_a_replay_applies_the_command_once_under_a_derived_id(
    system: System, run: Run, query: Callable[[str], list[tuple[Any, ...]]]
) -> None:
    system.prepare("users")
    system.start_coordinator("users")
    run("send", *create("users"), "--wait", 20)
    failed = enqueue(system, "users", "users.nonsense", b"{}")
    wait_dead(system, "users", 1)
    [replayed] = run("dead", "replay", failed, "--json").json
    assert replayed["replayed_as"] != failed
    run("drain", "users")
    # The cause is not mended: it fails again, with an entry and a dead letter of its own.
    assert run("command", replayed["replayed_as"], "--json").json["status"] == "failed"
    wait_dead(system, "users", 1)
    run("dead", "discard", replayed["replayed_as"])
    # Letters of commands that were never logged, published as if a coordinator had left one twice.
    never_logged = str(uuid4())
    with system.broker() as channel:
        channel.confirm_delivery()
        for _ in range(2):
            properties = pika.BasicProperties(
                message_id=never_logged,
                type="users.credit",
                headers={"reason": "x", "publisher": "p", "publisher-seq": 9},
            )
            channel.basic_publish("writes.dead", "users", b'{"id": 1, "amount": 5}', properties, mandatory=True)
    wait_dead(system, "users", 2)
    assert [each["replayed_as"] for each in run("dead", "replay", never_logged, "--json").json] == [never_logged] * 2
    run("drain", "users")
    assert query("SELECT credit FROM users") == [(5,)]
    wait_dead(system, "users", 0)


def test_dead_effects_are_listed_and_replayed_under_their_own_id(system: System, run: Run) -> None:
    """Their id is their idempotency key at the provider: another one would call twice."""
    system.prepare("payments")
    system.start_coordinator("payments").stop(signal.SIGTERM, 20)  # it has declared the queues of its effects
    key = "effects.payments"
    capture, odd = str(uuid4()), str(uuid4())
    with system.broker() as channel:
        channel.confirm_delivery()
        for command_id in (capture, odd):
            properties = pika.BasicProperties(
                message_id=command_id, type="payments.effects.capture", headers={"reason": "handler_error"}
            )
            channel.basic_publish("writes.dead", key, b'{"payment_id": 1}', properties, mandatory=True)
    assert [letter["lane"] for letter in run("dead", "list", "--json").json] == [key, key]
    assert run("dead", "list", "payments", "--json").json == []
    assert run("dead", "show", capture, "--lane", key, "--json").json[0]["arguments"] == {"payment_id": 1}
    replayed = run("dead", "replay", capture, "--json").json
    assert replayed == [{"lane": key, "command_id": capture, "replayed_as": capture}]
    run("dead", "discard", odd)
    assert (depth(system, dead_queue_name(key)), depth(system, queue_name(key))) == (0, 1)
    with system.broker() as channel:
        _, properties, body = channel.basic_get(queue_name(key), auto_ack=True)
    assert (properties.message_id, properties.type, body) == (capture, "payments.effects.capture", b'{"payment_id": 1}')


def test_what_cannot_be_replayed_stays(system: System, run: Run) -> None:
    system.prepare("users")
    system.start_coordinator("users")
    with system.broker() as channel:
        channel.confirm_delivery()
        channel.basic_publish("writes", "users", b"{}", pika.BasicProperties(type="users.create"), mandatory=True)
    wait_dead(system, "users", 1)
    refused = run("dead", "replay", "--all", "--lane", "users", expect=1)
    assert "without an id" in refused.err
    assert depth(system, dead_queue_name("users")) == 1


@pytest.mark.parametrize("lane", LANES)
def test_commands_that_wait_for_a_key_go_on_when_the_failed_one_is_discarded(
    system: System, run: Run, lane: str
) -> None:
    system.prepare(*LANES)
    failed, waits = str(uuid4()), str(uuid4())
    command_type, arguments = CREATE[lane]
    store = open_store(system.database(lane).database_url, service_named(lane))
    park(store, lane, failed, waits, command_type, json.dumps(arguments))
    store.close()
    system.start_coordinator(lane)
    with system.broker() as channel:
        channel.basic_publish("writes.dead", lane, b"{}", pika.BasicProperties(message_id=failed, type=command_type))
    wait_dead(system, lane, 1)
    assert [(key["ordering_key"], key["failed_id"], key["waiting"]) for key in run("parked", lane, "--json").json] == [
        ("rows.id=1", failed, [waits])
    ]
    assert f"behind command {failed}" in run("command", waits, expect=1).err
    run("dead", "discard", failed)
    run("drain", lane)
    assert run("command", waits, "--json").json["status"] == "applied"
    assert run("parked", lane, "--json").json == []
    assert depth(system, dead_queue_name(lane)) == 0


def park(store: Store, lane: str, failed: str, waits: str, command_type: str, arguments: str) -> None:
    """As the lane does when a command with the policy park-key fails, and another one with its key comes."""
    common = {"ordering_key": "rows.id=1", "fingerprint": "f", "reply_to": None, "correlation_id": None}
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        ParkedCommand(
            command_id=command_id,
            position=position,
            message=encode_pack(
                [CommandMessage(command_id=command_id, type=command_type, arguments=arguments.encode())]
            ),
            error_code=code,
            error_message=code,
            parked_at=at,
            **common,
        )
        for position, (command_id, code) in enumerate(((failed, "handler_error"), (waits, None)), 1)
    ]
    lease = store.take_over("test", at)
    store.begin().commit(lease, 0, Changes([], [], [rows]))


def test_one_operator_at_a_time_is_at_the_dead_letters(system: System, run: Run) -> None:
    system.prepare("users")
    system.start_coordinator("users")
    enqueue(system, "users", "users.nonsense", b"{}")
    wait_dead(system, "users", 1)
    with system.broker() as channel:
        channel.queue_declare(f"{dead_queue_name('users')}.operator", exclusive=True)
        assert "another operator" in run("dead", "list", expect=1).err
    assert len(run("dead", "list", "--json").json) == 1


@pytest.mark.parametrize("lane", LANES)
def test_pruning_keeps_the_young_and_the_last(system: System, run: Run, lane: str) -> None:
    system.prepare(lane)
    system.start_coordinator(lane)
    sent = [run("send", *create(lane)).out.strip() for _ in range(5)]
    run("drain", lane)
    assert "--force" in run("log", "prune", lane, "--older-than", "1m", expect=1).err
    assert run("log", "prune", lane, "--older-than", "7d", "--json").json["deleted"] == 0
    dry = run("log", "prune", lane, "--older-than", "0s", "--force", "--dry-run", "--json").json
    assert (dry["found"], dry["deleted"]) == (5, 0)
    pruned = run("log", "prune", lane, "--older-than", "0s", "--force", "--batch-rows", 2, "--json").json
    assert pruned["deleted"] == 5
    run("command", sent[-1], expect=1)
    [status] = run("status", lane, "--json", "--sample-s", 0).json
    assert status["sequence"] == 6
    assert run("drain", lane, "--json").json["sequence"] == 7
