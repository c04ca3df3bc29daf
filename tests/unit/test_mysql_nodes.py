"""Which of several hosts of MySQL takes a connection: the nodes of a Galera cluster."""

import socket
from collections.abc import Mapping
from typing import Any, Self

import pymysql
import pytest
from pymysql.constants import CR
from pymysql.err import OperationalError

from coordinator.runtime.addresses import parse_address
from coordinator.service.errors import ConfigurationError
from coordinator.stores.mysql import lane_connection
from coordinator.stores.mysql.driver_arguments import connections_of
from coordinator.stores.mysql.lane_connection import open_lane_connection
from coordinator.stores.mysql.nodes import NodeConnection, first_that_takes
from coordinator.stores.mysql.reading import connect
from tests.support.answering_server import answering

NODE = {
    "wsrep_on": "ON",
    "wsrep_provider": "/usr/lib/galera/libgalera_smm.so",
    "wsrep_cluster_status": "Primary",
    "wsrep_ready": "ON",
}
ALONE = {"wsrep_on": "OFF", "wsrep_cluster_status": "Disconnected", "wsrep_ready": "OFF"}
WITHOUT_PROVIDER = ALONE | {"wsrep_on": "ON", "wsrep_provider": "none"}
CUT_OFF = NODE | {"wsrep_cluster_status": "non-Primary", "wsrep_ready": "OFF"}
JOINING = NODE | {"wsrep_ready": "OFF"}
AWAY = OperationalError(CR.CR_CONN_HOST_ERROR, "Can't connect to MySQL server on 'a'")
REFUSED = OperationalError(1045, "Access denied for user 'u'@'h'")


class FakeConnection:
    """Answers what a server says of itself, and keeps the statements that set its session up."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables
        self.is_closed = False
        self.set: list[str] = []
        self._answer: list[tuple[str, str]] = []

    def cursor(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, statement: str) -> None:
        if statement.startswith("SET"):
            self.set.append(statement)
        self._answer = [(name, value) for name, value in self.variables.items() if f"'{name}'" in statement]

    def fetchall(self) -> list[tuple[str, str]]:
        return self._answer

    def _force_close(self) -> None:
        self.is_closed = True


class Servers:
    """What is at each port, from 1 on: a server's variables, or the error of whoever connects."""

    def __init__(self, *servers: Mapping[str, str] | Exception) -> None:
        self.servers = servers
        self.made: list[FakeConnection] = []

    def connect(self, host: Mapping[str, Any]) -> Any:
        server = self.servers[host["port"] - 1]
        if isinstance(server, Exception):
            raise server
        self.made.append(FakeConnection(server))
        return self.made[-1]

    def first(self, waits: int = 0) -> NodeConnection:
        hosts = ",".join(f"h:{number + 1}" for number in range(len(self.servers)))
        return first_that_takes(connections_of(parse_address(f"mysql://u@{hosts}/d")), self.connect, waits=waits)


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (AWAY, "h:1: (2003, \"Can't connect to MySQL server on 'a'\")"),
        (REFUSED, "h:1: (1045, \"Access denied for user 'u'@'h'\")"),
        (CUT_OFF, "has no majority (wsrep_cluster_status is non-Primary)"),
        (JOINING, "is not ready to take part in the Galera cluster (wsrep_ready is OFF)"),
        (ALONE, "is no node of a Galera cluster (wsrep_on), which each of several hosts must be"),
        (WITHOUT_PROVIDER, "is no node of a Galera cluster"),
        ({}, "is no node of a Galera cluster"),
    ],
)
def test_a_host_that_takes_no_writes_is_passed_over_and_named(before: Any, reason: str) -> None:
    servers = Servers(before, NODE, NODE)
    taken = servers.first()
    assert (taken.name, taken.is_member) == ("h:2", True)
    assert reason in taken.passed_over
    assert taken.passed_over.startswith("h:1: ")
    assert [each.is_closed for each in servers.made] == [True] * (len(servers.made) - 1) + [False]


def test_the_first_host_is_taken_while_it_takes_connections() -> None:
    servers = Servers(NODE, NODE)
    assert servers.first().name == "h:1"
    assert servers.first().passed_over == ""


def test_the_error_of_several_hosts_says_what_each_has_said() -> None:
    with pytest.raises(OperationalError) as raised:
        Servers(AWAY, CUT_OFF, REFUSED).first()
    number, text = raised.value.args
    assert number == CR.CR_CONN_HOST_ERROR
    assert all(f"h:{each}: " in text for each in (1, 2, 3))


