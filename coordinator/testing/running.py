"""Running a history: as processes of a lane do, with all that goes wrong, and plainly, one command after the other."""

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct

from coordinator.lane.delivery import Delivery, Deposed, Settlement, Suspension
from coordinator.lane.lane import Lane
from coordinator.lane.outbox import message_of
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import LaneSettings
from coordinator.service.rows import R, Row, RowSelection, key_of
from coordinator.service.service import Service
from coordinator.service.targets import Targets
from coordinator.stores.lane_tables import Cancellation, DeadLetter, LogEntry, OutboxEntry, ParkedCommand, Timer
from coordinator.stores.memory import MemoryDatabase, MemoryStore, MemoryTransaction
from coordinator.stores.port import Changes, Conflict, Lease, Read, StoreUnavailable, Transaction
from coordinator.testing.history import Fault, History, Sent, with_other_id
from coordinator.testing.known_targets import known_targets
from coordinator.testing.lane import NOW, reason_of
from coordinator.testing.older import message_of as sent_as

COMMANDS_MAX: Final = 500
"""So many commands of one history are taken for ones that emit one another without end."""
TIMER_ROUNDS_MAX: Final = 20
"""So often time goes on to the next timer after the last batch: handlers may set one after the other for ever."""
_ATTEMPTS_MAX: Final = 10_000


class Endless(Exception):
    """Raised for commands that emit one another without end, and for a lane that does not come to rest."""


class Change(Struct, frozen=True):
    """A row that a transaction has saved or removed, with the ids of the transaction's commands."""

    model: type[Row]
    key: str
    """As its repr shows it."""
    command_ids: tuple[str, ...]


class Move(Struct, frozen=True):
    """Timers were due at this time, before the command at this place in the order came."""

    place: int
    now: datetime


class Course(Struct, frozen=True):
    """What is applied one by one: every command once, in order, the times of timers, and of commands, by their ids."""

    order: list[CommandMessage]
    moves: list[Move]
    times: dict[str, datetime]

    def halves(self) -> "tuple[Course, Course]":
        """What is applied before a takeover in the middle, and what after it."""
        middle = len(self.order) // 2
        before, after = (
            [move for move in self.moves if (move.place < middle) is is_before] for is_before in (True, False)
        )
        return Course(self.order[:middle], before, self.times), Course(self.order[middle:], after, self.times)


class Ran(Struct, frozen=True):
    """What a history has come to. `emitters`: of what was emitted, the last command of the transaction, by ids.

    `emitted` has timers that still wait, too, with their time in the key.
    """

    order: list[CommandMessage]
    """Every command once, in the order of the queue."""
    rows: dict[type[Row], dict[Any, Row]]
    entries: dict[str, LogEntry]
    reasons: dict[str, str]
    """Of the dead letters of commands, by id."""
    emitted: dict[str, CommandMessage]
    emitters: dict[str, str]
    waiting: frozenset[str]
    """Those that wait for their key."""
    changes: list[Change]
    moves: list[Move]

    @property
    def course(self) -> Course:
        """The same, to be applied one by one."""
        times = {command_id: entry.settled_at for command_id, entry in self.entries.items()}
        return Course(self.order, self.moves, times)


class ProcessDied(BaseException):
    """No Exception: nothing of the process may live on."""


