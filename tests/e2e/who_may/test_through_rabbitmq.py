"""Every cell of the table of RabbitMQ in docs/WHO_MAY.md."""

import itertools
import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import pika
import pytest
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, UnroutableError
from sqlalchemy import text

from coordinator.runtime.settings import BrokerSettings
from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.rights import effects_account
from coordinator.transports.rabbitmq.topology import (
    DEAD_EXCHANGE,
    SYSTEM_EXCHANGE,
    WRITES_EXCHANGE,
    dead_queue_arguments,
    dead_queue_name,
    effects_queue_arguments,
    mark_queue_arguments,
    mark_queue_name,
    queue_arguments,
    queue_name,
)
from tests.e2e.who_may.table import Act, acts_of, wrong_cells
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

# Of the two processes of a run, one starts the whole system.
pytestmark = [pytest.mark.xdist_group("who_may"), pytest.mark.doors]

ACTS = acts_of("Through RabbitMQ")
OTHER: Final = "notes"
"""A lane that does not run."""
LANE: Final = queue_name(OTHER)
DEAD: Final = dead_queue_name(OTHER)
MARK: Final = mark_queue_name(OTHER)
EFFECTS: Final = effects_key("payments")
REPLIES: Final = "replies.gateway.items.1"
TOLD: Final = "administrator.told"
"""A queue that the lane of users knows as the administrator's (LANE_REPLY_QUEUES)."""
ACTOR: Final = {"subject": "forged"}
ACCESS_REFUSED: Final = 403
PRECONDITION_FAILED: Final = 406
BYTES_MAX: Final = BrokerSettings.model_fields["queue_bytes_max"].default
_names = itertools.count(1)

Trial = tuple[Callable[[Any], object], Callable[[], bool]]
"""Tries an act on a channel of a role's; and asks whether it had its effect."""
Preparation = Callable[["Stage"], Trial]


class Stage:
    """The queues of a lane that does not run, as an administrator has set them, and the log of one that does."""

    def __init__(self, system: System, admin: Any, account: str) -> None:
        self._system = system
        self.admin = admin
        self.account = account
        for queue, arguments in (
            (LANE, queue_arguments(OTHER, BYTES_MAX)),
            (DEAD, dead_queue_arguments()),
            (MARK, mark_queue_arguments()),
            (EFFECTS, effects_queue_arguments(BYTES_MAX)),
        ):
            admin.queue_declare(queue, durable=True, arguments=arguments)
        admin.queue_declare(REPLIES)
        admin.queue_declare(TOLD)
        admin.queue_bind(DEAD, DEAD_EXCHANGE, OTHER)
        for queue in (LANE, DEAD, MARK, EFFECTS, REPLIES, TOLD):
            admin.queue_purge(queue)

    def length(self, queue: str) -> int:
        return int(self.admin.queue_declare(queue, passive=True).method.message_count)

    def exists(self, queue: str) -> bool:
        with self._system.broker() as channel:
            try:
                channel.queue_declare(queue, passive=True)
            except ChannelClosedByBroker:
                return False
            return True

    def put(self, queue: str) -> None:
        """A message, which is there when this returns."""
        self.admin.basic_publish("", queue, b"{}", pika.BasicProperties(delivery_mode=2), mandatory=True)

    def logged(self, command_id: str) -> dict[str, Any] | None:
        """The entry of a command of users, once all that was published before is settled."""
        marker = str(uuid4())
        self.admin.basic_publish(WRITES_EXCHANGE, "users", b"[]", of_command(marker))
        wait_until(lambda: self._entry(marker) is not None, "the lane has come so far")
        return self._entry(command_id)

    def is_told(self) -> bool:
        """Whether an outcome has come to the administrator's queue, once those of all commands so far are sent."""
        self.admin.basic_publish(WRITES_EXCHANGE, "users", b"[]", of_command(str(uuid4()), reply_to=REPLIES))
        wait_until(lambda: self.length(REPLIES) == 1, "the outcome of the last command")
        return self.length(TOLD) == 1

    def _entry(self, command_id: str) -> dict[str, Any] | None:
        engine = sql_engine(self._system.owner("users"))
        try:
            with engine.connect() as connection:
                asked = text("SELECT status, actor FROM command_log WHERE command_id = :id")
                row = connection.execute(asked, {"id": command_id}).first()
                return None if row is None else dict(row._mapping)
        finally:
            engine.dispose()


