"""Several servers from which a gateway reads: its connections go to them in turns, past those that are away."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from coordinator.runtime.addresses import Host

HOST_CONNECT_TIMEOUT_S: Final = 2
"""For one of several servers: a read, which may take 5 s, comes past one that says nothing."""
AWAY_S: Final = 10.0
"""How long one that was away is asked only where no other answers."""
RECYCLE_S: Final = 30
"""The age at which connections are made anew, so that one that is back gets its share."""

_OPTION: Final = "hosts_in_turns"
_NUMBER: Final = "host_number"

C = TypeVar("C")


class HostsInTurns:
    """Which of the servers the next connection goes to. `away` are those that did not answer when last asked."""

    def __init__(self, hosts: Sequence[Host], now_s: Callable[[], float] = time.monotonic) -> None:
        self.hosts = hosts
        self._now_s = now_s
        self._next = 0
        self._again_s: dict[int, float] = {}

    @property
    def away(self) -> Sequence[Host]:
        """In the order of the address."""
        return [self.hosts[number] for number in sorted(self._again_s)]

    def connect(self, connect: Callable[[int], C]) -> C:
        """A connection to the first one that gives one, by its number from 0 on. Raises the error of the last."""
        order = self._order()
        for number in order:
            if number in self._again_s:
                # Of those who come meanwhile nobody else tries.
                self.is_away(number)
            try:
                made = connect(number)
            except Exception:
                self.is_away(number)
                if number == order[-1]:
                    raise
            else:
                self._again_s.pop(number, None)
                return made
        raise AssertionError("there are hosts")

    def is_away(self, number: int) -> None:
        """From now on, for a while."""
        self._again_s[number] = self._now_s() + AWAY_S

    def _order(self) -> Sequence[int]:
        count, now_s = len(self.hosts), self._now_s()
        turn = [(self._next + each) % count for each in range(count)]
        self._next = (self._next + 1) % count
        return sorted(turn, key=lambda number: self._again_s.get(number, now_s) > now_s)


def options_of(turns: HostsInTurns) -> Mapping[str, Any]:
    """What an engine is made with whose connections go to these hosts in turns."""
    return {"pool_recycle": RECYCLE_S, "execution_options": {_OPTION: turns}}


def connect_in_turns(engine: AsyncEngine, turns: HostsInTurns, arguments: Sequence[Mapping[str, Any]]) -> None:
    """Have the engine's connections go to the hosts in turns, to each with its arguments of the driver's."""

    def connect(dialect: Any, record: Any, given: Sequence[Any], named: Mapping[str, Any]) -> Any:
        def to(number: int) -> Any:
            made = dialect.connect(*given, **{**named, **arguments[number]})
            # SQLAlchemy clears what is noted here with each new connection.
            record.info[_NUMBER] = number + 1
            return made

        return turns.connect(to)

    event.listen(engine.sync_engine, "do_connect", connect)


def hosts_in_turns(engine: AsyncEngine) -> HostsInTurns | None:
    """The servers of an engine that has several; else None."""
    turns: HostsInTurns | None = engine.get_execution_options().get(_OPTION)
    return turns


def is_silent(engine: AsyncEngine, record: Any) -> None:
    """The server of this record of the pool's does not answer: where there are others, they are asked before it."""
    turns, number = hosts_in_turns(engine), record.info.get(_NUMBER)
    if turns is not None and number is not None:
        turns.is_away(number - 1)


def number_of_host(connection: AsyncConnection) -> int | None:
    """Which of several servers a connection is to, from 1 on; None: there is one only."""
    number: int | None = connection.sync_connection.info.get(_NUMBER) if connection.sync_connection else None
    return number
