"""For those who write a store, a cache or a transport: what the lane asks of them."""

from coordinator.client.command_log import Asked, CommandLog
from coordinator.client.writes import Writes
from coordinator.service.service import LeaseProof, Projection
from coordinator.stores.port import (
    Backlog,
    BatchFault,
    BatchRefused,
    Changes,
    Conflict,
    Fenced,
    Lease,
    Read,
    Refusal,
    Store,
    StoreError,
    StoreUnavailable,
    Transaction,
)
from coordinator.transports.inbox import Inbox
from coordinator.transports.port import BrokerTransport, CommandTransport, EffectTransport, LaneTransport, Transport

__all__ = (
    "Store",
    "Transaction",
    "Lease",
    "Changes",
    "Read",
    "Backlog",
    "StoreError",
    "StoreUnavailable",
    "Fenced",
    "Conflict",
    "Refusal",
    "BatchFault",
    "BatchRefused",
    "Projection",
    "LeaseProof",
    "Writes",
    "CommandLog",
    "Asked",
    "Transport",
    "LaneTransport",
    "BrokerTransport",
    "CommandTransport",
    "EffectTransport",
    "Inbox",
)
