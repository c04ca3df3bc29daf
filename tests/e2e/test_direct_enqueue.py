"""Anybody may enqueue, in any language: commands published with Debian's amqp-publish and with plain pika."""

import functools
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import pika
import pytest
from sqlalchemy import text

from coordinator.protocol.wire import PACK_CONTENT
from coordinator.transports.rabbitmq.rights import PUBLISHER
from coordinator.transports.rabbitmq.topology import dead_queue_name, queue_name
from tests.support.accounts import as_account
from tests.support.databases import sql_engine
from tests.support.letters import dead_letters
from tests.support.servers import install_amqp_tools
from tests.support.system import System, wait_until


@functools.cache
def _amqp_publish() -> str:
    return install_amqp_tools(Path(tempfile.gettempdir()) / "write-coordinator-amqp-tools.log")


def amqp_publish(system: System, body: str, *headers: str, routing_key: str = "users") -> None:
    command = [
        _amqp_publish(),
        "--url",
        as_account(system.environment["AMQP_URL"], PUBLISHER),
        "--exchange",
        "writes",
        "--routing-key",
        routing_key,
    ]
    command += ["--content-type", "application/json", "--persistent", "--body", body]
    for header in headers:
        command += ["--header", header]
    subprocess.run(command, check=True, timeout=10)


def account_of(system: System) -> str:
    return urlsplit(system.environment["AMQP_URL"]).username or "guest"


def credit(system: System, amount: int, **headers: str) -> None:
    """With a client that can name its account: Debian's cannot."""
    properties = pika.BasicProperties(
        message_id=str(uuid4()), type="users.credit", delivery_mode=2, user_id=account_of(system), headers=headers
    )
    with system.broker() as channel:
        channel.confirm_delivery()
        channel.basic_publish("writes", "users", json.dumps({"id": 1, "amount": amount}), properties, mandatory=True)


def users(system: System) -> list[tuple[Any, ...]]:
    engine = sql_engine(system.environment["USERS_DATABASE_URL"])
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, name, credit FROM users ORDER BY id")).all()
    engine.dispose()
    return [tuple(row) for row in rows]


def log(system: System) -> list[tuple[Any, ...]]:
    engine = sql_engine(system.environment["USERS_DATABASE_URL"])
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT type, status, error_code FROM command_log ORDER BY sequence")).all()
    engine.dispose()
    return [tuple(row) for row in rows]


@pytest.fixture
def users_lane(system: System) -> System:
    system.prepare("users")
    system.start_coordinator("users", LANE_GATEWAY_ACCOUNTS="", LANE_ACCOUNT_SCOPES=f"{account_of(system)}=cashier")
    return system


def test_amqp_publish_enqueues_a_command_and_repeats_it_safely(users_lane: System) -> None:
    command_id = str(uuid4())
    create = '{"name": "Ada", "email": "ada@example.org"}'
    for _ in range(3):
        amqp_publish(users_lane, create, f"command-id: {command_id}", "command-type: users.create")
    amqp_publish(users_lane, '{"id": 1, "amount": 250}', f"command-id: {uuid4()}", "command-type: users.credit")
    wait_until(lambda: len(log(users_lane)) == 2, "both are settled")
    # Nobody vouches for who asks.
    assert log(users_lane) == [("users.create", "applied", None), ("users.credit", "rejected", "forbidden")]
    credit(users_lane, 250)
    wait_until(lambda: users(users_lane) == [(1, "Ada", 250)], "the user is credited")
    assert log(users_lane)[2:] == [("users.credit", "applied", None)]


def test_integers_in_headers_may_arrive_as_text(users_lane: System) -> None:
    create = '{"name": "Ada", "email": "ada@example.org"}'
    amqp_publish(users_lane, create, f"command-id: {uuid4()}", "command-type: users.create")
    for version in ("1", "1", "soon"):
        credit(users_lane, 1, **{"expected-version": version})
    credit(users_lane, 1, deadline="1000")
    wait_until(lambda: len(log(users_lane)) == 5, "all are settled")
    assert [(status, code) for _, status, code in log(users_lane)[1:]] == [
        ("applied", None),
        ("rejected", "version_conflict"),
        ("failed", "invalid_header"),
        ("expired", "deadline_expired"),
    ]


def test_what_cannot_be_applied_is_dead_lettered_with_the_reason_and_the_lane_goes_on(users_lane: System) -> None:
    known = str(uuid4())
    amqp_publish(users_lane, '{"name": "Nobody"}', "command-type: users.create")
    amqp_publish(users_lane, "{ this is not JSON", f"command-id: {known}", "command-type: users.create")
    amqp_publish(users_lane, "{}", f"command-id: {uuid4()}", "command-type: users.explode")
    amqp_publish(users_lane, "{}", f"command-id: {uuid4()}")
    amqp_publish(users_lane, '{"name": "Ada", "email": "a@b"}', f"command-id: {uuid4()}", "command-type: users.create")
    wait_until(lambda: len(users(users_lane)) == 1, "the last command is applied")
    letters = dead_letters(users_lane, "users")
    assert [letter.code for letter in letters] == [
        "missing_command_id",
        "malformed_json",
        "unknown_command_type",
        "missing_command_type",
    ]
    assert letters[1].command_id == known
    assert letters[1].arguments == b"{ this is not JSON"
    with users_lane.broker() as channel:
        # What was settled is acknowledged.
        wait_until(
            lambda: channel.queue_declare(queue_name("users"), passive=True).method.message_count == 0, "an empty queue"
        )
        assert channel.queue_declare(dead_queue_name("users"), passive=True).method.message_count == 0


def test_a_pack_is_answered_in_one_message_when_its_publisher_asks(users_lane: System) -> None:
    commands = [
        {"id": str(uuid4()), "type": "users.create", "args": {"name": f"User {n}", "email": f"u{n}@example.org"}}
        for n in range(1, 101)
    ]
    commands.append({"id": str(uuid4()), "type": "users.credit", "args": {"id": 100, "amount": -1}})
    with users_lane.broker() as channel:
        replies = channel.queue_declare("", exclusive=True).method.queue
        properties = pika.BasicProperties(
            content_type=PACK_CONTENT,
            delivery_mode=2,
            reply_to=replies,
            correlation_id="pack-1",
            headers={"reply-packs": True},
            user_id=account_of(users_lane),
        )
        channel.confirm_delivery()
        channel.basic_publish("writes", "users", json.dumps(commands), properties, mandatory=True)
        answers: list[tuple[Any, bytes]] = []

        def answered() -> bool:
            method, answer, body = channel.basic_get(replies, auto_ack=True)
            if method is not None:
                answers.append((answer, body))
            return bool(answers)

        wait_until(answered, "the pack is answered")
    properties, body = answers[0]
    outcomes = msgspec.json.decode(body)
    assert properties.correlation_id == "pack-1"
    assert properties.content_type == PACK_CONTENT
    assert [outcome["command_id"] for outcome in outcomes] == [command["id"] for command in commands]
    assert [outcome["sequence"] for outcome in outcomes] == list(range(1, 102))
    assert outcomes[-1]["status"] == "rejected"
    assert outcomes[-1]["error"]["code"] == "insufficient_credit"
    assert outcomes[0]["result"]["id"] == 1
