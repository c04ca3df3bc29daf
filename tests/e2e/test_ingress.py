"""`coordinator ingress`: outside accounts publish within their limits, and their commands go on in order, once."""

import json
import signal
import threading
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.direct_reply import DIRECT_REPLY
from coordinator.transports.rabbitmq.ingress.topology import INGRESS_PREFIX, ingress_name
from coordinator.transports.rabbitmq.rights import INGRESS
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, WRITES_EXCHANGE, mark_queue_name, queue_name
from tests.e2e.test_hostile_messages import GOOD, HOSTILE, named
from tests.support.letters import dead_letters
from tests.support.outside import (
    all_are_applied,
    are_settled,
    publish,
    publishing,
    rows,
    settled,
    users_of_partner,
)
from tests.support.system import System, wait_until

ACCESS_REFUSED = 403
SLOW = {"INGRESS_ACCOUNT_RATE_MAX": "200", "INGRESS_ACCOUNT_BURST_MAX": "1"}
"""So that a crash comes before all is settled."""
BOB = b'{"name": "Bob", "email": "bob@example.org"}'


def ask(system: System, account: str, properties: pika.BasicProperties, body: bytes) -> Any:
    """Publish, and return the outcome, which comes by direct reply-to."""
    with publishing(system, account) as channel:
        outcomes: list[Any] = []
        channel.basic_consume(DIRECT_REPLY, lambda *message: outcomes.append(message[2:]), auto_ack=True)
        properties.reply_to, properties.correlation_id = DIRECT_REPLY, f"of {account}"
        publish(channel, account, properties, body)
        wait_until(lambda: channel.connection.process_data_events(0.05) or bool(outcomes), "the outcome")
        told, outcome = outcomes[0]
        assert told.correlation_id == f"of {account}"
        return json.loads(outcome)


def taken_until_full(system: System, account: str, body: bytes) -> list[str]:
    """Publish until the broker refuses one; the ids of those that it has taken."""
    ids: list[str] = []
    with publishing(system, account) as channel:
        for _ in range(2000):
            properties = named(type="users.none")
            try:
                publish(channel, account, properties, body)
            except NackError:
                return ids
            ids.append(str(properties.message_id))
    raise AssertionError("its queue takes all")


def waiting_users_of_partner(system: System, count: int) -> list[str]:
    """Publish so many commands while no ingress runs; their ids."""
    # It makes the queue.
    ingress = system.start_ingress("partner")
    ingress.stop(signal.SIGTERM, 20.0)
    return users_of_partner(system, count)


def ready(system: System) -> Any:
    with urllib.request.urlopen(f"{system.urls['ingress']}/readyz", timeout=5) as response:
        return json.loads(response.read())


def metric(system: System, line: str) -> bool:
    with urllib.request.urlopen(f"{system.urls['ingress']}/metrics", timeout=5) as response:
        return line in response.read().decode().splitlines()


def test_an_outside_account_is_known_has_its_scopes_and_gets_its_outcomes(system: System) -> None:
    system.prepare("users")
    system.start_coordinator("users", LANE_ACCOUNT_SCOPES="partner=cashier")
    ingress = system.start_ingress()
    assert ask(system, "partner", named(), GOOD)["status"] == "applied"
    credit = b'{"id": 1, "amount": 5}'
    assert ask(system, "partner", named(type="users.credit"), credit)["status"] == "applied"
    assert ask(system, "partner", named(type="users.credit", user_id="partner"), credit)["status"] == "applied"
    # Another account has no scope; and what a message says itself of who asks, or whence it comes, raises nothing.
    claims = {
        "actor": '{"subject": "ada", "scopes": ["cashier"]}',
        "origin": "system",
        "sender": "",
        "result-of": "x y",
    }
    for account, headers in (
        ("billing", {}),
        ("billing", claims),
        ("partner", claims),
        ("partner", {"no-actor": True}),
    ):
        outcome = ask(system, account, named(type="users.credit", headers=headers), credit)
        assert (outcome["status"], outcome["error"]["code"]) == ("rejected", "forbidden"), (account, headers)
    assert ask(system, "partner", named(type="lane.marker"), b"{}")["error"]["code"] == "forbidden_command_type"
    actors = [
        None if actor is None else json.loads(actor) for (actor,) in rows(system, "SELECT actor FROM command_log")
    ]
    partner, billing = {"subject": "amqp:partner"}, {"subject": "amqp:billing"}
    assert actors == [partner, partner, partner, billing, billing, partner, None, partner]
    ingress.stop(signal.SIGTERM, 20.0)
    assert ingress.exit_status == 0
    assert '"stopped"' in ingress.log_tail(1)


