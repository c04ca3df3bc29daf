"""What lanes say of themselves: their databases, the broker, and what runs them without one."""

from collections.abc import Container, Sequence
from contextlib import ExitStack
from datetime import datetime
from threading import Event
from time import monotonic
from typing import Self

from msgspec import UNSET, Struct, UnsetType

from coordinator.lane.delivery import SuspensionCause
from coordinator.operate.broker import broker
from coordinator.operate.effects_conditions import EffectsCondition, effects_in_process, unsaid_depth
from coordinator.operate.forget_waiting import ForgetWatch, WaitingForget
from coordinator.operate.move_status import MoveStatus, move_in
from coordinator.operate.one_process import at_hand, process_of, socket_of
from coordinator.operate.open import lane_admin
from coordinator.operate.output import (
    now,
)
from coordinator.operate.queue_depth import EffectsDepth, QueueDepth
from coordinator.operate.queue_members import QueueMembers, open_members
from coordinator.operate.queue_policies import open_harms
from coordinator.operate.reasons import with_reason
from coordinator.runtime.settings import BrokerSettings, load
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.outside_calls import effects_key
from coordinator.stores.admin import LaneAdmin, LaneState, LetterQuery
from coordinator.stores.one_lane import WrongDatabase


class FailedCommand(Struct, frozen=True, kw_only=True):
    """The latest command that a lane could not apply. `letter` is its dead letter; None: that was replayed, or
    discarded."""

    letter: int | None
    command_id: str
    type: str
    code: str | None
    message: str | None
    settled_at: datetime


class OutboxStatus(Struct, frozen=True, kw_only=True):
    """What waits in a lane's outbox for one target."""

    target: str
    entries: int
    oldest_at: datetime


class LaneStatus(Struct, kw_only=True):
    """One lane. None: not known, since what would know it is away, or since there is none yet.

    `ready` counts the messages in the queue that no coordinator holds: up to LANE_PREFETCH more are with the active
    one, and RabbitMQ does not tell a client how many. A paused lane keeps them: `ready` is the least that waits there.
    `held` were delivered to those of its coordinators that were asked; None: none was.
    Of a lane in one process `ready` counts all that wait for it.
    `taken_at` is None where the holder runs the lane in its process, and no command has come yet.
    `rate` is commands settled per second while sampling. `lag_s` is how long `ready` will take at that rate; where
    nothing was settled meanwhile, how long nothing has been; None of a paused lane. `dead_letters` are rows of the
    lane's database, also those of its effects; `dead_in_broker` are messages that the broker, or an older release, has
    dead-lettered, and the lane has not taken in yet. `parked` are commands that wait for one of `parked_keys` keys,
    behind one that failed. `outbox` is what is emitted and not with the broker. `timers` are
    commands that wait for their time; the first is due at `next_timer_at`. `last_failed` is the latest of the last
    `FAILED_AMONG` commands. `state` and `why` say in words how the lane does, `effects` how its service's calls to
    the outside do, and `full` whose commands its queue does not take, for who has them said (`looking.py`).
    `move` is of a lane that is being moved,
    or has moved. `suspended` is what the process that runs it without a broker says keeps it, and `cause` the kind of
    that. `forgets` are orders to forget somebody that are not done yet. `queue` has the members of the lane's queue,
    where RABBITMQ_ADMIN_URL is set, and `policies` what policies do to its queues by which they would lose something.
    `errors` say what is away.
    """

    lane: str
    holder: str | None = None
    epoch: int | None = None
    sequence: int | None = None
    taken_at: datetime | None = None
    is_paused: bool | None = None
    paused: str | None = None
    move: MoveStatus | None = None
    suspended: str | None = None
    cause: SuspensionCause | None = None
    ready: int | None = None
    held: int | None = None
    consumers: int | None = None
    dead_letters: int | None = None
    dead_in_broker: int | None = None
    parked: int | None = None
    parked_keys: int | None = None
    outbox: list[OutboxStatus] | None = None
    timers: int | None = None
    next_timer_at: datetime | None = None
    last_settled_at: datetime | None = None
    rate: float | None = None
    lag_s: float | None = None
    last_failed: FailedCommand | None = None
    state: str | None = None
    why: str | None = None
    effects: EffectsCondition | None = None
    full: str | None = None
    forgets: list[WaitingForget] | None = None
    queue: QueueMembers | None = None
    policies: list[str] | None = None
    errors: list[str] = []


