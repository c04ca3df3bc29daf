"""The exchange and the queue of one outside account.

Nothing is ever dropped from the queue by us: where it is full its owner gets a nack. It has no dead-letter exchange, so
what its owner has expire vanishes, and nothing of it is published by the broker.
"""

from typing import TYPE_CHECKING, Final

from coordinator.transports.rabbitmq.topology import DELIVERY_LIMIT

if TYPE_CHECKING:
    from coordinator.runtime.ingress_settings import IngressSettings

INGRESS_PREFIX: Final = "ingress."


def ingress_name(account: str) -> str:
    """Its exchange, and its queue."""
    return f"{INGRESS_PREFIX}{account}"


def ingress_queue_arguments(settings: "IngressSettings") -> dict[str, str | int | bool]:
    """The arguments with which its queue is declared; RabbitMQ refuses a redeclaration with others."""
    return {
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
        "x-overflow": "reject-publish",
        "x-max-length": settings.queue_messages_max,
        "x-max-length-bytes": settings.queue_bytes_max,
        "x-delivery-limit": DELIVERY_LIMIT,
    }