@pytest.mark.faults
def test_order_and_once_where_an_ingress_sleeps_and_wakes_up(system: System) -> None:
    """SIGSTOP until the broker gives it up and the other has the queue, then SIGCONT: it still holds messages."""
    system.prepare("users")
    system.start_coordinator("users")
    ids = waiting_users_of_partner(system, 2000)
    running = [system.start_ingress("partner", **SLOW) for _ in range(2)]
    for sleeper, stop_at in zip(running, (100, 900), strict=True):
        wait_until(partial(are_settled, system, stop_at), "so many are settled", timeout_s=60)
        # The first has the queue until then, and the second from then on.
        sleeper.pause()
        at = settled(system)
        assert at + 300 < len(ids), "the stop came too late to prove anything"
        wait_until(partial(are_settled, system, at + 300), "the other goes on", timeout_s=60)
        sleeper.resume()
    all_are_applied(system, ids)
    assert all(each.alive for each in running)


def test_order_and_once_through_crashes_of_the_ingress(system: System) -> None:
    system.prepare("users")
    system.start_coordinator("users")
    ids = waiting_users_of_partner(system, 1000)
    # The second stands by, and has the queue once the first is gone.
    running = [system.start_ingress("partner", **SLOW) for _ in range(2)]
    for kill_at in (50, 300, 600):
        wait_until(partial(are_settled, system, kill_at), "so many are settled", timeout_s=60)
        running.pop(0).kill()
        assert not are_settled(system, len(ids)), "all were settled before this crash"
        running.append(system.start_ingress("partner", **SLOW))
    all_are_applied(system, ids)


def test_an_outside_account_can_write_to_its_own_exchange_and_do_nothing_else(system: System) -> None:
    system.prepare("users", "payments")
    system.start_coordinators("users", "payments")
    system.start_ingress()
    own, other = ingress_name("partner"), ingress_name("billing")
    queues = [own, other, queue_name("users"), mark_queue_name("users"), queue_name(effects_key("payments"))]
    attempts: list[Callable[[Any], object]] = [
        *(
            lambda channel, exchange=exchange, key=key: channel.basic_publish(exchange, key, GOOD, named())
            for exchange, key in (
                (WRITES_EXCHANGE, "users"),
                (SYSTEM_EXCHANGE, "users"),
                (SYSTEM_EXCHANGE, effects_key("payments")),
                (other, "users"),
                ("amq.direct", "users"),
                *(("", queue) for queue in queues),
            )
        ),
        *(
            lambda channel, action=action, queue=queue: getattr(channel, action)(queue)
            for action in ("queue_delete", "queue_purge", "basic_get")
            for queue in queues
        ),
        *(lambda channel, queue=queue: channel.basic_consume(queue, print) for queue in queues),
        *(
            lambda channel, action=action, queue=queue, exchange=exchange: getattr(channel, action)(
                queue, exchange, "x"
            )
            for action in ("queue_bind", "queue_unbind")
            for queue in queues
            for exchange in (own, other, WRITES_EXCHANGE, SYSTEM_EXCHANGE)
        ),
        *(
            lambda channel, to=to, source=source: channel.exchange_bind(to, source, "users")
            for to, source in ((own, WRITES_EXCHANGE), (own, other), (WRITES_EXCHANGE, own), (SYSTEM_EXCHANGE, own))
        ),
        *(lambda channel, name=name: channel.exchange_delete(name) for name in (own, other, WRITES_EXCHANGE)),
        *(lambda channel, name=name: channel.queue_declare(name) for name in ("", "mine", f"{own}.mine")),
        lambda channel: channel.exchange_declare(f"{own}.mine"),
    ]
    with publishing(system, "partner") as channel:
        for number, attempt in enumerate(attempts):
            tried = channel.connection.channel()
            tried.confirm_delivery()
            with pytest.raises(ChannelClosedByBroker) as refused:
                attempt(tried)
            assert refused.value.reply_code == ACCESS_REFUSED, (number, refused.value)
        tried = channel.connection.channel()
        tried.confirm_delivery()
        # The broker takes no other's name.
        with pytest.raises(ChannelClosedByBroker, match="user_id"):
            publish(tried, "partner", named(user_id="billing"), GOOD)
        # What is no lane takes nothing, and its publisher is told.
        for key in ("system", "users.mark", "users.dead", effects_key("payments"), "writes.users", "", "x" * 255):
            with pytest.raises(UnroutableError):
                publish(channel, "partner", named(), GOOD, key)
    assert dead_letters(system, "users") == []


