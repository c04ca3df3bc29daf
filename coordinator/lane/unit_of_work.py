"""The unit of work of a batch, in the form for the lane; `handler_work` has the form for handlers."""

from datetime import datetime

import msgspec

from coordinator.lane.audit import row_changes
from coordinator.lane.delivery import Arrival
from coordinator.lane.due_times import timer_id
from coordinator.lane.handing_on import handed_on
from coordinator.lane.selecting import SelectingMap
from coordinator.protocol.wire import BODY_BYTES_MAX
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.continuation import Deferred, Emission, continued
from coordinator.service.options import NO_OPTIONS, Options
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.service.principal import Principal
from coordinator.service.rows import R, Row, key_of
from coordinator.service.targets import ANYWHERE, Targets
from coordinator.stores.audit_tables import RowChange
from coordinator.stores.lane_tables import TIMERS_SERIES, TIMERS_WAITING, OutboxEntry, Series, Timer
from coordinator.stores.port import Changes, StoreUnavailable, Transaction
from coordinator.stores.row_checks import RowChecks

OUTBOX_SERIES = "outbox"
TIMERS_OF_ONE_MAX = 100
"""More timers of one command are not looked for: there are two at most, unless the log was pruned again and again."""


class BatchWork(SelectingMap):
    """The rows of a batch, the command that is being applied to them, and the emitted commands."""

    def __init__(
        self,
        transaction: Transaction,
        now: datetime,
        targets: Targets = ANYWHERE,
        checks: RowChecks | None = None,
        secret: bytes = b"",
    ) -> None:
        """`secret` is the lane's, for the ids of what commands emit."""
        super().__init__(transaction, checks)
        self.now = now
        self.secret = secret
        self.now_ms = round(now.timestamp() * 1000)
        self.command_id = ""
        self.command_type = ""
        self.continuation: Deferred | None = None
        """The continuation of the command that is being applied."""
        self.actor: Principal | None = None
        """Who asks for the command that is being applied."""
        self.traceparent: str | None = None
        self.tracestate: str | None = None
        """The trace of the command that is being applied, as it came: nobody has checked it."""
        self.is_deferred = False
        """Whether the command has put it off."""
        self.emitted = 0
        """How many commands the command has emitted."""
        self.arrival: Arrival | None = None
        self.delivered: str | None = None
        """The passage of a command of this arrival that has led to nothing."""
        self.children: list[str] = []
        """The commands and effects that the command has emitted, as its passage names them."""
        self.personal_emitted: list[str] = []
        """The ids of the timers and effects with personal data that the command has emitted."""
        self.audited = self.kinds.checks.audited
        """The models of which the rows that each command changes are written down."""
        self._row_changes: list[RowChange] = []
        self.targets = targets
        self._timer_ids: dict[str, list[str]] = {}
        """By the command that they are about: the timers that this batch has set, even if that was undone."""

    def begin_command(
        self,
        command_id: str,
        command_type: str,
        continuation: Deferred | None = None,
        actor: Principal | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> None:
        """The changes that follow belong to this command, and `undo` takes them back."""
        self.command_id = command_id
        self.command_type = command_type
        self.continuation = continuation
        self.actor = actor
        self.traceparent = traceparent
        self.tracestate = tracestate
        self.is_deferred = False
        self.emitted = 0
        if self.children:
            self.children = []
        if self.personal_emitted:
            self.personal_emitted = []
        self._journal.clear()

    def options_of_emitted(self, version: int | None) -> Options:
        """Those of a command that the command emits: who asked for the one asks for the other, in the same trace."""
        traceparent, tracestate = handed_on(self.command_id, self.traceparent, self.tracestate)
        if version is None and self.actor is None and traceparent is None:
            return NO_OPTIONS
        return Options(command_version=version, actor=self.actor, traceparent=traceparent, tracestate=tracestate)

    def audit_command(self, sequence: int) -> None:
        """The command is applied, with this sequence: write down which audited rows it has changed."""
        self._row_changes += row_changes(sequence, self.changed(self.audited))

    def changes(self) -> Changes:
        changes = super().changes()
        if not self._row_changes:
            return changes
        return msgspec.structs.replace(changes, inserts=[*changes.inserts, self._row_changes])

    def next_id(self, of: str | type[Row]) -> int:
        """The next number of a series: that of a class of rows, or one with a name of its own."""
        name = of if isinstance(of, str) else of.table
        before = self.get(Series, name)
        if before is None:
            first = 1 if isinstance(of, str) else self._first_id(of)
            self.add(Series(name=name, value=first))
            return first
        value = before.value + 1
        self.replace(Series(name=name, value=value))
        return value

    def _first_id(self, model: type[Row]) -> int:
        """The number above the rows that are there, from wherever they came. Read once: then there is a series.

        Raises TypeError for a model whose rows have no numbers for keys, ValueError where there is no higher number.
        """
        if not self.kinds[model].check.has_number_key:
            raise TypeError(f"next_id({model.__name__}): its key is no int, so give the series a name: next_id('…')")
        largest = self.last_number(model) or 0
        if largest >= INTEGER_MAX:
            raise ValueError(f"next_id({model.__name__}): there is a row {largest}, and no id is above {INTEGER_MAX}")
        first: int = max(largest, 0) + 1
        return first

    def add_numbered(self, row: R) -> R:
        """Add a row of the lane's own under the next number of its series.

        Raises StoreUnavailable if that row exists: another consumer has written it, since a lane knows its own rows.
        """
        there = self.known(row)
        if there is not None:
            text = f"{row.table} has a row {key_of(row)!r} that this consumer did not write"
            # Whatever a handler does with the error.
            self.interruption = StoreUnavailable(text)
            raise self.interruption
        return self.add(row)

    def send_out(self, emission: Emission) -> None:
        """Put a command into the outbox. Raises ValueError for an unknown target, InvalidRow if it does not fit."""
        entry = self._entry_of(emission)
        self.add_numbered(msgspec.structs.replace(entry, id=self.next_id(OUTBOX_SERIES)))

    def set_timer(self, emission: Emission, due_at: datetime, about: str) -> None:
        """Have a command put into the outbox once it is due, unless it is taken back with the command that it is
        `about`. Raises as `send_out` does."""
        entry = self._entry_of(emission)
        timer = Timer(
            id=timer_id(due_at, self.next_id(TIMERS_SERIES)),
            due_at=due_at,
            about=about,
            lane=entry.lane,
            command_id=entry.command_id,
            type=entry.type,
            arguments=entry.arguments,
            set_at=self.now,
            continuation=entry.continuation,
            options=entry.options,
        )
        self._timer_ids.setdefault(about, []).append(timer.id)
        self.add_numbered(timer)
        self._count_timers(1)

    def take_back(self, about: str) -> list[Timer]:
        """Remove the timers that are about a command, and return them. Those that were due are in the outbox."""
        set_here = self._timer_ids.get(about, ())
        stored = self.keys_of(Timer, "about", about, TIMERS_OF_ONE_MAX)
        found = [timer for key in dict.fromkeys((*stored, *set_here)) if (timer := self.get(Timer, key)) is not None]
        for timer in found:
            self.remove_timer(timer)
        return found

    def remove_timer(self, timer: Timer) -> None:
        """Take one back."""
        self.remove(timer)
        self._count_timers(-1)

    def fire(self, timer: Timer) -> None:
        """Make an outbox entry of a timer that the database has."""
        self.drop(timer)
        self._count_timers(-1)
        self.add_numbered(
            OutboxEntry(
                id=self.next_id(OUTBOX_SERIES),
                lane=timer.lane,
                command_id=timer.command_id,
                type=timer.type,
                arguments=timer.arguments,
                created_at=self.now,
                continuation=timer.continuation,
                options=timer.options,
            )
        )

    def _count_timers(self, change: int) -> None:
        before = self.get(Series, TIMERS_WAITING)
        if before is None:
            self.add(Series(name=TIMERS_WAITING, value=max(0, change)))
        else:
            self.replace(Series(name=TIMERS_WAITING, value=max(0, before.value + change)))

    def check_continuation(self, deferred: Deferred) -> None:
        """Raises ValueError for a continuation that the outbox can never take."""
        entry = self._entry_of(continued(deferred, "applied", None, None))
        self.targets.check_answer(entry.type, entry.lane)

    def _entry_of(self, emission: Emission) -> OutboxEntry:
        """The entry, checked before it takes a number."""
        lane = self.targets.of(emission.lane)
        self.targets.check(emission.type, lane)
        if len(emission.arguments) > BODY_BYTES_MAX:
            # No lane takes it; and if the broker does not take it either, it would hold up the commands behind it.
            text = f"its arguments have {len(emission.arguments)} bytes; at most {BODY_BYTES_MAX} can be sent"
            raise ValueError(f"{emission.type}: {text}")
        options = emission.options
        if lane.startswith(EFFECTS_PREFIX):
            # Of it the ids of results are made (coordinator/effects/attempts.py).
            options = msgspec.structs.replace(options, result_of=f"{self.command_type} {self.command_id}")
        entry = OutboxEntry(
            id=1,
            lane=lane,
            command_id=emission.command_id,
            type=emission.type,
            arguments=emission.arguments,
            created_at=self.now,
            continuation=emission.continuation,
            options=None if options is NO_OPTIONS else options.encode(),
        )
        self.check_new(entry)
        return entry
