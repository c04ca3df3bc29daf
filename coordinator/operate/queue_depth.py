"""How long a queue is, as RabbitMQ says."""

from msgspec import Struct


class QueueDepth(Struct, frozen=True, kw_only=True):
    """A queue's messages that no consumer holds, and its consumers as RabbitMQ counts them.

    Both are also 0 if the queue's leader does not answer RabbitMQ at once, so 0 is no proof.
    On a quorum queue with a single active consumer, 3.10 counts that one only, and no standby.
    """

    ready: int
    consumers: int


class EffectsDepth(Struct, frozen=True, kw_only=True):
    """A service's calls to the outside, as RabbitMQ counts them: those that wait, and the workers that consume them."""

    waiting: int
    consumers: int