class _FaultyStore(MemoryStore):
    """The store of one process. `fault` strikes at its next commit, once."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.database)
        self.world = world

    def begin(self) -> Transaction:
        return _FaultyTransaction(self.world)


class _FaultyTransaction(MemoryTransaction):
    def __init__(self, world: "World") -> None:
        super().__init__(world.database)
        self._world = world

    def load(self, reads: Sequence[Read | RowSelection[Row]]) -> list[list[Any]]:
        self._world.lookups.extend(reads)
        return super().load(reads)

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        fault, self._world.fault = self._world.fault, None
        match fault:
            case "conflict":
                raise Conflict("simulated")
            case "crash before the commit":
                raise ProcessDied
            case "no answer, and no commit":
                raise StoreUnavailable("simulated")
            case "takeover by another process":
                self._world.take_over()
        super().commit(lease, sequence, changes)
        if fault == "crash after the commit":
            raise ProcessDied
        if fault == "no answer to a commit":
            raise StoreUnavailable("simulated")


class World:
    """One lane's database, queue and processes, one of which is the active consumer.

    `tick`: how far the clock goes on each time that a lane looks at it.
    """

    def __init__(self, service: Service, given: Sequence[Row], transaction_max: int, tick: timedelta) -> None:
        self.database = MemoryDatabase()
        self.fault: Fault | None = None
        self.lookups: list[Read | RowSelection[Row]] = []
        self.now = NOW
        self._settings = _settings(transaction_max)
        self._tick = tick
        self._order: dict[str, CommandMessage] = {}
        self._changes: list[Change] = []
        self._emitted: dict[str, OutboxEntry] = {}
        self._emitters: dict[str, str] = {}
        self._moves: list[Move] = []
        self._queue: dict[int, Delivery] = {}
        self._tags = self._processes = 0
        if given:
            MemoryStore(self.database).begin().commit(Lease(0, 0), 0, Changes([], [], [[row] for row in given]))
        self.have(service)

    def have(self, service: Service) -> None:
        """The processes have this service from now on; another one is active."""
        self._service = service
        self._targets = Targets(service.lane, known_targets(service), has_effects=service.effects is not None)
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to go on, which then says by `have` what it has as the service."""
        of_process = ("_service", "_targets", "_lane")
        return {name: value for name, value in self.__dict__.items() if name not in of_process}

    @property
    def count(self) -> int:
        """How many commands have come."""
        return len(self._order)

    def issue(self, *sent: CommandMessage) -> None:
        """Have these commands come together."""
        for message in sent:
            self._tags += 1
            self._queue[self._tags] = Delivery(tag=self._tags, commands=(message,))
            self._order.setdefault(message.command_id or "", message)
        if len(self._order) > COMMANDS_MAX:
            last = next(reversed(self._order.values()))
            raise Endless(f"more than {COMMANDS_MAX} commands come of one another, the last a {last.type}")
        self._work()

    def coming_back(self) -> list[CommandMessage]:
        """What the lane has emitted to itself, and has not come yet."""
        own = (entry for entry in self._emitted.values() if entry.lane == self._service.lane)
        return [message_of(entry) for entry in own if entry.command_id not in self._order]

    def fire(self) -> None:
        """Have the lane emit the timers that are due now, all at one time."""
        if not self._are_due():
            return
        tick, self._tick = self._tick, timedelta()
        self._moves.append(Move(len(self._order), self.now))
        for _ in range(_ATTEMPTS_MAX):
            lane = self._lane
            try:
                # A process takes the lane over when something is delivered to it, such as nothing.
                is_active = lane.has_lane(self._processes)
                decision = lane.sweep(self._processes) if is_active else lane.apply([], self._processes)
            except ProcessDied:
                self._start()
                continue
            if decision is not None:
                self._take(lane, decision)
            elif lane.lease is not None and not self._are_due():
                self._tick = tick
                return
        raise Endless("the lane does not emit what is due")

    def _are_due(self) -> bool:
        at = self.next_timer_at
        return at is not None and at <= self.now

    @property
    def next_timer_at(self) -> datetime | None:
        """When the first timer is due; None: none waits."""
        return min((timer.due_at for timer in self.database.tables[Timer].values()), default=None)

    def take_over(self) -> None:
        """Another process becomes the active consumer, and does all that there is to do."""
        self._start()
        self._work()

    def ran(self) -> Ran:
        """What it has come to."""
        tables = self.database.tables
        waiting = {
            f"{timer.command_id} at {timer.due_at}": CommandMessage(
                command_id=timer.command_id, type=timer.type, arguments=timer.arguments
            )
            for timer in tables[Timer].values()
        }
        return Ran(
            list(self._order.values()),
            {model: dict(tables[model]) for model in self._service.models},
            {entry.command_id: entry for entry in tables[LogEntry].values()},
            {letter.command_id: reason_of(letter) for letter in tables[DeadLetter].values()},
            {command_id: message_of(entry) for command_id, entry in self._emitted.items()} | waiting,
            self._emitters,
            frozenset(parked.command_id for parked in tables[ParkedCommand].values()),
            self._changes,
            self._moves,
        )

    def _start(self) -> None:
        """The broker delivers to a new process now, and what was not acknowledged comes again."""
        self._processes += 1
        name = f"process {self._processes}"
        store = _FaultyStore(self)
        self._lane = Lane(self._service, store, self._clock, name, self._settings, lambda: 0.0, self._targets)
        for tag, delivery in self._queue.items():
            self._queue[tag] = msgspec.structs.replace(delivery, redelivered=True)

    def _clock(self) -> datetime:
        self.now += self._tick
        return self.now

    def _work(self) -> None:
        """Have the active consumer settle all that is in the queue."""
        for _ in range(_ATTEMPTS_MAX):
            if not self._queue:
                return
            lane = self._lane
            try:
                self._take(lane, lane.apply(list(self._queue.values()), self._processes))
            except ProcessDied:
                self._start()
        raise Endless("the lane does not come to rest")

    def _take(self, lane: Lane, decision: Settlement | Suspension | Deposed) -> None:
        if isinstance(decision, Suspension) and decision.is_blocked:
            self._cancel(next(iter(self._queue.values())).commands[0])
        if not isinstance(decision, Settlement):
            return
        settled = tuple(self._queue.pop(tag).commands[0].command_id or "" for tag in decision.tags)
        for row in decision.saved:
            self._changes.append(Change(type(row), repr(key_of(row)), settled))
        for ref in decision.removed:
            self._changes.append(Change(ref.model, repr(ref.value), settled))
        for timer in decision.timers:
            self._emitters.setdefault(timer.command_id, settled[-1] if settled else "")
        for entry in decision.emitted:
            self._emitters.setdefault(entry.command_id, settled[-1] if settled else "")
        self._emitted.update((entry.command_id, entry) for entry in decision.emitted)
        lane.confirm(decision.emitted)

    def _cancel(self, message: CommandMessage) -> None:
        """An operator cancels the command that blocks the lane."""
        row = Cancellation(command_id=message.command_id or "", reason="simulated", requested_at=self.now)
        self.database.tables[Cancellation].setdefault(row.command_id, row)
        self.database.revision += 1


