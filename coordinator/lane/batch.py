"""One batch: how far its requests are settled, and which of them go into the next settlement."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from coordinator.lane.basis import Fate
from coordinator.lane.committed import Committed
from coordinator.lane.delivery import Delivery, Reply, Settlement
from coordinator.lane.request import Request
from coordinator.lane.traced import traced_commands
from coordinator.lane.window import Window
from coordinator.runtime.recording import recorder
from coordinator.stores.lane_tables import OutboxEntry


class Batch:
    """Deliveries under way. Settlements take them out from the front; a window goes over their requests."""

    def __init__(self, deliveries: Iterable[Delivery], requests: list[Request]) -> None:
        self.deliveries = deque(deliveries)
        self.requests = requests
        self.committed = Committed()
        """Settled work that is not in a settlement yet."""
        self.window: Window | None = None
        self._begins_with_one = False
        self._in_settlements = 0
        self._held: list[int] = []
        """The tag that settlements hold back."""

    def open_window(self, ready: Sequence[Request], commands_max: int, first: int | None = None) -> Window | None:
        """The next commands to try; None: there are none. `ready` ones waited for their key: they go first.

        `first`: how many of them the first transaction takes.
        """
        start = self._settled_requests()
        requests = ready or self.requests[start : start + commands_max]
        if requests:
            self.window = Window(requests, first=1 if self._begins_with_one else first)
            self._begins_with_one = False
        return self.window

    def blocked(self) -> None:
        """A command blocks the lane: once the block is over it is tried alone."""
        self.window, self._begins_with_one = None, True

    def doubt(self) -> None:
        """The commands under way may be committed or not: the log is to be asked for them."""
        start = self._settled_requests()
        self.requests[start:] = [
            msgspec.structs.replace(request, redelivered=True) for request in self.requests[start:]
        ]
        if self.window is not None:
            self.window = self.window.begun_again()

    @property
    def is_settled(self) -> bool:
        """Whether every request that a delivery brought is."""
        return self.window is None and self._settled_requests() == len(self.requests)

    @property
    def has_news(self) -> bool:
        """Whether there is something for a settlement: a whole delivery, or a command that had waited."""
        committed = self.committed
        is_whole = bool(self.deliveries) and len(self.deliveries[0].commands) <= len(committed.fates)
        return is_whole or bool(committed.released)

    def settlement(
        self,
        tags_of: Callable[[Sequence[Delivery]], list[int]],
        emitted: list[OutboxEntry],
        *,
        is_last: bool,
        has_ready: bool,
    ) -> Settlement:
        """The work of the transactions since the last settlement, for whole deliveries.

        `has_ready`: commands that waited for their key are still to be applied. One delivery is not acknowledged before
        they are: a successor takes an idle lane over only for what is delivered to it.
        """
        committed = self.committed
        deliveries: Sequence[Delivery] = self.deliveries
        if not is_last:
            deliveries = whole_deliveries(self.deliveries, len(committed.fates))
            count = sum(len(delivery.commands) for delivery in deliveries)
            self._in_settlements += count
            self.committed = Committed(fates=committed.fates[count:])
        tags = [*self._held, *tags_of(deliveries)]
        self._held = tags[-1:] if has_ready else []
        return settlement_of(deliveries, committed, tags[: len(tags) - len(self._held)], emitted)

    def _settled_requests(self) -> int:
        return self._in_settlements + len(self.committed.fates)


def whole_deliveries(batch: deque[Delivery], commands: int) -> list[Delivery]:
    """Take the deliveries out of a batch that this number of settled commands completes."""
    complete = 0
    for delivery in batch:
        commands -= len(delivery.commands)
        if commands < 0:
            break
        complete += 1
    return [batch.popleft() for at in range(complete)]


def settlement_of(
    deliveries: Sequence[Delivery], committed: Committed, tags: list[int], emitted: list[OutboxEntry]
) -> Settlement:
    """Put the outcomes back together by delivery; `tags` are those to acknowledge, and `emitted` to be published."""
    fates = committed.fates
    replies: list[Reply] = []
    position = 0
    for delivery in deliveries:
        after = position + len(delivery.commands)
        if delivery.reply_to is not None:
            outcomes = [fate.outcome for fate in fates[position:after] if fate.outcome is not None]
            if outcomes:
                replies.append(Reply(delivery.reply_to, delivery.correlation_id, delivery.reply_packs, outcomes))
        position = after
    for request, fate in committed.released:
        if request.reply_to is not None and fate.outcome is not None:
            replies.append(Reply(request.reply_to, request.correlation_id, packed=False, outcomes=[fate.outcome]))
    everything: list[Fate] = [*fates[:position], *(fate for _, fate in committed.released)]
    return Settlement(
        tags=tags,
        outcomes=[fate.outcome for fate in everything if fate.outcome is not None],
        replies=replies,
        dead_letters=[fate.letter for fate in everything if fate.letter is not None],
        dropped=sum(fate.is_dropped for fate in everything),
        emitted=emitted,
        withdrawn=committed.withdrawn,
        timers=committed.timers,
        saved=committed.saved,
        removed=committed.removed,
        reviews=committed.reviews,
        bare_failures=[fate.bare for fate in everything if fate.bare is not None],
        traced=[] if recorder() is None else traced_commands(deliveries, fates[:position], committed.released),
    )
