"""A broker with several nodes: a connection is to any that takes it, and an attempt that is given up is over."""

import asyncio
import socket
from collections import Counter

import pika
import pytest

from coordinator.operate.broker_connection import connected
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.nodes import NodesInTurn
from tests.support.fake_broker import close_connection, fake_broker

WITHIN_S = 20.0
THREE = [pika.ConnectionParameters(host=name) for name in ("a", "b", "c")]
NO_SUCH_USER = close_connection(403, "ACCESS_REFUSED - Login was refused")


def brokers_at(*hosts: str) -> BrokerSettings:
    return BrokerSettings(url=f"amqp://guest:secret@{','.join(hosts)}/", connect_timeout_s=0.3)


def hosts_of(nodes: NodesInTurn) -> list[str]:
    return [str(node.host) for node in nodes]


def test_each_node_is_tried_once_and_none_is_always_first() -> None:
    firsts: Counter[str] = Counter()
    for _ in range(200):
        order = hosts_of(NodesInTurn(THREE))
        assert sorted(order) == ["a", "b", "c"]
        firsts[order[0]] += 1
    assert min(firsts[name] for name in "abc") > 20


def test_what_all_nodes_refuse_for_good_is_a_wrong_setting_and_all_else_an_outage() -> None:
    nodes = NodesInTurn(THREE, order=lambda nodes: nodes[::-1])
    for node in nodes:
        nodes.refused(node, ConfigurationError(f"{node.host} knows no such user"))
    assert isinstance(nodes.refusal, ConfigurationError)
    nodes.refused(THREE[1], BrokerUnavailable("b is away"))
    assert isinstance(nodes.refusal, BrokerUnavailable)
    assert str(nodes.refusal) == "a knows no such user; b is away; c knows no such user"


async def test_a_node_that_says_nothing_is_given_up_for_the_next() -> None:
    with fake_broker() as broker:
        broker.plan("", "AMQP", lambda stream, _, __: setattr(stream, "is_silent", True))
        connection = await AmqpConnection.open(brokers_at("127.0.0.1:1", "127.0.0.2:2"), "any")
        assert (broker.made, broker.closed) == (2, 1)
        await connection.end()


async def test_none_of_several_nodes_is_an_outage_that_names_them_all() -> None:
    with fake_broker() as broker:
        broker.plan("", "AMQP", lambda stream, _, __: setattr(stream, "is_silent", True))
        broker.plan("any", "Connection.StartOk", lambda stream, _, __: stream.send(NO_SUCH_USER))
        with pytest.raises(BrokerUnavailable) as refused:
            await AmqpConnection.open(brokers_at("127.0.0.1:1", "127.0.0.2:2"), "any")
    assert "127.0.0.1:1 " in str(refused.value)
    assert "127.0.0.2:2 " in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_a_node_that_accepts_late_finds_that_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as late, socket.create_server(("127.0.0.1", 0)) as other:
        settings = brokers_at(*(f"127.0.0.1:{each.getsockname()[1]}" for each in (late, other)))
        with pytest.raises(BrokerUnavailable, match=r"did not answer within 0.3 s; .* did not answer within 0.3 s"):
            await AmqpConnection.open(settings, "any")
        for each in (late, other):
            assert await asyncio.to_thread(said_to, each) == b"AMQP\x00\x00\x09\x01", "its greeting, and then the end"
            each.setblocking(False)
            with pytest.raises(BlockingIOError):
                each.accept()


def said_to(listener: socket.socket) -> bytes:
    """All that a client has said, and that it has ended, to a node that accepts it only now."""
    stream, _ = listener.accept()
    with stream:
        stream.settimeout(WITHIN_S)
        said = b""
        while more := stream.recv(100):
            said += more
        return said


def test_an_operators_command_goes_to_the_next_node_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(BrokerUnavailable) as refused, connected(brokers_at("127.0.0.1:1", f"127.0.0.1:{port}")):
            pass
    assert "127.0.0.1:1 cannot be reached" in str(refused.value)
    assert f"127.0.0.1:{port} cannot be reached" in str(refused.value)
