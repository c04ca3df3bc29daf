"""Policies of RabbitMQ's by which a lane's queues would lose what is confirmed. AMQP does not say them; its management
does.

Where a policy and a queue's own argument say the same, the queue's wins, or the lower number does. So no policy has a
full queue of commands drop its oldest ones. But a time to live takes messages out of queues that have none, and what
they dead-letter into no queue is gone.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

from coordinator.operate.told_by_management import management_of, told_as
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.effects.retry_queues import DELAYS_S, retry_key
from coordinator.transports.rabbitmq.topology import dead_queue_name, mark_queue_name, queue_name

_TAKE_OUT: Final = ("message-ttl", "expires", "delivery-limit")
_LIMIT: Final = ("max-length", "max-length-bytes")
"""Of a queue that drops its oldest ones where it is full: of dead letters."""


class _ToldQueue(Struct):
    """What the management says of one queue. Of one without a policy the definition is an empty list."""

    name: str
    policy: str | None = None
    operator_policy: str | None = None
    effective_policy_definition: Any = None


def harms_of(told: Iterable[Any], lane: str) -> list[str]:
    """What policies do to the queues of a lane and of its effects, by what the management says of all queues.

    Raises ConfigurationError for what no RabbitMQ says.
    """
    queues = {each.name: each for each in told_as(told, list[_ToldQueue])}
    effects = effects_key(lane)
    letters = dead_queue_name(lane), dead_queue_name(effects)
    names = queue_name(lane), mark_queue_name(lane), queue_name(effects)
    later = (retry_key(lane, length_s) for length_s in DELAYS_S.values())
    found: list[str] = []
    for name in (*names, *later, *letters):
        queue = queues.get(name)
        definition = None if queue is None else queue.effective_policy_definition
        if queue is not None and isinstance(definition, dict):
            by = " and ".join(filter(None, (queue.policy, queue.operator_policy)))
            keys = (*_TAKE_OUT, *_LIMIT) if name in letters else _TAKE_OUT
            found += [f"{name} has {key} {definition[key]} by the policy {by}" for key in keys if key in definition]
    return found


def open_harms(broker: BrokerSettings) -> Callable[[Sequence[str]], dict[str, list[str]]] | None:
    """What tells it of lanes' queues; None where RABBITMQ_ADMIN_URL is not set, or it is no RabbitMQ.

    What is returned raises BrokerUnavailable, ConfigurationError.
    """
    managed = management_of(broker)
    if managed is None:
        return None
    server, vhost = managed

    def harms(lanes: Sequence[str]) -> dict[str, list[str]]:
        told = server.queues(vhost, _ToldQueue.__struct_fields__)
        return {lane: harms_of(told, lane) for lane in lanes}

    return harms
