"""An upgrade as OPERATING.md describes it, and one without draining: what the previous release left behind goes on."""

import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pika
import pytest
from click.testing import CliRunner
from pika.exceptions import UnroutableError
from sqlalchemy import text

from coordinator.cli import cli
from coordinator.migrations.migrate import migrate
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.service.ids import continuation_command_id
from coordinator.transports.rabbitmq.topology import dead_queue_name, queue_name
from tests.support import previous_release as previous
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

pytestmark = pytest.mark.upgrades

LETTERS = 300
QUICK = {"LANE_OUTBOX_WATCH_S": "0.3"}
SQL = ("users", "payments")
"""PostgreSQL, and MariaDB or MySQL."""

Fetch = Callable[[str, str], list[tuple[Any, ...]]]


@pytest.fixture
def fetch(system: System) -> Iterator[Fetch]:
    engines = {lane: sql_engine(system.owner(lane)) for lane in SQL}

    def fetch_one(lane: str, statement: str) -> list[tuple[Any, ...]]:
        with engines[lane].connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement)).all()]

    yield fetch_one
    for engine in engines.values():
        engine.dispose()


def operate(system: System, *arguments: object) -> Any:
    ran = CliRunner().invoke(cli, [*map(str, arguments), "--json"], env=system.environment)
    assert ran.exit_code == 0, (arguments, ran.stdout, ran.stderr, ran.exception)
    return json.loads(ran.stdout)


def waiting(system: System, queue: str) -> int:
    with system.broker() as channel:
        return int(channel.queue_declare(queue, passive=True).method.message_count)


@pytest.mark.parametrize("lane", SQL)
def test_old_letters_become_rows_once_though_the_coordinator_is_killed(system: System, fetch: Fetch, lane: str) -> None:
    system.prepare()
    url = system.owner(lane)
    previous.make_tables(registry().service(lane), url, LETTERS)
    failed, never_logged = [str(uuid4()) for _ in range(LETTERS)], str(uuid4())
    command_type = {"users": "users.credit", "payments": "payments.open"}[lane]
    entries = (
        previous.logged(number, command_id, command_type, "handler_error", b'{"n": %d}' % (number - 1))
        for number, command_id in enumerate(failed, 1)
    )
    previous.insert(url, "command_log", *entries)
    with system.broker() as channel:
        previous.declare(channel, (lane,), SQL[1:] if lane == "payments" else ())
        channel.confirm_delivery()
        for number, command_id in enumerate(failed):
            previous.bury(channel, lane, command_id, command_type, b'{"n": %d}' % number, sequence=number + 1)
        for _ in range(2):  # what the log does not bear out is kept as it came, and is nobody's
            previous.bury(channel, lane, never_logged, command_type, b"{}", traceback="Traceback …")
        previous.bury(channel, lane, failed[0], command_type, b'{"n": 0}', sequence=1)  # a crash of it left one twice
        previous.bury(channel, lane, None, None, b"\xff", reason="missing_command_id")
        if lane == "payments":
            previous.bury(channel, "effects.payments", failed[0], "payments.effects.void", b'{"id": 1}')
    migrate(registry().service(lane), system.database(lane))
    coordinator = system.start_coordinator(lane, **QUICK)
    wait_until(lambda: fetch(lane, "SELECT count(*) FROM dead_letters") > [(0,)], "some are taken in")
    coordinator.kill()
    system.start_coordinator(lane, **QUICK)
    system.start_coordinator(lane, **QUICK)
    dead_queues = [dead_queue_name(lane)] + ([dead_queue_name("effects.payments")] if lane == "payments" else [])
    expected = LETTERS + 2 + (lane == "payments")
    wait_until(lambda: fetch(lane, "SELECT count(*) FROM dead_letters") == [(expected,)], "all are taken in")
    wait_until(
        lambda: [waiting(system, queue) for queue in dead_queues] == [0] * len(dead_queues), "the queues are empty"
    )
    assert fetch(lane, "SELECT count(*) FROM dead_letters") == [(expected,)]
    shown = operate(system, "dead", "show", "--all", "--lane", lane)
    letters = [each for each in shown if each["target"] == lane]
    assert [each["command_id"] for each in letters] == [*failed, None, None]
    assert (letters[0]["sequence"], letters[0]["code"], letters[0]["reason"], letters[0]["arguments"]) == (
        1,
        "handler_error",
        "KeyError: 'x'",
        {"n": 0},
    )
    assert [(each["copies"], each["sequence"]) for each in letters[LETTERS:]] == [(2, None), (1, None)]
    if lane == "payments":
        [effect] = operate(system, "dead", "list", "effects.payments")
        assert (effect["command_id"], effect["type"]) == (failed[0], "payments.effects.void")