def test_an_account_that_all_hosts_refuse_is_refused_for_good_and_one_that_is_away_may_take_it() -> None:
    with pytest.raises(OperationalError, match="Access denied") as raised:
        Servers(REFUSED, REFUSED).first()
    assert raised.value.args[0] == 1045
    with pytest.raises(OperationalError) as raised:
        Servers(REFUSED, AWAY).first()
    assert raised.value.args[0] == CR.CR_CONN_HOST_ERROR


@pytest.mark.parametrize("server", [ALONE, WITHOUT_PROVIDER, {}])
def test_a_single_host_need_be_no_node_and_its_session_is_left_alone(server: Mapping[str, str]) -> None:
    servers = Servers(server)
    assert not servers.first(waits=7).is_member
    assert servers.made[0].set == []


def test_a_single_host_that_is_a_node_without_a_majority_is_away() -> None:
    with pytest.raises(OperationalError, match="no majority") as raised:
        Servers(CUT_OFF).first()
    assert raised.value.args[0] == 1047


def test_no_node_answers_reads_of_old_rows_and_it_waits_for_what_is_asked() -> None:
    servers = Servers(NODE)
    assert servers.first(waits=7).is_member
    assert servers.first().is_member
    assert [each.set for each in servers.made] == [
        ["SET SESSION wsrep_dirty_reads = 0", "SET SESSION wsrep_sync_wait = 7"],
        ["SET SESSION wsrep_dirty_reads = 0"],
    ]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://u@a,b/d?unix_socket=/run/s", "'unix_socket' names one server"),
        ("mysql://u@a:1,b:1,a:1/d", "the host a:1 twice"),
        ("mysql://u@a,a:3306/d", "the host a:3306 twice"),
    ],
)
def test_hosts_that_cannot_be_are_refused_by_name(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        connections_of(parse_address(url))


def test_each_host_has_its_own_name_and_port_and_all_else_alike() -> None:
    first, second = connections_of(parse_address("mysql://u:p@a,b:3307/d?ssl_verify_identity=true"))
    assert [(each.pop("host"), each.pop("port")) for each in (first, second)] == [("a", 3306), ("b", 3307)]
    assert first.pop("ssl") is not None
    assert second.pop("ssl") is not None
    assert first == second


def test_a_host_that_takes_a_connection_and_says_nothing_is_passed_over_as_one_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a process that hangs; a single host has the time that its statements have."""
    monkeypatch.setattr(lane_connection, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        hosts = ",".join(f"127.0.0.1:{server.getsockname()[1]}" for server in (one, other))
        with pytest.raises(OperationalError, match=r"no host takes the connection: .*timed out.*; .*timed out"):
            open_lane_connection(connections_of(parse_address(f"mysql://u@{hosts}/d?ssl_disabled=true")))


NO_MYSQL = {
    "nothing in a packet": bytes(4),
    "words of another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a greeting that ends": b"\x01\0\0\0\x0a",
    "a version that is none": b"\x20\0\0\0\x0ax.y\0\x08\0\0\0abcdefgh\0\xff\xff\x21\x02\0\xff\xdf\x15" + bytes(10),
}


@pytest.mark.parametrize("answer", NO_MYSQL.values(), ids=NO_MYSQL.keys())
async def test_what_is_no_mysql_is_said_and_passed_over(answer: bytes) -> None:
    """The driver raises whatever its reading of the answer makes; one server of another kind hides no other."""
    with answering(lambda connection: connection.send(answer)) as port:
        hosts = connections_of(parse_address(f"mysql://u:p@127.0.0.1:{port}/d"))
        with pytest.raises(OperationalError, match="what answers is no MySQL or MariaDB"):
            open_lane_connection(hosts)
        with pytest.raises(OperationalError, match="what answers is no MySQL or MariaDB"):
            await connect(host="127.0.0.1", port=port, user="u", password="p", connect_timeout=5)
        both = [*hosts, {"host": "b", "port": 3306}]

        def to(host: Mapping[str, Any]) -> Any:
            return FakeConnection(NODE) if host["host"] == "b" else pymysql.connect(**host)

        taken = first_that_takes(both, to)
        assert taken.name == "b:3306"
        assert "no MySQL" in taken.passed_over