def test_the_ingress_s_own_account_may_no_more_than_it_needs(system: System) -> None:
    system.prepare("users")
    system.start_coordinator("users")
    attempts: list[Callable[[Any], object]] = [
        lambda channel: channel.basic_publish(SYSTEM_EXCHANGE, "users", GOOD, named()),
        lambda channel: channel.basic_publish("", queue_name("users"), GOOD, named()),
        lambda channel: channel.basic_get(queue_name("users")),
        lambda channel: channel.queue_bind(queue_name("users"), WRITES_EXCHANGE, "x"),
        lambda channel: channel.queue_bind(ingress_name("partner"), WRITES_EXCHANGE, "users"),
        lambda channel: channel.queue_declare(f"{INGRESS_PREFIX}another"),
        lambda channel: channel.queue_purge(queue_name("users")),
        lambda channel: channel.exchange_delete(WRITES_EXCHANGE),
    ]
    system.start_ingress()
    with publishing(system, INGRESS) as channel:
        for number, attempt in enumerate(attempts):
            tried = channel.connection.channel()
            tried.confirm_delivery()
            with pytest.raises(ChannelClosedByBroker) as refused:
                attempt(tried)
            assert refused.value.reply_code == ACCESS_REFUSED, (number, refused.value)


def test_hostile_messages_are_settled_by_the_lane_as_if_they_had_come_to_it(system: System) -> None:
    system.prepare("users")
    coordinator = system.start_coordinator("users")
    ingress = system.start_ingress(INGRESS_ACCOUNT_RATE_MAX="0")
    with publishing(system, "partner") as channel:
        frame_max = channel.connection._impl.params.frame_max
        bare = named(headers={"tracestate": ""})
        room = frame_max - len(pika.frame.Header(1, 0, bare).marshal())
        hostile = HOSTILE | {
            "a priority above all": (named(priority=255), GOOD),
            "what the ingress adds has no room": (named(headers={"publisher": "x" * room}), GOOD),
            "an integer that is none here": (named(headers={"deadline": 2**63 - 1}), GOOD),
        }
        for properties, body in hostile.values():
            publish(channel, "partner", properties, body)
        # Large, and of no account: the command is applied.
        publish(channel, "partner", named(headers={"tracestate": "x" * room}), GOOD)
        publish(channel, "partner", named(headers={"x": "y" * room}), BOB)
    assert ask(system, "billing", named(type="users.none"), b"{}")["error"]["code"] == "unknown_command_type"
    wait_until(lambda: rows(system, "SELECT count(*) FROM users")[0][0] == 2, "Ada and Bob", ingress)
    sequences = [each for (each,) in rows(system, "SELECT sequence FROM command_log ORDER BY sequence")]
    assert sequences == list(range(1, len(sequences) + 1))
    letters = dead_letters(system, "users")
    in_pack_of_nonsense, of_billing = 5, 1
    assert sum(letter.copies for letter in letters) == len(hostile) - 1 + in_pack_of_nonsense + of_billing
    assert {letter.origin for letter in letters} == {"public"}
    for process in (coordinator, ingress):
        log = process.log_path.read_text()
        assert "broker_connection_lost" not in log, log
        assert "Traceback" not in log
    assert ready(system)["ingress"]["partner"] == {"status": "ready", "reason": None}