def test_a_purchase_that_was_under_way_ends_in_the_new_release(system: System, fetch: Fetch) -> None:
    """Its payment waits for an effect that is still in an outbox, with ids and a waiter as that release wrote them."""
    system.prepare("items")
    system.start_sandbox()
    for lane in SQL:
        previous.make_tables(registry().service(lane), system.owner(lane))
    opened = str(uuid4())
    quote = previous.derived_id(opened, "0")
    authorize = previous.derived_id(previous.derived_id(quote, "continuation"), "0")
    effect = previous.derived_id(authorize, "0")
    users, payments = (system.owner(lane) for lane in SQL)
    at = previous.AT
    user = {"id": 1, "name": "Ada", "email": "ada@example.org", "credit": 0, "version": 1, "created_at": at}
    previous.insert(users, "users", user)
    purchase = {"id": 1, "user_id": 1, "item_id": 1, "quantity": 2, "payment_method": "pm_card_visa", "version": 2}
    priced = {"price": 100, "amount": 200, "currency": "EUR", "status": "running", "position": 1, "emitted": 2}
    previous.insert(users, "purchases", {**purchase, **priced, "created_at": at})
    step = {"saga": "purchase", "saga_id": 1, "direction": "do", "began_at": at}
    previous.insert(
        users,
        "saga_steps",
        {**step, "command_id": quote, "number": 1, "name": "quote", "command_type": "items.quote", "status": "applied"},
        {
            **step,
            "command_id": authorize,
            "number": 2,
            "name": "authorize",
            "command_type": "payments.open",
            "status": "waiting",
        },
    )
    previous.insert(users, "counters", {"name": "users", "value": 1}, {"name": "purchases", "value": 1})
    payment = {"id": 1, "user_id": 1, "amount": 200, "currency": "EUR", "status": "pending", "version": 1}
    previous.insert(
        payments,
        "payments",
        {
            **payment,
            "payment_method": "pm_card_visa",
            "pending_action": "authorize",
            "created_at": at,
            "updated_at": at,
        },
    )
    waiter = f"{authorize} payments.open users.continue_purchase"
    previous.insert(payments, "payment_waiters", {"payment_id": 1, "action": waiter})
    previous.insert(payments, "counters", {"name": "payments", "value": 1}, {"name": "outbox", "value": 7})
    asked = {"id": 1, "amount": 200, "currency": "EUR", "payment_method": "pm_card_visa"}
    previous.insert(
        payments,
        "outbox",
        previous.emitted(6, "users", str(uuid4()), "users.credit", {"id": 1, "amount": 5}),
        previous.emitted(7, "effects.payments", effect, "payments.effects.authorize", asked),
    )
    with system.broker() as channel:
        previous.declare(channel, (*SQL, "items"), ("payments",))
    for lane in SQL:
        migrate(registry().service(lane), system.database(lane))
    for lane in ("items", *SQL):
        system.start_coordinator(lane, **QUICK)
    item = '{"name": "Pen", "price": 100, "currency": "EUR", "stock": 5}'
    assert operate(system, "send", "items.create", item, "--wait", 20)["status"] == "applied"
    system.start_effects("payments")
    wait_until(lambda: fetch("users", "SELECT status FROM purchases") == [("completed",)], "the purchase ends")
    assert fetch("payments", "SELECT status FROM payments") == [("captured",)]
    assert fetch("users", "SELECT credit FROM users") == [(5,)]
    [(resumed,)] = fetch(
        "users",
        "SELECT min(command_id) FROM command_log WHERE sequence = (SELECT min(sequence) FROM command_log "
        "WHERE type = 'users.continue_purchase')",
    )
    assert resumed == continuation_command_id(f"payments.open {authorize}")

    def has_empty_outbox(lane: str) -> bool:
        return fetch(lane, "SELECT count(*) FROM outbox") == [(0,)]

    for lane in SQL:
        wait_until(partial(has_empty_outbox, lane), "the outbox is empty")
        assert operate(system, "dead", "list", lane) == []
    # RabbitMQ keeps a binding until somebody removes it.
    with system.broker() as channel:
        channel.confirm_delivery()
        properties = pika.BasicProperties(message_id=str(uuid4()), type="payments.effects.void")
        with pytest.raises(UnroutableError):
            channel.basic_publish("writes", "effects.payments", b"{}", properties, mandatory=True)


def test_what_waits_for_a_key_goes_on_behind_a_letter_of_the_previous_release(system: System, fetch: Fetch) -> None:
    system.prepare()
    url = system.owner("users")
    previous.make_tables(registry().service("users"), url)
    failed, waits = str(uuid4()), str(uuid4())
    created = {"name": "Ada", "email": "ada@example.org"}
    message = json.dumps([{"id": waits, "type": "users.create", "args": created}]).encode()
    buried = CommandMessage(command_id=failed, type="users.create", arguments=b"{}")
    common = {"ordering_key": "rows.id=1", "fingerprint": UNKEYED.of(buried), "parked_at": previous.AT}
    previous.insert(
        url,
        "parked",
        {**common, "command_id": failed, "position": 1, "message": message, "error_code": "handler_error"},
        {**common, "command_id": waits, "position": 2, "message": message},
    )
    with system.broker() as channel:
        previous.declare(channel, ("users",), ())
        channel.confirm_delivery()
        previous.bury(channel, "users", failed, "users.create", b"{}", sequence=9)
    migrate(registry().service("users"), system.database("users"))
    system.start_coordinator("users", **QUICK)
    wait_until(lambda: len(operate(system, "dead", "list", "users")) == 1, "it is taken in")
    operate(system, "dead", "discard", failed)
    assert operate(system, "command", waits)["status"] == "applied"
    assert fetch("users", "SELECT name FROM users") == [("Ada",)]