class LaneLooks:
    """Looks at some lanes, as often as one wants. Their databases stay connected between two looks.

    A context manager, which disconnects. What is away is tried again at the next look.
    """

    def __init__(self, lanes: Sequence[str]) -> None:
        """Raises ConfigurationError."""
        self._lanes = tuple(lanes)
        self.depths: dict[str, EffectsDepth | UnsetType | None] = {}
        """How many calls to the outside waited at the last look, by lane that coordinators run; None: its service makes
        none; UNSET: the broker did not say."""
        self._stacks = {lane: ExitStack() for lane in lanes}
        self._admins: dict[str, LaneAdmin] = {}
        self._forgets = {lane: ForgetWatch() for lane in lanes}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for lane in self._lanes:
            self._disconnect(lane)

    def look(self, sample_s: float) -> list[LaneStatus]:
        """The status of the lanes. What is away is in each one's `errors`. Raises ConfigurationError."""
        found = [LaneStatus(lane=lane, errors=[]) for lane in self._lanes]
        begun = {status.lane: (monotonic(), self._read_database(status)) for status in found}
        in_one_process = {status.lane for status in found if read_process(status)}
        brokered = [status for status in found if socket_of(status.lane) is None]
        depths = _read_broker(brokered, in_one_process)
        self.depths = {lane: depth for lane, depth in depths.items() if lane not in in_one_process}
        for status in found:
            at, is_there = begun[status.lane]
            is_sampled = is_there and sample_s > 0 and _sample(status, self._admin(status.lane), at, sample_s)
            if not is_there or (sample_s > 0 and not is_sampled):
                self._disconnect(status.lane)
            estimate_lag(status)
        if not any(is_there for _, is_there in begun.values()):
            # Nothing was sampled, and a watch must not ask without a pause.
            Event().wait(sample_s)
        return found

    def _read_database(self, status: LaneStatus) -> bool:
        admin = self._admin(status.lane)
        try:
            take_state(status, admin.state(), admin)
            status.forgets = self._forgets[status.lane].waiting(admin)
        except WrongDatabase:
            raise
        except (Unavailable, ConfigurationError) as error:
            status.errors.append(str(error))
            return False
        return True

    def _admin(self, lane: str) -> LaneAdmin:
        if lane not in self._admins:
            self._admins[lane] = self._stacks[lane].enter_context(lane_admin(lane))
        return self._admins[lane]

    def _disconnect(self, lane: str) -> None:
        self._admins.pop(lane, None)
        self._stacks[lane].close()


def take_state(status: LaneStatus, state: LaneState, admin: LaneAdmin) -> None:
    """Note what a lane's database says. Raises as `LaneAdmin` does."""
    if state.lease is not None:
        status.holder = state.lease.holder or None
        status.epoch, status.sequence, status.taken_at = state.lease.epoch, state.lease.sequence, state.lease.taken_at
        status.is_paused, status.paused = state.lease.paused is not None, state.lease.paused
        status.move = move_in(state.lease)
    else:
        status.sequence, status.is_paused = 0, False
    status.dead_letters = state.dead_letters
    status.parked, status.parked_keys = state.parked.commands, state.parked.keys
    status.outbox = [
        OutboxStatus(target=each.target, entries=each.rows, oldest_at=each.oldest_at) for each in state.outbox
    ]
    status.timers, status.next_timer_at = state.timers.count, state.timers.next_at
    if state.last_settled is not None:
        status.last_settled_at = state.last_settled.settled_at
    failed = state.last_failed
    if failed is not None:
        letters = admin.letters(LetterQuery(command_id=failed.command_id), 0, 1)
        failed = with_reason(failed, letters)
        status.last_failed = FailedCommand(
            letter=letters[-1].id if letters else None,
            command_id=failed.command_id,
            type=failed.type,
            code=failed.error_code,
            message=failed.error_message,
            settled_at=failed.settled_at,
        )