def of_command(command_id: str, **options: Any) -> pika.BasicProperties:
    return pika.BasicProperties(message_id=command_id, type="users.credit", delivery_mode=2, **options)


def published(exchange: str, **options: Any) -> Preparation:
    def prepare(stage: Stage) -> Trial:
        command_id, body = str(uuid4()), b'{"id": 1, "amount": 1}'
        properties = of_command(command_id, **options)
        return (
            lambda channel: channel.basic_publish(exchange, "users", body, properties, mandatory=True),
            lambda: stage.logged(command_id) is not None,
        )

    return prepare


def claimed(stage: Stage) -> Trial:
    command_id = str(uuid4())
    properties = of_command(command_id, user_id=stage.account, headers={"actor": json.dumps(ACTOR)})

    def is_believed() -> bool:
        entry = stage.logged(command_id)
        return entry is not None and entry["actor"] is not None and json.loads(entry["actor"]) == ACTOR

    def attempt(channel: Any) -> None:
        channel.basic_publish(WRITES_EXCHANGE, "users", b"[]", properties, mandatory=True)

    return attempt, is_believed


def told(stage: Stage) -> Trial:
    properties = of_command(str(uuid4()), user_id=stage.account, reply_to=TOLD)
    return (
        lambda channel: channel.basic_publish(WRITES_EXCHANGE, "users", b"[]", properties, mandatory=True),
        stage.is_told,
    )


def put(exchange: str, key: str, queue: str) -> Preparation:
    def prepare(stage: Stage) -> Trial:
        properties = pika.BasicProperties(delivery_mode=2)
        return (
            lambda channel: channel.basic_publish(exchange, key, b"{}", properties, mandatory=True),
            lambda: stage.length(queue) == 1,
        )

    return prepare


def read(queue: str) -> Preparation:
    def prepare(stage: Stage) -> Trial:
        got: list[bytes] = []
        stage.put(queue)

        def attempt(channel: Any) -> None:
            channel.basic_consume(queue, lambda *message: got.append(message[3]), auto_ack=True)
            wait_until(lambda: channel.connection.process_data_events(0.02) or bool(got), "it comes")

        return attempt, lambda: got == [b"{}"]

    return prepare


def emptied(stage: Stage) -> Trial:
    stage.put(LANE)
    return lambda channel: channel.queue_purge(LANE), lambda: stage.length(LANE) == 0


def deleted(queue: str) -> Preparation:
    return lambda stage: (lambda channel: channel.queue_delete(queue), lambda: not stage.exists(queue))


def declared(name: str, arguments: dict[str, Any] | None = None) -> Preparation:
    """`name` may have the name of the gateway that an account is of."""

    def prepare(stage: Stage) -> Trial:
        gateway = stage.account.removesuffix("_gateway")
        queue = name if name == LANE else f"{name.format(gateway=gateway)}{next(_names)}"
        stage.admin.queue_delete(queue)

        def is_there() -> bool:
            found = stage.exists(queue)
            stage.admin.queue_delete(queue)
            return found

        return lambda channel: channel.queue_declare(queue, durable=True, arguments=arguments), is_there

    return prepare


def exchange_declared(stage: Stage) -> Trial:
    name = f"mine{next(_names)}"

    def is_there() -> bool:
        try:
            stage.admin.basic_publish(name, "", b"")
        except ChannelClosedByBroker:
            return False
        return True

    return lambda channel: channel.exchange_declare(name, "direct"), is_there