def test_a_key_that_is_no_lane_s_holds_up_nobody_but_its_account(system: System) -> None:
    """By the header CC, or BCC, a message comes into the queue whatever its routing key says."""
    system.prepare("users", "payments")
    system.start_coordinators("users", "payments")
    ingress = system.start_ingress()
    with publishing(system, "partner") as channel:
        publish(channel, "partner", named(headers={"BCC": ["users"]}), GOOD, effects_key("payments"))
        publish(channel, "partner", named(), GOOD)
    wait_until(lambda: ready(system)["ingress"]["partner"]["reason"] is not None, "it waits")
    assert ready(system)["ingress"]["partner"]["reason"] == "the application has no lane 'effects.payments'"
    assert metric(system, 'coordinator_ingress_held{account="partner",cause="lane_missing"} 1.0')
    assert ask(system, "billing", named(), GOOD)["status"] == "applied"
    assert rows(system, "SELECT count(*) FROM users") == [(1,)]
    assert dead_letters(system, "users") == []
    ingress.stop(signal.SIGTERM, 20.0)
    assert "ingress_goes_on" not in ingress.log_path.read_text()


def test_a_lane_that_is_missing_or_busy_waits_in_words_and_the_other_account_goes_on(system: System) -> None:
    system.prepare("users", "payments")
    users = system.start_coordinator("users")
    ingress = system.start_ingress(INGRESS_LANE_READY_MAX="50", INGRESS_QUEUE_MESSAGES_MAX="300")
    with publishing(system, "partner") as channel:
        publish(channel, "partner", named(type="payments.none"), b"{}", "payments")
    wait_until(lambda: "payments" in (ready(system)["ingress"]["partner"]["reason"] or ""), "payments has no queue")
    assert ask(system, "billing", named(), GOOD)["status"] == "applied"
    system.start_coordinator("payments")
    wait_until(lambda: len(dead_letters(system, "payments")) == 1, "it goes on")
    # A lane that is down is left to its other clients, and the account is told when its own queue is full.
    users.kill()
    ids = taken_until_full(system, "partner", b"{}")
    wait_until(lambda: "INGRESS_LANE_READY_MAX" in (ready(system)["ingress"]["partner"]["reason"] or ""), "it waits")
    with system.broker() as channel:
        waiting = channel.queue_declare(queue_name("users"), passive=True).method.message_count
    assert 50 <= waiting < 250, waiting
    assert 300 <= len(ids) < 800
    # Nor does it lose what waits when it dies.
    ingress.kill()
    system.start_ingress(INGRESS_LANE_READY_MAX="50", INGRESS_QUEUE_MESSAGES_MAX="300")
    system.start_coordinator("users")
    wait_until(partial(are_settled, system, len(ids) + 1), "all go on", timeout_s=60)
    settled = [str(each) for (each,) in rows(system, "SELECT command_id FROM command_log ORDER BY sequence")]
    assert [each for each in settled if each in set(ids)] == ids


def test_a_lane_s_queue_that_is_full_gets_all_in_order_later(system: System) -> None:
    system.prepare("users")
    system.start_coordinator("users", AMQP_QUEUE_BYTES_MAX="1048576").kill()
    system.start_ingress(INGRESS_LANE_READY_MAX="10000", INGRESS_ACCOUNT_RATE_MAX="0")
    ids = [str(uuid4()) for _ in range(120)]
    with publishing(system, "partner") as channel:
        for number, command_id in enumerate(ids):
            # Some fit where others do not.
            body = b"{%s}" % (b" " * (40_000 if number % 2 else 100))
            publish(channel, "partner", named(message_id=command_id, type="users.none"), body)
    wait_until(lambda: "is full" in (ready(system)["ingress"]["partner"]["reason"] or ""), "it is full", timeout_s=60)
    assert metric(system, 'coordinator_ingress_held{account="partner",cause="lane_full"} 1.0')
    system.start_coordinator("users", AMQP_QUEUE_BYTES_MAX="1048576")
    wait_until(partial(are_settled, system, len(ids)), "all go on", timeout_s=60)
    assert [str(each) for (each,) in rows(system, "SELECT command_id FROM command_log ORDER BY sequence")] == ids


