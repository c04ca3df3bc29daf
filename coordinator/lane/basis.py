"""What is known when the commands of one transaction are settled, and the fate of each command."""

from collections.abc import Mapping

from msgspec import Struct

from coordinator.lane.dead_letters import DeadLetters
from coordinator.lane.delivery import BareFailure
from coordinator.lane.handler_work import HandlerWork, ReadingWork
from coordinator.lane.orders import Orders
from coordinator.lane.parking import Parking
from coordinator.lane.publisher_progress import PublisherProgress
from coordinator.lane.request import Request, is_same
from coordinator.lane.results import Results
from coordinator.lane.subjects import Subjects
from coordinator.lane.unit_of_work import BatchWork
from coordinator.protocol.fingerprints import Fingerprints
from coordinator.service.outcome import Outcome
from coordinator.stores.lane_tables import Cancellation, DeadLetter, LogEntry
from coordinator.stores.port import Lease

NO_FOLLOW_UP = 1
"""A failure is recorded without the command that it continues with."""
BARE = 2
"""A failure is recorded only as an entry of the log."""
ERROR_CHARACTERS_MAX = 2000


class Blocked(Exception):
    """Raised where an operator must act first: the lane is paused, or a command blocks it."""


class PausedByOperator(Blocked):
    """Raised where an operator has paused the lane."""


class HeldByMove(PausedByOperator):
    """Raised where whoever moves the lane to another database keeps it from committing for a moment."""


class Outdated(Blocked):
    """Raised where a process of a newer release must go on: only such a one knows a command's type, or its version."""


class Fate(Struct, frozen=True):
    """The end of one request within a transaction.

    `letter` is its dead letter, as it is in the database now; `is_dropped`: there was no room for the letter.
    `entry` is its new entry in the log. A request that waits for its key has no outcome yet. `block`: it stops the
    lane, and nothing of it is written. `bare` is a failure that has no letter, since the database refused that, too.
    `applied_ns`: when it was begun and settled, where spans are recorded.
    """

    outcome: Outcome | None
    letter: DeadLetter | None = None
    entry: LogEntry | None = None
    is_dropped: bool = False
    block: Blocked | None = None
    bare: BareFailure | None = None
    applied_ns: tuple[int, int] | None = None


class Basis(Struct, frozen=True):
    """What one transaction knows while its requests are settled, one after the other."""

    work: BatchWork
    handlers_work: HandlerWork
    reading_work: ReadingWork
    lease: Lease
    known: dict[str, LogEntry]
    """The log's entries of their ids; empty at first where they are assumed to be new."""
    cancelled: Mapping[str, Cancellation]
    parking: Parking
    letters: DeadLetters
    orders: Orders
    subjects: Subjects
    results: Results
    progress: PublisherProgress
    fingerprints: Fingerprints
    parked_max: int
    parked_bytes_max: int
    misread: Mapping[int, str] = {}
    """By place among the requests: the fault in what a handler's `reads` returned, or its error."""
    spared: int = 0
    """The parts of a failure that are left out, since the database refused them: see `NO_FOLLOW_UP`, `BARE`."""

    def is_same(self, fingerprint: str, request: Request) -> bool:
        """Whether a fingerprint that the database keeps is that of this request's command."""
        return is_same(self.fingerprints, fingerprint, request)
