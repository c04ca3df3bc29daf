"""A service whose commands set timers: seats are released if nobody pays for them in time."""

from datetime import datetime, timedelta

from coordinator.service.commands import Command, Id
from coordinator.service.continuation import Continuation
from coordinator.service.errors import Rejected
from coordinator.service.outside_calls import Effect
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.service.unit_of_work import UnitOfWork
from tests.support.uncalled import Uncalled

PAY_WITHIN = timedelta(minutes=15)
SEATS = Service("seats", effects=Uncalled)


@SEATS.row
class Seat(Row, table="seats", key="id"):
    id: int
    holder: str | None = None
    timer: str | None = None
    answers: str = ""


class Hold(Command, type="seats.hold", kw_only=True):
    """Hold a seat until it is paid for. `then` is what the handler does after that."""

    id: Id
    holder: str = "ada"
    after_ms: int | None = None
    at: datetime | None = None
    then: str | None = None


class Pay(Command, type="seats.pay"):
    id: Id


class Release(Command, type="seats.release"):
    id: Id
    holder: str


class Ask(Command, type="seats.ask", kw_only=True):
    """Ask another lane about a seat, which has so much time for its answer."""

    id: Id
    limit_ms: int
    after_ms: int | None = None


class Cancel(Command, type="seats.cancel"):
    id: Id
    then_refuse: bool = False


class Question(Command, type="trains.question"):
    id: Id


class Remind(Effect, type="seats.remind"):
    id: Id


class Answered(Continuation, type="seats.answered"):
    """What became of a question."""


@SEATS.handles(Hold)
def hold(work: UnitOfWork, command: Hold) -> Seat:
    after = PAY_WITHIN if command.after_ms is None else timedelta(milliseconds=command.after_ms)
    release = Release(id=command.id, holder=command.holder)
    timer = work.emit(release, at=command.at) if command.at is not None else work.emit(release, after=after)
    seat = work.get(Seat, command.id)
    new = Seat(id=command.id, holder=command.holder, timer=timer)
    seat = work.add(new) if seat is None else work.save(new)
    match command.then:
        case "cancel":
            assert work.cancel(timer)
        case "cancel twice":
            assert [work.cancel(timer), work.cancel(timer)] == [True, False]
        case "refuse":
            raise Rejected("refused", "after the timer was set")
        case "remind":
            work.emit(Remind(id=command.id), after=after)
    return seat


@SEATS.handles(Pay)
def pay(work: UnitOfWork, command: Pay) -> Seat:
    seat = work.get(Seat, command.id)
    if seat is None or seat.timer is None or not work.cancel(seat.timer):
        raise Rejected("too_late", f"seat {command.id} is not held")
    return work.save(Seat(id=seat.id, holder=seat.holder))


@SEATS.handles(Release)
def release(work: UnitOfWork, command: Release) -> Seat:
    seat = work.get(Seat, command.id)
    if seat is None or seat.holder != command.holder:
        raise Rejected("not_held", f"seat {command.id} is not {command.holder}'s")
    return work.save(Seat(id=seat.id))


@SEATS.handles(Ask)
def ask(work: UnitOfWork, command: Ask) -> Seat:
    asked = work.emit(
        Question(id=command.id),
        continuation=Answered,
        after=None if command.after_ms is None else timedelta(milliseconds=command.after_ms),
        limit=timedelta(milliseconds=command.limit_ms),
    )
    return work.add(Seat(id=command.id, timer=asked))


@SEATS.handles(Answered, is_internal=True)
def answered(work: UnitOfWork, answer: Answered) -> None:
    seat = work.find(Seat, "id", 1)
    assert seat is not None
    if not answer.is_unanswered:
        work.cancel(answer.command_id)
    said = "nothing" if answer.is_unanswered else answer.status
    work.save(Seat(id=1, answers=f"{seat.answers} {said}".strip()))


@SEATS.handles(Cancel)
def cancel(work: UnitOfWork, command: Cancel) -> None:
    seat = work.get(Seat, command.id)
    if seat is None or seat.timer is None or not work.cancel(seat.timer):
        raise Rejected("too_late", "it is on its way")
    if command.then_refuse:
        raise Rejected("refused", "after the timer was taken back")
