"""A connection that is silent for twice the heartbeat's time ends, and none that is silent for less."""

import heapq
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.transports.rabbitmq.pika_connection import PikaConnection

ENDLESS_S = 1000.0


class Quiet:
    """What a heartbeat checker needs of a connection, and a clock."""

    def __init__(self, heartbeat_s: int) -> None:
        self.params = SimpleNamespace(heartbeat=heartbeat_s)
        self.bytes_received = self.bytes_sent = 0
        self.now_s = 0.0
        self.ended_s: float | None = None
        self._numbers = count()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []

    def _adapter_call_later(self, delay_s: float, callback: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (self.now_s + delay_s, next(self._numbers), callback))

    def _send_frame(self, _: object) -> None:
        self.bytes_sent += 1

    def _terminate_stream(self, _: object) -> None:
        self.ended_s = self.now_s

    def receive_at(self, moment_s: float) -> None:
        def receive() -> None:
            self.bytes_received += 8

        self._adapter_call_later(moment_s - self.now_s, receive)

    def run(self) -> None:
        while self._timers and self.ended_s is None and self.now_s < ENDLESS_S:
            self.now_s, _, callback = heapq.heappop(self._timers)
            callback()


def checked(heartbeat_s: int) -> Quiet:
    connection: Any = Quiet(heartbeat_s)
    PikaConnection._create_heartbeat_checker(connection)
    found: Quiet = connection
    return found


@pytest.mark.parametrize("heartbeat_s", [2, 10, 60])
@pytest.mark.parametrize("part", range(8))
def test_a_connection_that_falls_silent_ends_after_two_heartbeats_and_a_half_at_most(
    heartbeat_s: int, part: int
) -> None:
    connection = checked(heartbeat_s)
    last_s = heartbeat_s * (1.01 + part / 8)
    connection.receive_at(last_s)
    connection.run()
    assert connection.ended_s is not None
    assert 2 * heartbeat_s <= connection.ended_s - last_s <= 2.5 * heartbeat_s


def test_a_connection_that_is_late_with_one_heartbeat_goes_on() -> None:
    connection = checked(10)
    for turn in range(1, 120):
        connection.receive_at(turn * 10 + 4 * (turn % 2))
    connection.run()
    assert connection.ended_s is None


def test_without_heartbeats_none_are_looked_for() -> None:
    connection = checked(0)
    connection.run()
    assert connection.ended_s is None
