"""A lane's knowledge under its lease, which it need not read again for each transaction."""

from collections.abc import Container, Sequence
from datetime import datetime

from coordinator.lane.basis import Basis
from coordinator.lane.committed import series_in
from coordinator.lane.dead_letters import DeadLetters
from coordinator.lane.forgetting import Forgetting
from coordinator.lane.handler_work import HandlerWork, ReadingWork
from coordinator.lane.high_water import SERIES_MAX, HighWater
from coordinator.lane.newer import announcement_refs
from coordinator.lane.orders import Orders
from coordinator.lane.outbox import Outbox
from coordinator.lane.parking import Parking, prepared
from coordinator.lane.publisher_order import PublisherOrder
from coordinator.lane.publisher_progress import PublisherProgress
from coordinator.lane.reading import Named, letter_refs, named_rows
from coordinator.lane.request import Handlers, Request
from coordinator.lane.results import Results
from coordinator.lane.subjects import Subjects
from coordinator.lane.tenancy import Clock
from coordinator.lane.unit_of_work import BatchWork
from coordinator.protocol.fingerprints import UNKEYED, Fingerprints
from coordinator.runtime.settings import LaneSettings
from coordinator.service.rows import R, key_of
from coordinator.service.service import Service
from coordinator.service.targets import Targets
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.lane_tables import (
    Cancellation,
    LogEntry,
    ParkedCommand,
    PublisherPosition,
    Series,
)
from coordinator.stores.port import Changes, Lease, Read, Transaction
from coordinator.stores.row_checks import RowChecks

PAGE_ROWS = 5000
"""How many rows are read at a time. All are read, however many pages that takes."""


class Knowledge:
    """The orders of operators, the parked commands, and how far series and publishers are."""

    def __init__(
        self,
        service: Service,
        clock: Clock,
        settings: LaneSettings,
        handlers: Handlers,
        targets: Targets,
        order: PublisherOrder,
        high_water: HighWater,
        outbox: Outbox,
    ) -> None:
        self._name = service.lane
        self._clock = clock
        self._settings = settings
        self._handlers = handlers
        self._targets = targets
        self._order = order
        self._high_water = high_water
        self._outbox = outbox
        self.checks = RowChecks(service)
        self._results = Results(service.lane, service.handlers)
        self._subjects = Subjects(service)
        self._cancelled: dict[str, Cancellation] = {}
        self._parking = Parking()
        self._series: dict[str, Series] = {}
        self.fingerprints = UNKEYED
        """Those of the lane, by the keys that its database had then."""

    def read(self, transaction: Transaction) -> None:
        """Read the rows that other consumers, or this consumer's own uncertain commits, have left."""
        cancelled = _all(transaction, Cancellation)
        self._parking = Parking(_all(transaction, ParkedCommand))
        self._cancelled = {cancellation.command_id: cancellation for cancellation in cancelled}
        self.fingerprints = Fingerprints({key.id: key.secret for key in _all(transaction, FingerprintKey)})
        self._series = {}
        self._learn_series(transaction)

    def _learn_series(self, transaction: Transaction) -> None:
        """Learn the ids that are given out: if the database loses them later, the next mark must have them.

        The marks of before may lack them: none was kept yet, or it was removed with its queue.
        """
        found = transaction.scan(Series, SERIES_MAX + 1)
        are_all = len(found) <= SERIES_MAX
        if not are_all and (names := self._high_water.series_names):
            (known,) = transaction.load([Read(Series, Series.key, names)])
            found += known
        self._high_water.found(found, are_all=are_all)

    @property
    def parked_keys(self) -> int:
        """How many keys wait behind a failed command."""
        return self._parking.keys_waiting

    @property
    def parked_commands(self) -> int:
        """How many commands wait for such a key."""
        return self._parking.waiting.commands

    @property
    def parked_since(self) -> datetime | None:
        """When the first of these keys was parked; None: no key waits."""
        return self._parking.since

    def is_waiting(self, command_id: str) -> bool:
        """Whether a command with this id waits for such a key."""
        row = self._parking.rows.get(command_id)
        return row is not None and row.error_code is None

    @property
    def cancelled(self) -> Container[str | None]:
        """The ids of the commands that an operator has cancelled."""
        return self._cancelled

    @property
    def has_parked(self) -> bool:
        """Whether any command is parked."""
        return bool(self._parking.rows)

    @property
    def has_ready(self) -> bool:
        """Whether there are commands that no longer need to wait for their key."""
        return bool(self._parking.ready())

    def ready(self, commands_max: int) -> list[Request]:
        """The first of them, in order."""
        rows = self._parking.ready()[:commands_max]
        return [prepared(row, self._handlers, self._targets, self._cancelled, self.fingerprints) for row in rows]

    def basis(
        self, transaction: Transaction, lease: Lease, requests: Sequence[Request], culprits: int = 0, spared: int = 0
    ) -> tuple[Basis, list[Named]]:
        """The basis on which requests are settled, once the rows are read that are returned with it."""
        work = BatchWork(transaction, self._clock(), self._targets, self.checks, self.fingerprints.first_secret)
        for series in self._series.values():
            work.adopt(Series, series.name, series)
        progress = PublisherProgress(work, self._order, [request.message for request in requests])
        named, misread = named_rows(requests[culprits:], self.checks)
        parking = self._parking.copy()
        letters = DeadLetters(work, self._name, self._settings.nameless_dead_max, self._settings.senders_dead_bytes_max)
        known: dict[str, LogEntry] = {}
        basis = Basis(
            work=work,
            handlers_work=HandlerWork(work, self._results),
            reading_work=ReadingWork(work),
            lease=lease,
            known=known,
            cancelled=self._cancelled,
            parking=parking,
            letters=letters,
            orders=Orders(
                work,
                parking,
                letters,
                self._handlers,
                self._settings.message_bytes_max,
                Forgetting(work, parking, self._subjects, self._handlers, self._name, known, letters),
                self._outbox,
            ),
            subjects=self._subjects,
            results=self._results,
            progress=progress,
            fingerprints=self.fingerprints,
            parked_max=self._settings.parked_max,
            parked_bytes_max=self._settings.parked_bytes_max,
            misread={culprits + place: text for place, text in misread.items()},
            spared=spared,
        )
        return basis, [*progress.refs, *letter_refs(requests, self._name), *announcement_refs(requests), *named]

    def committed(self, basis: Basis, positions: Sequence[PublisherPosition], changes: Changes) -> None:
        """A transaction is committed: its knowledge becomes the lane's."""
        self._order.advanced(positions, basis.progress.refused())
        self._parking = basis.parking
        written = series_in(changes)
        self._series.update(written)
        self._high_water.given_out(written.values())


def _all(transaction: Transaction, model: type[R]) -> list[R]:
    """Every row of a model; the lane would forget a row that was left out."""
    rows: list[R] = []
    while True:
        page = transaction.scan(model, PAGE_ROWS, key_of(rows[-1]) if rows else None)
        rows += page
        if len(page) < PAGE_ROWS:
            return rows
