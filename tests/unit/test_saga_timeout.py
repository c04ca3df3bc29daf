"""A step of a saga that is not answered in time is taken back, and an answer that comes later does no harm.

Two lanes: trips, which owns the saga, and the agency, which may be slow. What they emit to one another arrives in its
order, as the outbox sends it.
"""

from datetime import timedelta

import msgspec
import pytest

from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.lane.outbox import message_of
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import LaneSettings
from coordinator.service.commands import Command, Id
from coordinator.service.continuation import Continuation
from coordinator.service.errors import Rejected
from coordinator.service.ids import new_command_id
from coordinator.service.rows import R, Row
from coordinator.service.saga import Resumption, Saga, SagaRow, Step
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.service import Service
from coordinator.service.unit_of_work import UnitOfWork
from coordinator.stores.lane_tables import Timer
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from tests.support.store_contract import NOW

TRIPS = Service("trips")
AGENCY = Service("agency")
HOUR = timedelta(hours=1)


@TRIPS.row
class Journey(SagaRow, table="journeys", key="id"):
    flight: str | None = None
    is_watched: bool = False


TRIPS.row(SagaStep)


@AGENCY.row
class Seat(Row, table="seats", key="id"):
    """The seat of a trip; it is kept when it is given back, so that nobody books it after that."""

    id: int
    is_booked: bool


class Depart(Command, type="trips.depart"):
    is_watched: bool = False


class GoOn(Continuation, type="trips.go_on"):
    pass


class Decide(Resumption, type="trips.decide"):
    pass


class Book(Command, type="agency.book"):
    trip: Id


class GiveBack(Command, type="agency.give_back"):
    trip: Id


class Pay(Command, type="agency.pay"):
    trip: Id


@AGENCY.handles(Book)
def book(work: UnitOfWork, command: Book) -> Seat:
    if work.get(Seat, command.trip) is not None:
        raise Rejected("booked", "it is booked")
    return work.add(Seat(id=command.trip, is_booked=True))


@AGENCY.handles(GiveBack)
def give_back(work: UnitOfWork, command: GiveBack) -> None:
    if work.get(Seat, command.trip) is not None:
        work.save(Seat(id=command.trip, is_booked=False))


@AGENCY.handles(Pay)
def pay(work: UnitOfWork, command: Pay) -> None:
    pass


TRIP = Saga(
    "trip",
    Journey,
    GoOn,
    steps=(
        Step(
            name="seat",
            do=lambda trip: Book(trip=trip.id),
            took=lambda trip, _: msgspec.structs.replace(trip, flight="X1"),
            undo=lambda trip: GiveBack(trip=trip.id),
            timeout=HOUR,
        ),
        Step(name="pay", do=lambda trip: Pay(trip=trip.id)),
        Step(
            name="watched",
            do=lambda trip: Pay(trip=trip.id) if trip.is_watched else None,
            review=frozenset({"no_answer"}),
            timeout=HOUR,
        ),
    ),
    finish=lambda work, trip: None,
)


@TRIPS.handles(Depart)
def depart(work: UnitOfWork, command: Depart) -> Journey:
    return TRIP.begin(work, Journey(id=work.next_id("journeys"), is_watched=command.is_watched))


@TRIPS.handles(GoOn, is_internal=True)
def go_on(work: UnitOfWork, outcome: GoOn) -> Journey:
    return TRIP.go_on(work, outcome)


@TRIPS.handles(Decide, is_operators=True)
def decide(work: UnitOfWork, order: Decide) -> Journey:
    return TRIP.resume(work, order)


class Lanes:
    """What a lane emits waits in the queue of the lane that it is for."""

    def __init__(self) -> None:
        self.now = NOW
        self.queues: dict[str, list[CommandMessage]] = {"trips": [], "agency": []}
        self._stores = {service.name: MemoryStore(MemoryDatabase()) for service in (TRIPS, AGENCY)}
        self._lanes = {
            service.name: Lane(
                service, self._stores[service.name], lambda: self.now, "test", LaneSettings(), lambda: 0.0
            )
            for service in (TRIPS, AGENCY)
        }

    def send(self, command: Command) -> str:
        """Issue a command, and have it applied, with what waits before it."""
        self.queues[command.lane()].append(
            CommandMessage(
                command_id=new_command_id(), type=command.type, arguments=command.arguments(), origin="system"
            )
        )
        return self.run(command.lane())[-1]

    def run(self, name: str) -> list[str]:
        """A lane applies all that waits for it."""
        queue, self.queues[name] = self.queues[name], []
        found = []
        for message in queue:
            settlement = self._lanes[name].apply([Delivery(tag=1, commands=(message,))])
            assert isinstance(settlement, Settlement), settlement
            found += [outcome.error.code if outcome.error else outcome.status for outcome in settlement.outcomes]
            self._publish(name, settlement)
        return found

    def pass_time(self, by: timedelta) -> None:
        self.now += by
        settlement = self._lanes["trips"].sweep()
        if isinstance(settlement, Settlement):
            self._publish("trips", settlement)

    def _publish(self, name: str, settlement: Settlement) -> None:
        for entry in settlement.emitted:
            self.queues[entry.lane].append(msgspec.structs.replace(message_of(entry), origin="system"))
        self._lanes[name].confirm(settlement.emitted)

    def rows(self, model: type[R]) -> list[R]:
        found = []
        for store in self._stores.values():
            transaction = store.begin()
            found += transaction.scan(model, 1000)
            transaction.rollback()
        return found

    @property
    def trip(self) -> Journey:
        (trip,) = self.rows(Journey)
        return trip

    @property
    def last_step(self) -> SagaStep:
        return max(self.rows(SagaStep), key=lambda step: step.number)

    @property
    def steps(self) -> list[tuple[str, str, str]]:
        steps = sorted(self.rows(SagaStep), key=lambda step: step.number)
        return [(step.name, step.direction, step.status) for step in steps]

    def is_booked(self) -> bool:
        return any(seat.is_booked for seat in self.rows(Seat))


