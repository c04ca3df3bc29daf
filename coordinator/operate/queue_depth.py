"""How long queues are, as the broker says."""

from typing import Protocol

from msgspec import Struct


class QueueDepth(Struct, frozen=True, kw_only=True):
    """A queue's messages that no consumer holds, and its consumers as the broker counts them.

    On RabbitMQ both are also 0 if the queue's leader does not answer RabbitMQ at once, so 0 is no proof.
    On a quorum queue with a single active consumer, 3.10 counts that one only, and no standby.
    """

    ready: int
    consumers: int


class EffectsDepth(Struct, frozen=True, kw_only=True):
    """A service's calls to the outside, as the broker counts them: those that wait, and their workers."""

    waiting: int
    consumers: int


class BrokerView(Protocol):
    """What an operator sees of the broker. Its methods raise BrokerUnavailable."""

    def lane_depth(self, lane: str) -> QueueDepth | None:
        """What waits for a lane; None: no coordinator of it has run."""

    def dead_depth(self, key: str) -> QueueDepth | None:
        """The messages of a lane, or of a service's effects, that the broker itself has dead-lettered."""

    def effects_depth(self, service: str) -> EffectsDepth | None:
        """A service's calls to the outside that wait, also for another attempt; None: it has no queue for them."""
