"""The keys of the transport in Redis, and why they are what they are.

What the public and what the system says to a lane are two streams. Redis has rights by key and none by entry, so the
stream through which an entry came says where it is from, as an exchange does in RabbitMQ. One counter numbers the
entries of both, so that they have one order.
"""

from typing import Final

from coordinator.service.outside_calls import EFFECTS_PREFIX

REPLIES_PREFIX: Final = "replies."
"""How the names of the channels begin to which outcomes go; what follows has 122 random bits, so that nobody guesses
it."""


def commands_key(lane: str, *, is_system: bool) -> str:
    """The stream of a lane's commands from one side."""
    return f"writes.system.{lane}" if is_system else f"writes.public.{lane}"


def system_stream_key(target: str) -> str:
    """The stream of what the system says to a lane, or of a service's effects."""
    return f"writes.{target}" if target.startswith(EFFECTS_PREFIX) else commands_key(target, is_system=True)


def counter_key(target: str) -> str:
    """What counts the entries of a lane's streams, or of a service's effects: a hash."""
    return f"writes.counter.{target}"


def later_key(service: str) -> str:
    """The effects of a service that wait for their next attempt: a sorted set, by when they are due."""
    return f"writes.later.{service}"


def worker_key(service: str, name: str) -> str:
    """What is there as long as a worker of a service's effects lives: a text that expires."""
    return f"writes.worker.{service}.{name}"


def lease_key(lane: str) -> str:
    """Whose turn it is to consume: a text that expires."""
    return f"writes.lease.{lane}"


def kept_key(lane: str) -> str:
    """What one consumer of a lane leaves to the next: a hash."""
    return f"writes.kept.{lane}"


def is_channel_of_outcomes(name: str) -> bool:
    """Whether outcomes may be sent to a channel of this name, which the sender of the command has chosen."""
    return name.startswith(REPLIES_PREFIX)