def test_large_messages_leave_room_in_the_queue_of_a_lane_that_is_down(system: System) -> None:
    """A few of them filled it, long before there were INGRESS_LANE_READY_MAX: others were refused."""
    system.prepare("users")
    system.start_coordinator("users", AMQP_QUEUE_BYTES_MAX="2097152").kill()
    system.start_ingress(INGRESS_LANE_READY_BYTES_MAX="1000000")
    ids = [str(uuid4()) for _ in range(30)]
    with publishing(system, "partner") as channel:
        for each in ids:
            publish(channel, "partner", named(message_id=each, type="users.none"), b"{%s}" % (b" " * 100_000))
    wait_until(lambda: ready(system)["ingress"]["partner"]["reason"] is not None, "it waits")
    assert "(INGRESS_LANE_READY_BYTES_MAX)" in ready(system)["ingress"]["partner"]["reason"]
    with system.broker() as channel:
        channel.confirm_delivery()
        channel.basic_publish(WRITES_EXCHANGE, "users", BOB, named(), mandatory=True)
    system.start_coordinator("users", AMQP_QUEUE_BYTES_MAX="2097152")
    wait_until(partial(are_settled, system, len(ids) + 1), "all go on", timeout_s=60)
    settled = [str(each) for (each,) in rows(system, "SELECT command_id FROM command_log ORDER BY sequence")]
    assert [each for each in settled if each in set(ids)] == ids
    assert rows(system, "SELECT count(*) FROM users") == [(1,)]


def test_a_queue_has_so_many_bytes_and_a_process_so_many_messages(system: System) -> None:
    system.prepare("users", "payments")
    # It declares the exchanges, and users has no queue yet.
    system.start_coordinator("payments")
    limits = {"INGRESS_QUEUE_BYTES_MAX": "100000", "INGRESS_ACCOUNT_IN_FLIGHT_MAX": "10"}
    system.start_ingress(**limits)
    taken = taken_until_full(system, "partner", b"{" + b" " * 998 + b"}")
    assert 100 <= len(taken) < 250
    with system.broker() as channel:
        queue = ingress_name("partner")
        assert channel.queue_declare(queue, passive=True).method.message_count == len(taken) - 10
    # Its lane has never run: nothing is lost until it does.
    system.start_coordinator("users")
    wait_until(partial(are_settled, system, len(taken)), "all go on")
    assert [str(each) for (each,) in rows(system, "SELECT command_id FROM command_log ORDER BY sequence")] == taken


def test_an_exchange_or_a_queue_that_somebody_deletes_is_there_again(system: System) -> None:
    system.prepare("users")
    system.start_coordinator("users")
    system.start_ingress()

    def is_taken() -> bool:
        try:
            with publishing(system, "partner") as channel:
                publish(channel, "partner", named(type="users.none"), b"{}")
        except (ChannelClosedByBroker, UnroutableError):
            return False
        return True

    for number, delete in enumerate(("exchange_delete", "queue_delete"), 1):
        with system.broker() as channel:
            getattr(channel, delete)(ingress_name("partner"))
        wait_until(is_taken, f"after {delete} it takes commands again")
        wait_until(partial(are_settled, system, number), "they go on")


def test_an_account_has_so_many_a_second_and_the_other_its_own(system: System) -> None:
    system.prepare("users")
    system.start_coordinator("users")
    system.start_ingress(INGRESS_ACCOUNT_RATE_MAX="20", INGRESS_ACCOUNT_BURST_MAX="10")
    began = threading.Event()
    with publishing(system, "partner") as channel:
        for _ in range(200):
            publish(channel, "partner", named(type="users.none"), b"{}")
        began.set()
        assert ask(system, "billing", named(), GOOD)["status"] == "applied"
        assert metric(system, 'coordinator_ingress_held{account="partner",cause="rate"} 1.0')
    count = settled(system)
    assert count < 150, count