@pytest.fixture
def lanes() -> Lanes:
    return Lanes()


def test_an_answer_in_time_takes_the_limit_back(lanes: Lanes) -> None:
    lanes.send(Depart())
    assert [timer.due_at - NOW for timer in lanes.rows(Timer)] == [HOUR]
    lanes.run("agency")
    assert lanes.run("trips") == ["applied"]
    assert lanes.rows(Timer) == []
    lanes.run("agency")
    lanes.run("trips")
    assert (lanes.trip.status, lanes.trip.flight, lanes.is_booked()) == ("completed", "X1", True)


@pytest.mark.parametrize("is_overtaken", [False, True])
def test_without_an_answer_the_step_is_not_done_any_more_and_is_undone(lanes: Lanes, is_overtaken: bool) -> None:
    """The agency was away: it finds both, the step's command first; or that waits for its key for longer."""
    lanes.send(Depart())
    lanes.pass_time(HOUR)
    assert lanes.run("trips") == ["applied"]
    assert (lanes.trip.status, lanes.trip.reason_code) == ("compensating", "no_answer")
    assert lanes.trip.reason == "`seat`: there was no answer within 1:00:00"
    assert lanes.steps == [("seat", "do", "unanswered"), ("seat", "undo", "waiting")]
    if is_overtaken:
        lanes.queues["agency"].reverse()
    assert sorted(lanes.run("agency")) == ["applied", "deadline_expired"]
    assert not lanes.is_booked()
    # The answer that comes too late, and that of what undid the step.
    assert lanes.run("trips") == ["applied", "applied"]
    assert lanes.trip.status == "compensated"
    assert lanes.trip.flight is None
    assert lanes.steps == [("seat", "do", "expired"), ("seat", "undo", "applied")]
    assert not lanes.is_booked()


def test_a_refusal_that_comes_later_changes_nothing_either(lanes: Lanes) -> None:
    lanes.send(Book(trip=1))
    lanes.send(Depart())
    assert lanes.run("agency") == ["booked"]
    lanes.pass_time(HOUR)
    lanes.queues["trips"].reverse()
    assert lanes.run("trips") == ["applied", "applied"]
    assert lanes.run("agency") == ["applied"]
    assert lanes.run("trips") == ["applied"]
    assert (lanes.trip.status, lanes.steps[0]) == ("compensated", ("seat", "do", "rejected"))


def test_an_answer_that_was_put_off_may_come_after_the_end(lanes: Lanes) -> None:
    lanes.send(Depart())
    lanes.run("agency")
    lanes.pass_time(HOUR)
    late, limit = lanes.queues["trips"]
    lanes.queues["trips"] = [limit]
    lanes.run("trips")
    lanes.run("agency")
    lanes.queues["trips"].append(late)
    assert lanes.run("trips") == ["applied", "applied"]
    assert (lanes.trip.status, lanes.trip.position) == ("compensated", 0)
    assert lanes.steps == [("seat", "do", "applied"), ("seat", "undo", "applied")]
    assert lanes.queues["agency"] == []


def test_an_answer_that_is_ahead_of_the_limit_in_the_queue_counts(lanes: Lanes) -> None:
    lanes.send(Depart())
    lanes.run("agency")
    lanes.pass_time(HOUR)
    # The limit is in the queue already and cannot be taken back: it finds that nobody waits.
    assert lanes.run("trips") == ["applied", "applied"]
    assert (lanes.trip.status, lanes.trip.flight) == ("running", "X1")
    assert lanes.steps == [("seat", "do", "applied"), ("pay", "do", "waiting")]


def test_a_step_without_a_timeout_waits(lanes: Lanes) -> None:
    lanes.send(Depart())
    lanes.run("agency")
    lanes.run("trips")
    lanes.pass_time(1000 * HOUR)
    assert lanes.run("trips") == []
    assert lanes.trip.status == "running"


def test_a_step_whose_silence_a_person_must_judge(lanes: Lanes) -> None:
    lanes.send(Depart(is_watched=True))
    for _ in range(2):
        lanes.run("agency")
        lanes.run("trips")
    lanes.pass_time(HOUR)
    lanes.run("trips")
    assert (lanes.trip.status, lanes.trip.reason_code) == ("needs_review", "no_answer")
    assert lanes.steps[-1] == ("watched", "do", "unanswered")
    assert lanes.send(Decide(id=1, step=lanes.last_step.command_id, verdict="done", reason="seen")) == "applied"
    assert lanes.trip.status == "completed"


def test_a_person_who_is_faster_than_the_limit_takes_it_back(lanes: Lanes) -> None:
    lanes.send(Depart())
    order = Decide(id=1, step=lanes.last_step.command_id, verdict="not_done", reason="seen", even_if_running=True)
    assert lanes.send(order) == "applied"
    assert lanes.rows(Timer) == []
    assert lanes.trip.status == "compensated"


@pytest.mark.parametrize("timeout", [timedelta(), -HOUR, 5])
def test_a_timeout_that_leaves_no_time_is_refused_where_it_is_declared(timeout: object) -> None:
    with pytest.raises(ValueError, match="step seat: a timeout"):
        Step(name="seat", do=lambda _: None, timeout=timeout)  # type: ignore[arg-type]
