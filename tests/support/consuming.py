"""A lane's consumer, for the contract of transports: takes from an inbox, and settles everything as applied."""

import asyncio
from collections.abc import Sequence

from coordinator.lane.delivery import Delivery, Reply, Settlement
from coordinator.lane.high_water import Mark
from coordinator.service.outcome import Outcome
from coordinator.transports.inbox import Inbox


def settlement(deliveries: Sequence[Delivery]) -> Settlement:
    """Each command is applied."""
    outcomes = {
        delivery.tag: [
            Outcome(command_id=message.command_id, type=message.type, status="applied", sequence=place)
            for place, message in enumerate(delivery.commands, 1)
        ]
        for delivery in deliveries
    }
    replies = [
        Reply(delivery.reply_to, delivery.correlation_id, delivery.reply_packs, outcomes[delivery.tag])
        for delivery in deliveries
        if delivery.reply_to is not None
    ]
    return Settlement(
        tags=[delivery.tag for delivery in deliveries],
        outcomes=[outcome for each in outcomes.values() for outcome in each],
        replies=replies,
    )


class InboxConsuming:
    """Takes deliveries from the inbox that a transport fills."""

    def __init__(self) -> None:
        self.inbox = Inbox()

    @property
    def channel(self) -> int:
        return self.inbox.channel_number

    @property
    def mark(self) -> Mark | None:
        return self.inbox.take_mark()

    @property
    def has_any(self) -> bool:
        return bool(self.inbox._deliveries or self.inbox._undecoded)

    async def take(self, count: int) -> list[Delivery]:
        """So many deliveries, once they are there, one after the other."""
        taken: list[Delivery] = []
        while len(taken) < count:
            _, deliveries = await asyncio.to_thread(self.inbox.take, 1, 1, 0.5)
            taken += deliveries
        return taken
