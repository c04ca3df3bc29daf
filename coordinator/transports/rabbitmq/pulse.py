"""Whether a silent connection still lives: it is asked, and an answer that does not come is late.

A middlebox may drop all packets of a connection and leave its socket open. Then nothing arrives, as on a connection on
which nothing happens, and only heartbeats end it, after twice AMQP_HEARTBEAT_S. The question is a method that changes
nothing, on a channel of its own. It is asked only while nothing arrives, so it costs nothing while messages do.

A late answer is only said: a broker that is slow for a moment must not lose the connections of all processes at once.
"""

import asyncio
import time

from pika.channel import Channel
from pika.exceptions import AMQPError

from coordinator.runtime.awaited import LATE_S, Late
from coordinator.transports.rabbitmq.pika_connection import PikaConnection

LOOK_EVERY_S = 0.5
"""How often it looks whether something arrived; if nothing did, it asks."""


class Pulse:
    """The pulse of one open connection. Used within its event loop, but for `late`."""

    def __init__(self, raw: PikaConnection, name: str) -> None:
        self._raw = raw
        self._what = f"RabbitMQ (connection {name})"
        self._channel: Channel | None = None
        self._received_bytes = -1
        self._arrived_at_s = time.monotonic()
        self._asked_since_s: float | None = None
        """When something arrived last before the question that has no answer yet."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    @property
    def late(self) -> Late | None:
        """The answer, if it is late. For any thread."""
        since_s = self._asked_since_s
        waited_s = 0.0 if since_s is None else time.monotonic() - since_s
        return None if since_s is None or waited_s < LATE_S else Late(self._what, since_s, waited_s)

    def stop(self) -> None:
        """The connection has ended."""
        self._timer.cancel()
        self._asked_since_s = None

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
        if self._raw.bytes_received != self._received_bytes:
            self._received_bytes = self._raw.bytes_received
            self._arrived_at_s = time.monotonic()
        elif self._asked_since_s is None:
            self._ask()

    def _ask(self) -> None:
        self._asked_since_s = self._arrived_at_s
        try:
            if self._channel is None:
                self._channel = self._raw.channel(on_open_callback=self._on_answer)
                self._channel.add_on_close_callback(self._on_close)
            else:
                self._channel.basic_qos(prefetch_count=1, callback=self._on_answer)
        except AMQPError:
            # The connection is being closed, or has no channel left to ask on.
            self._asked_since_s = None

    def _on_answer(self, _: object) -> None:
        self._asked_since_s = None

    def _on_close(self, *_: object) -> None:
        self._channel = None
        self._asked_since_s = None
