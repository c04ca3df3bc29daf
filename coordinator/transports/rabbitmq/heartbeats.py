"""When a connection from which nothing arrives counts as dead: after two heartbeats' time, as AMQP 0-9-1 has it.

pika looks each heartbeat's time and 5 s more whether anything arrived since the last look. So a connection that was
silent from just behind a look on ended after twice as long: after 30 s with 10, and after 14 with 2.
"""

from typing import Final

from pika.heartbeat import HeartbeatChecker

LOOKS: Final = 4
"""So many looks in a row at which nothing had arrived, two in each heartbeat's time: RabbitMQ sends one as often. A
process that was stopped meanwhile has not looked, and first reads what had arrived."""


class TwoHeartbeats(HeartbeatChecker):  # type: ignore[misc]  # pika has no types
    """Ends a connection that is silent for twice the heartbeat, and half of one at most."""

    def _start_check_timer(self) -> None:
        self._check_interval = self._send_interval
        super()._start_check_timer()

    @property
    def connection_is_idle(self) -> bool:
        return bool(self._idle_byte_intervals >= LOOKS)
