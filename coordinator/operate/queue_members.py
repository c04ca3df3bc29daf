"""On which nodes of a cluster of RabbitMQ a lane's queue is. AMQP does not say it; RabbitMQ's management does."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from coordinator.operate.told_by_management import management_of, told_as
from coordinator.runtime.settings import BrokerSettings
from coordinator.transports.rabbitmq.topology import queue_name


class QueueMembers(Struct, frozen=True, kw_only=True):
    """The members of a lane's queue, by their nodes. Without a majority online it takes and gives nothing."""

    leader: str | None
    members: list[str]
    online: list[str]
    has_majority: bool

    def __str__(self) -> str:
        state = "a majority" if self.has_majority else "NO MAJORITY"
        missing = ", ".join(sorted(set(self.members) - set(self.online)))
        away = f"; away: {missing}" if missing else ""
        return (
            f"led by {self.leader or 'none'}, {len(self.online)} of {len(self.members)} members online ({state}){away}"
        )


class _ToldMembers(Struct):
    """What the management says of them; it has none, or null, of a queue that it does not know yet."""

    leader: str | None = None
    members: list[str] | None = None
    online: list[str] | None = None


def members_of(kept: dict[str, Any]) -> QueueMembers:
    """What the management says of one queue. A queue of which it has no members yet has none.

    Raises ConfigurationError for what no RabbitMQ says.
    """
    told = told_as(kept, _ToldMembers)
    members, online = sorted(set(told.members or ())), sorted(set(told.online or ()))
    has_majority = len(online) * 2 > len(members)
    return QueueMembers(leader=told.leader, members=members, online=online, has_majority=has_majority)


def open_members(broker: BrokerSettings) -> Callable[[str], QueueMembers] | None:
    """What tells the members of a lane's queue; None where RABBITMQ_ADMIN_URL is not set, or it is no RabbitMQ.

    What is returned raises BrokerUnavailable, ConfigurationError.
    """
    managed = management_of(broker)
    if managed is None:
        return None
    server, vhost = managed
    return lambda lane: members_of(server.queue(vhost, queue_name(lane)))
