"""Which of several servers the next connection goes to."""

import pytest

from coordinator.runtime.addresses import Host, parse_address
from coordinator.stores.kinds import check_role, kind_of
from coordinator.stores.sql.hosts_in_turns import AWAY_S, HostsInTurns
from tests.support.ledger import LEDGER

HOSTS = (Host("a", 1), Host("b", 2), Host("c", 3))


class ThreeServers:
    """Those whose numbers are in `down` refuse; `tried` has all that were asked."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.down: set[int] = set()
        self.tried: list[int] = []
        self.turns = HostsInTurns(HOSTS, lambda: self.now_s)

    def connect(self) -> int:
        return self.turns.connect(self._to)

    def _to(self, number: int) -> int:
        self.tried.append(number)
        if number in self.down:
            raise OSError(f"{number} refuses")
        return number


def test_connections_go_to_all_in_turns() -> None:
    servers = ThreeServers()
    assert [servers.connect() for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    assert servers.turns.away == []


def test_one_that_is_away_is_passed_over_and_looked_at_again() -> None:
    servers = ThreeServers()
    servers.down = {1}
    assert [servers.connect() for _ in range(6)] == [0, 2, 2, 0, 2, 2]
    assert (servers.tried.count(1), servers.turns.away) == (1, [HOSTS[1]])
    servers.now_s += AWAY_S
    assert [servers.connect() for _ in range(6)] == [0, 2, 2, 0, 2, 2]
    assert servers.tried.count(1) == 2
    servers.now_s, servers.down = servers.now_s + AWAY_S, set()
    assert [servers.connect() for _ in range(3)] == [0, 1, 2]
    assert servers.turns.away == []


def test_one_that_was_away_is_tried_by_one_at_a_time() -> None:
    servers = ThreeServers()
    servers.turns.is_away(0)
    servers.now_s += AWAY_S

    def meanwhile(number: int) -> int:
        # The first one waits for an answer, and others come.
        assert number == 0
        assert [servers.connect() for _ in range(4)] == [1, 2, 1, 1]
        return number

    assert servers.turns.connect(meanwhile) == 0


def test_where_all_are_away_all_are_asked_before_the_last_error_is_raised() -> None:
    servers = ThreeServers()
    servers.down = {0, 1, 2}
    for _ in range(2):
        servers.tried.clear()
        with pytest.raises(OSError, match="refuses"):
            servers.connect()
        assert sorted(servers.tried) == [0, 1, 2]
    servers.down.remove(2)
    assert servers.connect() == 2


def test_an_address_that_names_several_servers_of_mysql_is_one_for_all_roles() -> None:
    address = parse_address("mysql://u@a:1,b:2/d")
    check_role(address, is_reader=False)
    check_role(address, is_reader=True)
    kind_of(address).open_store(address, LEDGER).close()
    kind_of(address).open_admin(address, "ledger").close()
    assert [each.hosts for each in address.by_host()] == [(Host("a", 1),), (Host("b", 2),)]
