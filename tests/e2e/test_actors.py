"""Who asks, on the running system: a gateway's word counts where the lane was told of the gateway's account, and of
anybody else the account that RabbitMQ has checked."""

import json
import signal
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

import pika
import pytest
from pika.adapters.blocking_connection import BlockingConnection
from pika.exceptions import ChannelClosedByBroker

from coordinator.dev.servers.server_set import ServerSet
from coordinator.transports.rabbitmq.rights import gateway_account
from coordinator.transports.rabbitmq.topology import WRITES_EXCHANGE, dead_queue_name
from tests.support.accounts import as_account
from tests.support.operated import operated
from tests.support.rabbitmqctl import delete_users, set_users
from tests.support.system import System, wait_until

CLAIM = {"actor": '{"subject":"mobile-app","scopes":["operator"]}'}
PRECONDITION_FAILED = 406


@pytest.fixture
def ledgers_url(native_servers: ServerSet) -> Iterator[str]:
    """The broker's address, with an account of RabbitMQ's that may publish commands, and nothing else."""
    broker = native_servers.rabbitmq
    set_users(broker, {"ledgers": ("^$", "^writes$", "^$")})
    address = urlsplit(broker.url)
    yield address._replace(netloc=f"ledgers:ledgers@{address.hostname}:{address.port}").geturl()
    delete_users(broker, ["ledgers"])


def actor_of(system: System, command_id: str) -> Any:
    """Who asked for a command, once it is settled, as its operator sees it."""
    wait_until(lambda: operated(system, "command", command_id) is not None, "it is settled")
    return operated(system, "command", command_id)["actor"]


def create(number: int) -> bytes:
    return json.dumps({"name": "Ada", "email": f"ada{number}@example.org"}).encode()


def asked(system: System, key: str, number: int) -> str:
    """Ask the gateway; return the command's id."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", "actor": '{"subject":"eve"}'}
    with urlopen(Request(f"{system.urls['users']}/users", create(number), headers), timeout=20) as answer:
        return str(answer.headers["Command-Id"])


def published(url: str, number: int, user_id: str | None, **properties: str) -> str:
    """Publish, and return the command's id once the broker has confirmed it."""
    command_id = str(uuid4())
    connection = BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        named = pika.BasicProperties(
            message_id=command_id,
            type="users.create",
            delivery_mode=2,
            user_id=user_id,
            headers=dict(CLAIM),
            **properties,
        )
        channel.basic_publish(WRITES_EXCHANGE, "users", create(number), named, mandatory=True)
    finally:
        if connection.is_open:
            connection.close()
    return command_id


def test_the_log_has_who_asked_and_nobody_is_taken_at_his_word_but_a_gateway(system: System, ledgers_url: str) -> None:
    account = gateway_account("users")
    system.prepare("users")
    system.start_coordinator("users", LANE_GATEWAY_ACCOUNTS=f"other {account}")
    system.start_gateway("users", ACCESS_METHODS="keys", ACCESS_KEYS_REFRESH_S="0.2")
    key = operated(system, "keys", "create", "users", "--subject", "mobile-app", "--tenant", "acme")["key"]
    wait_until(lambda: counts(system, key), "the key counts")
    assert actor_of(system, asked(system, key, 1)) == {"subject": "mobile-app", "tenant": "acme"}
    # RabbitMQ has checked this name, and does not let anybody have another's.
    assert actor_of(system, published(ledgers_url, 2, "ledgers")) == {"subject": "amqp:ledgers"}
    assert actor_of(system, published(ledgers_url, 3, None)) is None
    with pytest.raises(ChannelClosedByBroker) as closed:
        published(ledgers_url, 4, account)
    assert closed.value.reply_code == PRECONDITION_FAILED
    assert "actor_not_believed" in system.processes[0].log_tail(500)


def test_what_the_broker_lets_expire_is_still_of_whoever_asked_for_it(system: System) -> None:
    """RabbitMQ keeps the account that it has checked when it moves a message to the dead-letter queue."""
    account = gateway_account("users")
    system.prepare("users")
    system.start_coordinator("users", LANE_GATEWAY_ACCOUNTS=account).stop(signal.SIGTERM, 20.0)
    command_id = published(as_account(system.environment["AMQP_URL"], account), 1, account, expiration="1")
    with system.broker() as channel:
        wait_until(
            lambda: channel.queue_declare(dead_queue_name("users"), passive=True).method.message_count == 1,
            "it is expired",
        )
    system.start_coordinator("users", LANE_GATEWAY_ACCOUNTS=account)
    assert actor_of(system, command_id) == {"subject": "mobile-app"}


def test_a_gateway_that_its_lane_was_not_told_of_is_known_by_its_account(system: System) -> None:
    account = gateway_account("users")
    system.prepare("users")
    coordinator = system.start_coordinator("users", LANE_GATEWAY_ACCOUNTS="")
    gateway = system.start_gateway("users", ACCESS_METHODS="keys", ACCESS_KEYS_REFRESH_S="0.2")
    key = operated(system, "keys", "create", "users", "--subject", "mobile-app")["key"]
    wait_until(lambda: counts(system, key), "the key counts")
    command_id = asked(system, key, 1)
    assert actor_of(system, command_id) == {"subject": f"amqp:{account}"}
    # So nobody is told what became of it, and the gateway's log says why.
    with pytest.raises(HTTPError, match="404"):
        urlopen(Request(f"{system.urls['users']}/commands/{command_id}", headers={"Authorization": f"Bearer {key}"}))
    assert "outcome_withheld" in gateway.log_tail(500)
    logged = [line for line in coordinator.log_tail(500).splitlines() if "actor_not_believed" in line]
    assert len(logged) == 1
    assert account in logged[0]
    assert "LANE_GATEWAY_ACCOUNTS" in logged[0]


@pytest.mark.parametrize("believed", [gateway_account("users"), ""])
def test_what_everybody_sends_through_an_open_gateway_is_nobody_s(system: System, believed: str) -> None:
    """Whether the lane knows the gateway or not: the account in its messages only carries them."""
    system.prepare("users")
    coordinator = system.start_coordinator("users", LANE_GATEWAY_ACCOUNTS=believed)
    system.start_gateway("users", ACCESS_METHODS="none")
    command_id = asked(system, "", 1)
    assert actor_of(system, command_id) is None
    with urlopen(f"{system.urls['users']}/commands/{command_id}", timeout=20) as answer:
        assert json.loads(answer.read())["status"] == "applied"
    assert "actor_not_believed" not in coordinator.log_tail(500)


def counts(system: System, key: str) -> bool:
    """Whether the gateway takes this key by now."""
    try:
        with urlopen(Request(f"{system.urls['users']}/users", headers={"Authorization": f"Bearer {key}"}), timeout=20):
            return True
    except OSError:
        return False
