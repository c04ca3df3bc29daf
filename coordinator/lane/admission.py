"""Which deliveries may be applied now, and which of their commands."""

from collections.abc import Container, Sequence

from coordinator.lane.batch import Batch
from coordinator.lane.delivery import Delivery
from coordinator.lane.publisher_order import PublisherOrder
from coordinator.lane.request import Handlers, prepare
from coordinator.lane.runs import Runs
from coordinator.protocol.fingerprints import UNKEYED, Fingerprints
from coordinator.service.targets import Targets
from coordinator.stores.lane_tables import PublisherPosition
from coordinator.stores.port import Read, Store


class Admission:
    """Takes deliveries apart, keeps back those that are early, and prepares the commands of the others."""

    def __init__(self, store: Store, order: PublisherOrder, handlers: Handlers, targets: Targets) -> None:
        self._store = store
        self._order = order
        self._handlers = handlers
        self._targets = targets
        self._runs = Runs()

    def forget(self) -> None:
        """Begin again: the broker delivers unacknowledged messages again."""
        self._order.forget()
        self._runs.forget()

    def batch(
        self,
        deliveries: Sequence[Delivery],
        now_s: float,
        cancelled: Container[str | None] = (),
        fingerprints: Fingerprints = UNKEYED,
    ) -> Batch:
        """The deliveries that come next for their publishers, earlier early ones included. Raises StoreError.

        `cancelled` has the ids of the cancelled commands.
        """
        runs = self._runs.of(deliveries)
        self._learn(self._order.unknown(runs))
        admitted = self._order.admit(runs, now_s)
        requests = [
            prepare(
                message,
                self._handlers,
                fingerprints,
                redelivered=delivery.redelivered,
                targets=self._targets,
                letter=delivery.letter,
                reply_to=delivery.reply_to,
                correlation_id=delivery.correlation_id,
                cancelled=cancelled,
                arrival=delivery.arrival,
                account=delivery.account,
            )
            for delivery in admitted
            for message in delivery.commands
        ]
        return Batch(admitted, requests)

    def completed(self, deliveries: Sequence[Delivery]) -> list[int]:
        """The tags of the deliveries of which every command is settled."""
        return self._runs.completed(deliveries)

    def _learn(self, publishers: Sequence[str]) -> None:
        """Read how far some publishers are."""
        if publishers:
            transaction = self._store.begin()
            try:
                (rows,) = transaction.load([Read(PublisherPosition, PublisherPosition.key, publishers)])
                self._order.learn(publishers, rows)
            finally:
                transaction.rollback()
