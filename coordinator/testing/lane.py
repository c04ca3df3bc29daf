"""The lane of a service, to try its handlers on: one command after the other, without a broker."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from coordinator.lane.delivery import Delivery, Deposed, Settlement, Suspension
from coordinator.lane.lane import Lane
from coordinator.lane.outbox import message_of
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import targets_of
from coordinator.runtime.settings import LaneSettings
from coordinator.service.authors_code import authors_line
from coordinator.service.commands import Command
from coordinator.service.continuation import is_continuation
from coordinator.service.ids import continuation_command_id, new_command_id
from coordinator.service.options import Origin
from coordinator.service.outcome import Outcome
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.service.principal import Principal
from coordinator.service.rows import Key, R, Row, key_of
from coordinator.service.service import Service
from coordinator.service.targets import Targets
from coordinator.service.unhandled import how_to_handle
from coordinator.stores.lane_tables import LANE_MODELS, DeadLetter, OutboxEntry, Timer
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.port import Changes, Lease, Store
from coordinator.stores.row_checks import RowChecks
from coordinator.stores.row_defects import check_declaration
from coordinator.testing.known_targets import known_targets
from coordinator.testing.older import Older
from coordinator.testing.older import message_of as sent_as
from coordinator.testing.outside import Outside

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
"""When a lane under test begins, unless it is told otherwise."""
DELIVERED_MAX: Final = 1000
"""So many commands that come of one another are taken for an endless flow."""
T = TypeVar("T")


class Emitted(Struct, frozen=True):
    """A command that a handler emitted, or the outcome that a command continues with. `target`: whose it is.

    `at`: when it is due, if it is a timer.
    """

    target: str
    type: str
    arguments: dict[str, Any]
    at: datetime | None = None


class Tried(Struct, frozen=True):
    """What became of a command. Its repr tells it, so that `assert tried.applied` says what there is instead."""

    outcome: Outcome
    emitted: list[Emitted]
    reason: str | None = None
    """Of a failure: what its dead letter says, and at which line of the author's code it was. The outcome does not show
    an exception's text."""

    def __repr__(self) -> str:
        outcome, error = self.outcome, self.outcome.error
        if error is None:
            return f"<{outcome.type} {outcome.status}: {bytes(outcome.result).decode()}>"
        return f'<{outcome.type} {outcome.status} with "{error.code}": {self.reason or error.message}>'

    @property
    def applied(self) -> bool:
        """Whether it took effect, now or when it came before."""
        return self.outcome.status == "applied"

    @property
    def code(self) -> str | None:
        """Why it took none; None: it did."""
        return None if self.outcome.error is None else self.outcome.error.code

    def rejected_with(self, code: str) -> bool:
        """Whether its handler refused it with this code."""
        return (self.outcome.status, self.code) == ("rejected", code)

    def failed_with(self, code: str) -> bool:
        """Whether it failed with this code, and is a dead letter; `handler_error` is an exception of the handler's."""
        return (self.outcome.status, self.code) == ("failed", code)

    def result(self, model: type[T]) -> T:
        """What the handler returned, as a `model`.

        Raises AssertionError for a command that was not applied, which says why, and msgspec.ValidationError.
        """
        if self.outcome.error is not None:
            raise AssertionError(f"it has no result: {self!r}")
        return msgspec.json.decode(self.outcome.result, type=model)


def reason_of(letter: DeadLetter) -> str:
    """What a dead letter says, with the line of the author's code that raised the error, if one did."""
    place = authors_line(letter.traceback)
    return letter.reason if place is None else f"{letter.reason} ({place})"


class _Side(Struct, frozen=True):
    """What a delivery wants of each lane that takes part in it."""

    lane: "LaneUnderTest"
    undelivered: deque[OutboxEntry]
    fire: Callable[[], bool]
    """Put what is due, timers and calls to be made again, among what is undelivered; whether there was any."""
    apply: Callable[[CommandMessage], Tried]
    first_due: Callable[[], datetime | None]