def bound(stage: Stage, queue: str = LANE) -> Trial:
    key = f"another{next(_names)}"

    def is_routed() -> bool:
        try:
            stage.admin.basic_publish(WRITES_EXCHANGE, key, b"{}", mandatory=True)
        except UnroutableError:
            return False
        stage.admin.queue_unbind(queue, WRITES_EXCHANGE, key)
        return True

    return lambda channel: channel.queue_bind(queue, WRITES_EXCHANGE, key), is_routed


def copied(stage: Stage) -> Trial:
    """To a queue that is the account's own, if it has one."""
    lane = stage.account.removesuffix("_lane")
    own = dead_queue_name(lane) if lane != stage.account else REPLIES
    return bound(stage, EFFECTS if stage.account == effects_account("payments") else own)


PREPARATIONS: Final[dict[str, Preparation]] = {
    "publish a command to `writes`": published(WRITES_EXCHANGE),
    "say in the header `actor` for whom": claimed,
    "say by `user_id` that another account sends it": published(WRITES_EXCHANGE, user_id="somebody"),
    "publish to `writes.system`, as the system": published(SYSTEM_EXCHANGE),
    "publish to `writes.dead`, as a dead letter": put(DEAD_EXCHANGE, OTHER, DEAD),
    "put a message into a lane's queue": put("", LANE, LANE),
    "put an effect into the queue of effects": put("", EFFECTS, EFFECTS),
    "put an outcome into another's queue of replies": put("", REPLIES, REPLIES),
    "have a lane put an outcome into the administrator's queue": told,
    "read a lane's queue": read(LANE),
    "empty a lane's queue": emptied,
    "delete a lane's queue": deleted(LANE),
    "declare a lane's queue": declared(LANE, dict(queue_arguments(OTHER, BYTES_MAX))),
    "read the dead letters of the broker": read(DEAD),
    "delete the queue of those": deleted(DEAD),
    "read how far a lane had come": read(MARK),
    "read effects": read(EFFECTS),
    "delete the queue of effects": deleted(EFFECTS),
    "read another gateway's replies": read(REPLIES),
    "declare a queue of replies of its own": declared("replies.gateway.{gateway}."),
    "declare a queue of any name": declared("mine"),
    "declare an exchange of any name": exchange_declared,
    "have commands for another lane come to a lane's queue": bound,
    "have copies of commands for another lane come to a queue of its own": copied,
}


IN_VAIN: Final = {
    "say in the header `actor` for whom": "not believed",
    "have a lane put an outcome into the administrator's queue": "not sent",
}
"""What it is that nobody refuses, and that has no effect."""
NOBODYS: Final = "say by `user_id` that another account sends it"


def test_each_act_is_tried() -> None:
    assert [act.name for act in ACTS] == list(PREPARATIONS)
    assert [act.name for act in ACTS if "yes" not in act.gets.values()] == [NOBODYS]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_who_may(act: Act, running: System, accounts: dict[str, str]) -> None:
    got = {role: _got(act, running, accounts[role]) for role in act.gets}
    assert wrong_cells(act, got) == []


def _got(act: Act, running: System, url: str) -> str:
    with running.broker() as admin:
        admin.confirm_delivery()
        attempt, had_effect = PREPARATIONS[act.name](Stage(running, admin, urlsplit(url).username or ""))
        refusal = _refusal(attempt, url)
        if had_effect():
            return "yes" if refusal is None else f"{refusal}, and yet with an effect"
        if refusal is None:
            return IN_VAIN.get(act.name, "without effect")
        return refusal


def _refusal(attempt: Callable[[Any], object], url: str) -> str | None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(url))
    except AMQPConnectionError:
        return "no login"
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        attempt(channel)
    except ChannelClosedByBroker as error:
        return {ACCESS_REFUSED: "refused", PRECONDITION_FAILED: "forged"}[error.reply_code]
    finally:
        connection.close()
    return None