def read_process(status: LaneStatus) -> bool:
    """What the process says that runs the lane beside its file. False: coordinators run it."""
    socket = process_of(status.lane)
    if socket is None:
        return False
    try:
        known = at_hand(socket, status.lane)
    except Unavailable as error:
        status.errors.append(str(error))
        if unsaid_depth(status.lane) is UNSET:
            status.effects = EffectsCondition(state="unknown", why=str(error))
        return True
    status.ready = known.waiting
    status.effects = None if known.calls is None else effects_in_process(status.lane, known.calls)
    if known.holder is not None and known.holder != status.holder and known.suspended is None:
        # It takes the lane with the first command: until then the lease names a process that is gone.
        status.holder, status.taken_at = known.holder, None
    # That it is paused is no fault, and is shown as such.
    if known.suspended is not None and not status.is_paused:
        status.suspended, status.cause = known.suspended, known.cause
        status.errors.append(known.suspended)
    if known.unwritable is not None:
        status.suspended = status.suspended or known.unwritable
        status.errors.append(known.unwritable)
    return True


def _read_broker(found: list[LaneStatus], local: Container[str]) -> dict[str, EffectsDepth | UnsetType | None]:
    depths: dict[str, EffectsDepth | UnsetType | None] = {status.lane: unsaid_depth(status.lane) for status in found}
    if not found:
        return depths
    try:
        with broker(load(BrokerSettings)) as connected:
            for status in found:
                depth = connected.lane_depth(status.lane)
                dead = [connected.dead_depth(key) for key in (status.lane, effects_key(status.lane))]
                if depth is None:
                    status.errors.append(f"there is no queue of lane {status.lane}: no coordinator has run yet")
                else:
                    note_queue(status, depth, is_local=status.lane in local)
                status.dead_in_broker = sum(each.ready for each in dead if each is not None)
                depths[status.lane] = connected.effects_depth(status.lane)
    except Unavailable as error:
        for status in found:
            status.errors.append(str(error))
    _read_members(found)
    _read_policies(found)
    return depths


def note_queue(status: LaneStatus, queue: QueueDepth, *, is_local: bool) -> None:
    """Note what waits with the broker, beside what the process has that runs the lane, if one does, and has said it."""
    status.consumers = queue.consumers
    if not is_local:
        status.ready = queue.ready
    elif status.ready is not None:
        # It counts what was delivered to it.
        status.ready, status.held = queue.ready + status.ready, 0


def _read_members(found: list[LaneStatus]) -> None:
    members_of = open_members(load(BrokerSettings))
    if members_of is None:
        return
    for status in found:
        try:
            status.queue = members_of(status.lane)
        except (Unavailable, ConfigurationError) as error:
            status.errors.append(str(error))


def _read_policies(found: list[LaneStatus]) -> None:
    harms_of = open_harms(load(BrokerSettings))
    if harms_of is None:
        return
    try:
        harms = harms_of([status.lane for status in found])
    except (Unavailable, ConfigurationError) as error:
        for status in found:
            if str(error) not in status.errors:
                status.errors.append(str(error))
        return
    for status in found:
        status.policies = harms[status.lane]


def _sample(status: LaneStatus, admin: LaneAdmin, since: float, sample_s: float) -> bool:
    """The lanes are sampled at the same time: only the first one waits. False: the database is away."""
    Event().wait(max(0.0, since + sample_s - monotonic()))
    try:
        counted = admin.sequence() - (status.sequence or 0)
    except Unavailable as error:
        status.errors.append(str(error))
        return False
    status.rate = round(counted / (monotonic() - since), 1)
    status.sequence = (status.sequence or 0) + counted
    return True


def estimate_lag(status: LaneStatus) -> None:
    """Note how long what waits will take, by the rest that is known."""
    if status.is_paused or status.sequence is None:
        # It settles nothing, and holds what has been delivered to it; or nobody knows what it settles.
        return
    if status.ready == 0:
        status.lag_s = 0.0
    elif status.ready is not None and status.rate:
        status.lag_s = round(status.ready / status.rate, 1)
    elif status.ready is not None and status.last_settled_at is not None:
        # By two clocks, of which this one may be behind.
        status.lag_s = max(0.0, round((now() - status.last_settled_at).total_seconds(), 1))
