"""The exchanges and queues of a lane, and why they are what they are.

- A quorum queue is replicated and synced to disk before it confirms.
- Single active consumer: RabbitMQ delivers to one consumer and moves on to a standby when that one is gone.
- `reject-publish` refuses commands that the queue has no room for, instead of dropping its oldest ones.
- The delivery limit must be a very large number: `-1` drops deliveries on RabbitMQ 3.10 at the first crash, unset moves
  a returned delivery to the end of the queue there, and 4.x defaults to 20 and then drops.
"""

from collections.abc import Container
from typing import Final

from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.transports.rabbitmq.direct_reply import DIRECT_REPLY_PREFIX

WRITES_EXCHANGE: Final = "writes"
"""The exchange for everybody who may write at all."""
SYSTEM_EXCHANGE: Final = "writes.system"
"""The exchange for the system's own commands, and for operators'. Its write permission makes the difference."""
DEAD_EXCHANGE: Final = "writes.dead"
QUEUE_PREFIX: Final = "writes."
REPLIES_PREFIX: Final = "replies."
"""How the names of gateways' queues of outcomes begin; what follows has 122 random bits, so that nobody guesses it."""
UNNAMED_PREFIX: Final = "amq.gen-"
"""How RabbitMQ calls a queue that is declared without a name: as unguessable, and declared by nobody else."""
DELIVERY_LIMIT: Final = 1_000_000_000


def queue_name(key: str) -> str:
    """The queue for a routing key: for a lane's commands, or for a service's effects."""
    return key if key.startswith(EFFECTS_PREFIX) else f"{QUEUE_PREFIX}{key}"


def dead_queue_name(key: str) -> str:
    """The queue of the dead letters of a lane, or of a service's effects."""
    return f"{queue_name(key)}.dead"


def mark_queue_name(lane: str) -> str:
    """The queue of one message, which says how far the lane has come."""
    return f"{queue_name(lane)}.mark"


def takes_outcomes(queue: str, named: Container[str] = ()) -> bool:
    """Whether outcomes may be sent to a queue of this name, which the sender of the command has chosen.

    They are sent with the lane's rights, which reach every queue of the vhost. So only names are taken that nobody else
    can know, and those that a setting has (`named`). The publisher checks the addresses of direct reply-to.
    """
    return queue.startswith((DIRECT_REPLY_PREFIX, REPLIES_PREFIX, UNNAMED_PREFIX)) or queue in named


def effects_queue_arguments(bytes_max: int) -> dict[str, str | int | bool]:
    """The arguments of a queue of effects. Effects have no order, so any number of workers consume it."""
    return {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-max-length-bytes": bytes_max,
        "x-delivery-limit": DELIVERY_LIMIT,
    }


def queue_arguments(lane: str, bytes_max: int) -> dict[str, str | int | bool]:
    """The arguments with which a lane's queue is declared; RabbitMQ refuses a redeclaration with others."""
    return {
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
        "x-overflow": "reject-publish",
        "x-max-length-bytes": bytes_max,
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": DEAD_EXCHANGE,
        "x-dead-letter-routing-key": lane,
        "x-dead-letter-strategy": "at-least-once",
    }


def mark_queue_arguments() -> dict[str, str | int | bool]:
    """The arguments of a lane's mark queue: it keeps the last message."""
    return {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "drop-head", "x-delivery-limit": DELIVERY_LIMIT}


def dead_queue_arguments() -> dict[str, str | int | bool]:
    """The arguments of a dead-letter queue."""
    return {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