def test_without_draining_internal_commands_are_refused_visibly_and_lifted_by_an_operator(
    system: System, fetch: Fetch
) -> None:
    system.prepare()
    url = system.owner("payments")
    previous.make_tables(registry().service("payments"), url)
    payment = {"id": 1, "user_id": 1, "amount": 200, "currency": "EUR", "status": "authorized", "version": 1}
    held = {"payment_method": "pm_card_visa", "provider_id": "pi_1", "pending_action": "capture"}
    previous.insert(url, "payments", {**payment, **held, "created_at": previous.AT, "updated_at": previous.AT})
    previous.insert(url, "counters", {"name": "payments", "value": 1})
    result, public = str(uuid4()), str(uuid4())
    with system.broker() as channel:
        previous.declare(channel, ("payments",), ("payments",))
        channel.confirm_delivery()
        for command_id, command_type, body in (
            (result, "payments.capture_result", b'{"id": 1, "verdict": "captured", "amount": 200}'),
            (public, "payments.open", b'{"user_id": 1, "amount": 5, "currency": "EUR"}'),
        ):
            properties = pika.BasicProperties(message_id=command_id, type=command_type, delivery_mode=2)
            channel.basic_publish("writes", "payments", body, properties, mandatory=True)
    migrate(registry().service("payments"), system.database("payments"))
    coordinator = system.start_coordinator("payments", **QUICK)
    operate(system, "drain", "payments")
    # That release knew no rules, and nobody vouches for who asked.
    assert operate(system, "command", public)["status"] == "rejected"
    [letter] = operate(system, "dead", "list", "payments")
    assert (letter["command_id"], letter["code"]) == (result, "forbidden_command_type")
    ran = CliRunner().invoke(cli, ["dead", "replay", result], env=system.environment)
    assert (ran.exit_code, "forbidden_command_type" in ran.stderr) == (1, True)
    assert fetch("payments", "SELECT status FROM payments WHERE id = 1") == [("authorized",)]
    operate(system, "dead", "replay", "--all", "--lane", "payments", "--code", "forbidden_command_type", "--as-system")
    wait_until(
        lambda: fetch("payments", "SELECT status FROM payments WHERE id = 1") == [("captured",)], "it is applied"
    )
    assert operate(system, "dead", "list", "payments") == []
    coordinator.stop(signal.SIGTERM, 20)
    assert waiting(system, queue_name("payments")) == 0


def test_an_effect_left_in_its_queue_is_refused_visibly_and_sent_again_under_its_id(
    system: System, fetch: Fetch
) -> None:
    system.prepare()
    system.start_sandbox()
    url = system.owner("payments")
    previous.make_tables(registry().service("payments"), url)
    at = {"created_at": previous.AT, "updated_at": previous.AT}
    payment = {"id": 1, "user_id": 1, "amount": 200, "currency": "EUR", "status": "pending", "version": 1}
    asked = {"payment_method": "pm_card_visa", "pending_action": "authorize"}
    previous.insert(url, "payments", {**payment, **asked, **at})
    previous.insert(url, "counters", {"name": "payments", "value": 1})
    effect = str(uuid4())
    body = b'{"id": 1, "amount": 200, "currency": "EUR", "payment_method": "pm_card_visa"}'
    with system.broker() as channel:
        previous.declare(channel, ("payments",), ("payments",))
        channel.confirm_delivery()
        properties = pika.BasicProperties(message_id=effect, type="payments.effects.authorize", delivery_mode=2)
        channel.basic_publish("writes", "effects.payments", body, properties, mandatory=True)
    migrate(registry().service("payments"), system.database("payments"))
    system.start_coordinator("payments", **QUICK)
    system.start_effects("payments")
    wait_until(lambda: len(operate(system, "dead", "list", "payments")) == 1, "it is refused")
    [letter] = operate(system, "dead", "list", "effects.payments")
    assert (letter["command_id"], letter["code"]) == (effect, "not_from_system")
    ran = CliRunner().invoke(cli, ["dead", "replay", effect], env=system.environment)
    assert (ran.exit_code, "forbidden_command_type" in ran.stderr) == (1, True)
    [replayed] = operate(system, "dead", "replay", effect, "--as-system")
    assert replayed["replayed_as"] == effect
    wait_until(lambda: fetch("payments", "SELECT status FROM payments") == [("authorized",)], "it is carried out")
    assert operate(system, "dead", "list", "payments") == []