def run(service: Service, history: History, given: Sequence[Row]) -> Ran:
    """Run a history as it is. Raises Endless."""
    world = World(service, given, history.transaction_max, timedelta(milliseconds=1))
    for batch in history.batches:
        world.now += batch.pause
        world.fault = batch.fault
        world.fire()
        world.issue(*world.coming_back(), *map(message_of_sent, batch.sent))
    world.fault = None
    for _ in range(TIMER_ROUNDS_MAX):
        while back := world.coming_back():
            world.issue(*back)
        if world.next_timer_at is None:
            break
        world.now = max(world.now, world.next_timer_at)
        world.fire()
    return world.ran()


def run_one_by_one(service: Service, course: Course, given: Sequence[Row]) -> Ran:
    """Apply the same commands in the same order, each alone, at the time that it had then. Raises Endless."""
    world = plain_world(service, given)
    apply_one_by_one(world, course)
    return world.ran()


def plain_world(service: Service, given: Sequence[Row]) -> World:
    """A lane to which commands come one by one, and nothing goes wrong."""
    return World(service, given, 1, timedelta())


def apply_one_by_one(world: World, course: Course) -> None:
    """Apply commands, or those after a takeover, in a world that has applied those before. Raises Endless."""
    moves = deque(course.moves)
    for place, message in enumerate(course.order, world.count):
        while moves and moves[0].place <= place:
            world.now = moves.popleft().now
            world.fire()
        world.now = course.times.get(message.command_id or "", world.now)
        world.issue(message)
    for move in moves:
        world.now = move.now
        world.fire()


class Rehearsal:
    """A lane to which commands come one by one while a history is made up: it shows what they look for and leave.

    They come under other ids, since a handler may remember ids, which must be new to it when the history is run.
    """

    def __init__(self, service: Service, given: Sequence[Row]) -> None:
        self._world = World(service, given, 1, timedelta(milliseconds=1))
        self._ids: dict[str, str] = {}
        self._is_endless = False

    def send(self, sent: Sent) -> Sequence[Read | RowSelection[Row]]:
        """Apply a command, and what it emits to its lane. Returns what it looks for."""
        if self._is_endless:
            return ()
        world = self._world
        lookups: list[Read | RowSelection[Row]] = []
        world.lookups = lookups
        other = with_other_id(sent, "rehearsed")
        self._ids[other.command_id] = sent.command_id
        try:
            world.issue(message_of_sent(other))
            world.lookups = []
            world.issue(*world.coming_back())
        except Endless:
            # For the run of the history to tell.
            self._is_endless = True
        return lookups

    def rows(self, model: type[R]) -> list[R]:
        """The rows that there are now, in the order in which they came."""
        return list(self._world.database.tables[model].values())

    def in_history(self, value: Any) -> Any:
        """A value of a row as the history will have it: the id of a command is the one that it has there."""
        return self._ids.get(value, value) if isinstance(value, str) else value


def message_of_sent(sent: Sent) -> CommandMessage:
    """A command as it is sent."""
    return sent_as(sent.command, sent.command_id, "system" if sent.actor is None else "public", actor=sent.actor)


_made: dict[int, LaneSettings] = {}


def _settings(transaction_max: int) -> LaneSettings:
    if transaction_max not in _made:
        _made[transaction_max] = LaneSettings(batch_commands_max=transaction_max)
    return _made[transaction_max]