class LaneUnderTest:
    """The lane of one service, on a store: `LaneInMemory`, or on a real database (`--lane-database`).

    `now` is what handlers see as the time, and may be set. `emitted` has the commands and effects that were emitted so
    far, and `outside` stands in for the other side of the effects. `beside` has other lanes take what is for them.

    A handler may emit to the lanes of the application that has the service: that of COORDINATOR_APP, or of the
    installed packages. Where none has it, as in a test that declares its own service, any lane is taken, also one that
    no application will have. Lanes that stand `beside` one another know each other in either case. Effects of the
    service are taken only if it has `effects=`: without it they would be refused where it runs.

    Raises ConfigurationError, which names every defect, for a service that is declared wrongly.
    """

    def __init__(self, service: Service, store: Store, *, now: datetime = NOW) -> None:
        check_declaration(service)
        self.now = now
        self.emitted: list[Emitted] = []
        self.outside = Outside()
        self._service = service
        self._store = store
        self._tags = 0
        self._undelivered: deque[OutboxEntry] = deque()
        self._again: list[tuple[datetime, OutboxEntry]] = []
        self._sides = {service.lane: _Side(self, self._undelivered, self._fire, self._apply, self._first_due)}
        targets = known_targets(service)
        self._targets = None if targets is None else set(targets)
        emitting = Targets(service.lane, self._targets, has_effects=service.effects is not None)
        self._lane = Lane(service, store, lambda: self.now, "test", LaneSettings(), lambda: 0.0, emitting)

    def given(self, *rows: Row) -> None:
        """Have these rows in the database, before the first command or between two.

        Raises ValueError for one that is not of the service, InvalidRow for one that its database would not take, and
        BatchFault for one that is there already.
        """
        checks = RowChecks(self._service)
        kept = []
        for row in rows:
            if type(row) not in self._service.models:
                raise ValueError(f"{type(row).__name__} is no model of service {self._service.name}")
            kept.append(checks.of(type(row)).new(row))
        lease = self._store.current() or Lease(0, 0, 0, None)
        # A lane keeps nothing of these rows from one transaction to the next.
        transaction = self._store.begin()
        try:
            transaction.commit(lease, lease.sequence, Changes([], [], [[row] for row in kept]))
        except BaseException:
            transaction.rollback()
            raise

    def apply(
        self,
        command: Command | Older,
        *,
        command_id: str | None = None,
        expected_version: int | None = None,
        deadline: datetime | None = None,
        continuation: str | None = None,
        origin: Origin | None = None,
        actor: Principal | None = None,
    ) -> Tried:
        """Apply one command, alone in its batch; an `Older` one has arguments of an older version.

        With a `command_id` that was used before it is a repetition. With an `actor` it is as if he had
        asked a gateway for it: it has the origin `public`, and `allow` is asked. Without one it is the system's own,
        unless `origin` says something else. A continuation is as a lane makes it: its id has that form. Raises
        RuntimeError for one that has no outcome: it blocks the lane, or waits behind one that failed with its key.
        """
        if actor is not None and not isinstance(actor, Principal):
            raise TypeError(f"the actor must be a Principal, such as Principal(subject='ada'), not {actor!r:.100}")
        if not isinstance(command, Command | Older):
            raise TypeError(f"apply takes a command, such as BookSeat(id=1), and was given {command!r:.100}")
        tried = self._apply(
            sent_as(
                command,
                command_id or _id_of(command),
                origin or ("system" if actor is None else "public"),
                expected_version=expected_version,
                deadline_ms=None if deadline is None else int(deadline.timestamp() * 1000),
                continuation=continuation,
                actor=actor,
            )
        )
        if tried.code != "unknown_command_type":
            return tried
        declared = command.command if isinstance(command, Older) else type(command)
        is_own = declared.lane() == self._service.name
        what = how_to_handle(self._service, declared) if is_own else f"it is for the lane {declared.lane()}"
        return msgspec.structs.replace(tried, reason=f"{tried.reason}: {what}")

    def beside(self, *others: "LaneUnderTest") -> None:
        """Have these lanes, of other services, take what is emitted to them: `deliver` and `advance` deliver to all.

        What comes of it comes back, so a saga is tried with the handlers of all its services. They have the time of
        this lane. Raises ValueError for a second lane of one service.
        """
        for other in others:
            for lane, side in other._sides.items():  # noqa: SLF001  # a lane as this one
                if lane in self._sides:
                    raise ValueError(f"there is a lane {lane} already")
                self._sides[lane] = side
        together = [side.lane for side in self._sides.values()]
        targets = targets_of([lane._service for lane in together])  # noqa: SLF001  # lanes as this one
        for lane_beside in together:
            lane_beside._meet(targets)  # noqa: SLF001

    def _meet(self, targets: Collection[str]) -> None:
        """These lanes and effects are there, too, whether or not the application has named them yet."""
        if self._targets is not None:
            self._targets.update(targets)

    def deliver(self) -> list[Tried]:
        """Deliver what was emitted, and what comes of that, until nothing is left; returns what became of it, in order.

        A command for this lane, or one `beside` it, is applied. An effect is called: `outside` answers, and the answer
        is applied. Commands for other lanes are only in `emitted`. Timers that are due at `now` are among what was
        emitted, and the others are not: set `now`, or `advance`. So it is with a call that was answered by an
        EffectRetry with `after_s`. Raises LookupError for an effect without an answer,
        and RuntimeError for commands that emit one another without end.
        """
        delivered: list[Tried] = []
        sides = self._sides.values()
        for each in sides:
            each.lane.now = self.now
        while (side := next((each for each in sides if each.fire() or each.undelivered), None)) is not None:
            entry = side.undelivered.popleft()
            if entry.lane in self._sides:
                delivered.append(self._sides[entry.lane].apply(message_of(entry)))
            elif entry.lane.startswith(EFFECTS_PREFIX):
                answer = side.lane.outside.call(entry)
                if isinstance(answer, timedelta):
                    side.lane._again.append((self.now + answer, entry))  # noqa: SLF001  # a lane as this one
                else:
                    delivered.append(side.lane.apply(answer))
            if len(delivered) > DELIVERED_MAX:
                raise RuntimeError(f"more than {DELIVERED_MAX} commands come of one another, the last a {entry.type}")
        return delivered

    def advance(self, by: timedelta) -> list[Tried]:
        """Let this much time pass, and deliver what is due by then: timers and calls, each at its time, in order."""
        until = self.now + by
        delivered = self.deliver()
        while (due := self._next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            delivered += self.deliver()
        self.now = until
        return delivered

    def _next_due(self) -> datetime | None:
        """When the first timer, or call, of any of the lanes is due."""
        return min((due for side in self._sides.values() if (due := side.first_due()) is not None), default=None)

    def _first_due(self) -> datetime | None:
        dues = [due for due, _ in self._again]
        return min((*dues, *(timer.due_at for timer in self._scan(Timer, 1))), default=None)

    def _fire(self) -> bool:
        """Put the timers, and the calls, that are due behind what was emitted before; whether there were any."""
        calls = [entry for due, entry in sorted(self._again, key=lambda each: each[0]) if due <= self.now]
        self._undelivered += calls
        self._again = [each for each in self._again if each[0] > self.now]
        fired = bool(calls)
        while self._lane.timers_in_s(1) is not None and isinstance(decision := self._lane.sweep(1), Settlement):
            self._undelivered += decision.emitted
            self._lane.confirm(decision.emitted)
            fired = True
        return fired

    def _apply(self, message: CommandMessage) -> Tried:
        self._tags += 1
        decision = self._lane.apply([Delivery(tag=self._tags, commands=(message,), reply_to="test")], 1)
        if isinstance(decision, Suspension | Deposed):
            reason = decision.reason if isinstance(decision, Suspension) else "it is somebody else's"
            raise RuntimeError(f"the lane does not go on: {reason}")  # noqa: TRY004  # the command is no wrong type
        self._undelivered += decision.emitted
        self._lane.confirm(decision.emitted)
        emitted = [
            Emitted(entry.lane, entry.type, msgspec.json.decode(entry.arguments, type=dict[str, Any]))
            for entry in decision.emitted
        ]
        emitted += [
            Emitted(timer.lane, timer.type, msgspec.json.decode(timer.arguments, type=dict[str, Any]), timer.due_at)
            for timer in decision.timers
        ]
        self.emitted += emitted
        if not decision.outcomes:
            raise RuntimeError(f"{message.type} waits behind a command that failed, for its key (`park-key`)")
        return Tried(decision.outcomes[0], emitted, next(map(reason_of, decision.dead_letters), None))

    def rows(self, model: type[R]) -> Sequence[R]:
        """All rows of a model, in order of their keys. The lane's own models are among those that may be asked for."""
        if model not in (*self._service.models, *LANE_MODELS):
            raise ValueError(f"{model.__name__} is no model of service {self._service.name}")
        return self._scan(model, 1 << 30)

    def row(self, model: type[R], key: Key) -> R | None:
        """The row with this key."""
        return next((row for row in self.rows(model) if key_of(row) == key), None)

    def failures(self) -> list[str]:
        """What has failed of this lane and of those `beside` it, a line each: the command, why, and where.

        A test that fails shows them, if its lane is the fixture `lane`: what `deliver` and `advance` bring may fail.
        """
        lanes = [side.lane for side in self._sides.values()]
        return [f"{letter.type}: {reason_of(letter)}" for each in lanes for letter in each.rows(DeadLetter)]

    def _scan(self, model: type[R], limit: int) -> Sequence[R]:
        transaction = self._store.begin()
        try:
            return transaction.scan(model, limit)
        finally:
            transaction.rollback()


def _id_of(command: Command | Older) -> str:
    """A new id, as commands of this class have."""
    declared = command.command if isinstance(command, Older) else type(command)
    return continuation_command_id(new_command_id()) if is_continuation(declared) else new_command_id()


class LaneInMemory(LaneUnderTest):
    """The lane of one service, on a store in memory.

    Rows are checked as they are on every database: by the annotations of their models and the columns of their tables.
    What only a database refuses, such as a trigger or a check, it does not know.
    """

    def __init__(self, service: Service, *, now: datetime = NOW) -> None:
        super().__init__(service, MemoryStore(MemoryDatabase()), now=now)
