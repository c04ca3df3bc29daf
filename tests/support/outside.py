"""What an outside publisher does by the ingress, and what becomes of it in the lane of users."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import pika
from sqlalchemy import text

from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import CoordinatorError
from coordinator.transports.rabbitmq.driver_arguments import broker_parameters
from coordinator.transports.rabbitmq.ingress.topology import ingress_name
from coordinator.transports.rabbitmq.publisher import Publisher
from tests.support.accounts import as_account
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

PARTNER = "partner"
CONFIRMED_WITHIN_S = 10.0
"""RabbitMQ may never confirm what it has taken, where another node leads the queue since."""
PAUSE_S = 0.05


@contextmanager
def publishing(system: System, account: str) -> Iterator[Any]:
    """A channel of an outside account, which waits for confirms."""
    url = as_account(system.environment["AMQP_URL"], account)
    with pika.BlockingConnection(broker_parameters(BrokerSettings(url=url), account)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


def publish(channel: Any, account: str, properties: pika.BasicProperties, body: bytes, lane: str = "users") -> None:
    channel.basic_publish(ingress_name(account), lane, body, properties, mandatory=True)


def user(number: int, command_id: str) -> tuple[pika.BasicProperties, bytes]:
    """The command that makes this user: its properties, and its body."""
    properties = pika.BasicProperties(message_id=command_id, type="users.create", delivery_mode=2)
    return properties, b'{"name": "%d", "email": "%d@example.org"}' % (number, number)


def users_of_partner(system: System, count: int) -> list[str]:
    """Publish so many commands; their ids. They are safe once this returns."""
    ids = [str(uuid4()) for _ in range(count)]
    with publishing(system, PARTNER) as channel:
        for number, command_id in enumerate(ids):
            publish(channel, PARTNER, *user(number, command_id))
    return ids


class CarefulPartner:
    """Publishes one command after the other, each again until it is confirmed, whatever is lost between."""

    def __init__(self, system: System) -> None:
        self._broker = BrokerSettings(url=as_account(system.environment["AMQP_URL"], PARTNER))
        self._is_over = False
        self.ids: list[str] = []
        """Of those that are confirmed, in their order."""

    def stop(self) -> None:
        """It ends once its last command is confirmed."""
        self._is_over = True

    async def run(self) -> None:
        publisher = Publisher(self._broker, PARTNER, (ingress_name(PARTNER),), user=PARTNER)
        publisher.start()
        try:
            while not self._is_over:
                await self._be_confirmed(publisher, str(uuid4()))
        finally:
            await publisher.close()

    async def _be_confirmed(self, publisher: Publisher, command_id: str) -> None:
        while True:
            try:
                async with asyncio.timeout(CONFIRMED_WITHIN_S):
                    properties, body = user(len(self.ids), command_id)
                    await publisher.publish(ingress_name(PARTNER), "users", properties, body)
            except (TimeoutError, CoordinatorError):
                await asyncio.sleep(PAUSE_S)
            else:
                self.ids.append(command_id)
                return


def rows(system: System, statement: str) -> list[Any]:
    engine = sql_engine(system.environment["USERS_DATABASE_URL"])
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement)).all()]
    finally:
        engine.dispose()


def settled(system: System) -> int:
    return int(rows(system, "SELECT count(*) FROM command_log")[0][0])


def are_settled(system: System, count: int) -> bool:
    return settled(system) >= count


def all_are_applied(system: System, ids: Sequence[str]) -> None:
    """These commands and no others, each once, in this order."""
    wait_until(partial(are_settled, system, len(ids)), "all are settled", timeout_s=60)
    log = rows(system, "SELECT command_id, status FROM command_log ORDER BY sequence")
    assert [(str(command_id), status) for command_id, status in log] == [(each, "applied") for each in ids]
