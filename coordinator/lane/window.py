"""The commands that a lane is applying, and what it has found out about them: as many as one transaction takes.

The window's knowledge of the log and of culprits holds as long as the lease does: a lane that has to renew the lease
begins the window again.
"""

from collections.abc import Sequence

from msgspec import structs

from coordinator.lane.basis import BARE
from coordinator.lane.pieces import CARRIED_MAX, Pieces
from coordinator.lane.request import Request
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.port import BatchFault, BatchRefused, Refusal, StoreUnavailable

BATCH_TRIES_MAX = 3
"""How often a batch that is refused for an uncertain reason is tried, before it is halved."""
COMMAND_TRIES_MAX = 5
"""How often the first command that is refused alone is tried, before it is called the culprit."""
BATCH_CONFLICTS_MAX = 20
"""How often a batch that conflicts is tried, before it is halved: ordinary conflicts are over by then."""
PIECE_CONFLICTS_MAX = 3
"""How often a part of a batch that conflicts is tried. If it is halved without need, it is applied all the same."""
COMMAND_CONFLICTS_S = 60.0
"""How long a command that conflicts alone is tried, at least `BATCH_CONFLICTS_MAX` times, before it is the culprit."""
FIRST_CONFLICTS_S = 300.0
"""The same for a command before which nothing was applied: somebody may have locked everything."""
WINDOWS_BEFORE_LARGER = 64
FIRST_COMMANDS = 64
"""How many commands the first transaction takes when nobody knows how long the database needs: about 0.3 s on the
slowest one."""


class Window:
    """Requests that are applied next, in their order."""

    def __init__(self, requests: Sequence[Request] = (), *, first: int | None = None) -> None:
        self.requests = requests
        self.known: dict[str, LogEntry] | None = None
        """The log's entries of their ids, once it was asked."""
        self.repeats = False
        """Whether it had any of them."""
        self.spared = 0
        """See `Basis.spared`."""
        self._pieces = Pieces(len(requests), first=first)
        self._culprits: list[Refusal] = []
        self._is_to_record = False
        self._tries = 0
        self._conflicts = 0
        self._in_conflict_since_s = 0.0
        self._has_applied = False
        self._is_certain = True
        self._none_was_taken = False

    def begun_again(self) -> "Window":
        """A new window for the unsettled commands. Nothing is known of them: they may even be committed."""
        pending = [structs.replace(request, redelivered=True) for request in self.pending]
        again = Window(pending, first=FIRST_COMMANDS)
        again._none_was_taken = self._none_was_taken
        return again

    @property
    def is_done(self) -> bool:
        """Whether all of them are settled."""
        return self._pieces.is_done

    @property
    def is_whole(self) -> bool:
        """Whether no transaction was refused."""
        return self._pieces.is_whole

    @property
    def pending(self) -> Sequence[Request]:
        """The unsettled requests."""
        return self.requests[len(self.requests) - self._pieces.left - self._pieces.carried :]

    def size(self) -> int:
        """How many to try in the next transaction, beside the culprits that it is to record."""
        is_full = self._pieces.carried >= CARRIED_MAX and self._is_certain
        return self._pieces.size(records_first=self._is_to_record or is_full)

    def piece(self, size: int) -> tuple[Sequence[Request], Sequence[Refusal]]:
        """The requests of that transaction, and the refusals of the culprits, which are the first of them.

        Raises StoreUnavailable if it could only record that every command was refused for an uncertain reason.
        """
        if not size and not (self._is_certain or self._has_applied) and len(self.requests) > 1:
            self._none_was_taken = True
            text = f"none of {len(self.requests)} commands is taken, from {named(self.requests[0])} on"
            raise StoreUnavailable(f"{text}: {self._culprits[0]}")
        return self.pending[: self._pieces.carried + size], self._culprits

    def committed(self, size: int) -> None:
        """That transaction is committed."""
        self._pieces.committed(size)
        self._has_applied = self._has_applied or size > 0
        self._culprits = []
        self._is_to_record = False
        self.spared = 0
        self._tries = self._conflicts = 0

    def refused(self, size: int, refusal: Refusal) -> None:
        """That transaction was refused. Raises StoreUnavailable if not even a bare failure can be recorded."""
        self._tries = self._conflicts = 0
        if size:
            is_certain = isinstance(refusal, BatchFault)
            if self._pieces.refused(size, is_certain=is_certain):
                self._culprits.append(refusal)
                self._is_certain = self._is_certain and is_certain
            return
        # The record of some failure is refused, so only the first culprit is certain to be one.
        self._is_to_record = True
        if len(self._culprits) > 1:
            self._culprits = self._culprits[:1]
            self._pieces.release()
        elif self.spared < BARE:
            self.spared += 1
        else:
            raise StoreUnavailable(f"the failure of {named(self.pending[0])} cannot be recorded: {refusal}")

    def is_worth_another_try(self, size: int, refusal: Refusal) -> bool:
        """Whether the same transaction is to be tried again, after a pause."""
        if not isinstance(refusal, BatchRefused) or not size or self._none_was_taken:
            return False
        if size > 1:
            tries_max = BATCH_TRIES_MAX if self.is_whole else 1
        else:
            tries_max = COMMAND_TRIES_MAX if self._is_certain else 1
        self._tries += 1
        return self._tries < tries_max

    def conflicts_for_ever(self, size: int, now_s: float) -> bool:
        """Whether the commands under trial have met so many conflicts that the others are to be tried without them.

        A row may be locked for ever, or a trigger may pretend that it is. A mere record of failures is tried for ever.
        """
        if not self._conflicts:
            self._in_conflict_since_s = now_s
        self._conflicts += 1
        if size > 1:
            return self._conflicts >= (BATCH_CONFLICTS_MAX if self.is_whole else PIECE_CONFLICTS_MAX)
        least_s = COMMAND_CONFLICTS_S if self._has_applied or self._culprits else FIRST_CONFLICTS_S
        return size > 0 and self._conflicts >= BATCH_CONFLICTS_MAX and now_s - self._in_conflict_since_s >= least_s

    def described(self, size: int) -> str:
        """The commands that are being tried, in words."""
        pending = self.pending[self._pieces.carried :]
        if not pending or not size:
            return "a record of failures"
        return named(pending[0]) if size == 1 else f"{size} commands, from {named(pending[0])} on,"


class WindowSize:
    """How many commands a window takes: fewer after a refusal that may be a time limit's, then gradually more again.

    The first window under a lease begins with few: what an outage left would keep its first commit and its first
    answers waiting where the database is slow.
    """

    def __init__(self, commands_max: int) -> None:
        self.commands_max = commands_max
        """The size for a lane whose transactions are never too large."""
        self._taken_whole = 0
        self.commands = commands_max
        self.first: int | None = FIRST_COMMANDS
        """How many of a window's commands the first transaction takes; None: all of them."""

    def begin(self) -> None:
        """The lane has a new lease, or one that was in doubt."""
        self.first = FIRST_COMMANDS

    def shrink(self, refused: int) -> None:
        """This many commands were refused."""
        self.commands = max(1, refused // 2)

    def taken(self, window: Window) -> None:
        """A whole window is settled: the size grows after enough commands without a refusal."""
        self.first = None
        if self.commands < self.commands_max:
            self._taken_whole = self._taken_whole + 1 if window.is_whole else 0
            if self._taken_whole >= WINDOWS_BEFORE_LARGER:
                self._taken_whole = 0
                self.commands = min(self.commands_max, 2 * self.commands)


def named(request: Request) -> str:
    """A command in words."""
    return f"command {request.message.command_id} ({request.message.type})"
