"""A saga whose step waits a second for its answer, and the other lane, which may be away for longer.

As in tests/unit/test_saga_timeout.py, for processes: their clocks are real.
"""

from datetime import timedelta
from typing import Final

from coordinator import App
from coordinator.service.commands import Command, Id
from coordinator.service.continuation import Continuation
from coordinator.service.rows import Row
from coordinator.service.saga import Saga, SagaRow, Step
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.service import Service
from coordinator.service.unit_of_work import UnitOfWork

TIMEOUT: Final = timedelta(seconds=1)
VOYAGES = Service("voyages")
FERRIES = Service("ferries")
APP = App(
    services={"voyages": "tests.support.late_answers:VOYAGES", "ferries": "tests.support.late_answers:FERRIES"},
)


@VOYAGES.row
class Voyage(SagaRow, table="voyages", key="id"):
    """Whether the ferry said that there is a cabin is known by its steps."""


VOYAGES.row(SagaStep)


@FERRIES.row
class Cabin(Row, table="cabins", key="id"):
    """The cabin of a voyage. It is kept when it is given back, with how often each was done."""

    id: int
    booked: int = 0
    given_back: int = 0


class Embark(Command, type="voyages.embark"):
    pass


class Proceed(Continuation, type="voyages.proceed"):
    pass


class BookCabin(Command, type="ferries.book"):
    voyage: Id


class GiveCabinBack(Command, type="ferries.give_back"):
    voyage: Id


@FERRIES.handles(BookCabin)
def book(work: UnitOfWork, command: BookCabin) -> Cabin:
    cabin = work.get(Cabin, command.voyage)
    if cabin is None:
        return work.add(Cabin(id=command.voyage, booked=1))
    return work.save(Cabin(id=cabin.id, booked=cabin.booked + 1, given_back=cabin.given_back))


@FERRIES.handles(GiveCabinBack)
def give_back(work: UnitOfWork, command: GiveCabinBack) -> Cabin:
    cabin = work.get(Cabin, command.voyage)
    if cabin is None:
        return work.add(Cabin(id=command.voyage, given_back=1))
    return work.save(Cabin(id=cabin.id, booked=cabin.booked, given_back=cabin.given_back + 1))


VOYAGE = Saga(
    "voyage",
    Voyage,
    Proceed,
    steps=(
        Step(
            name="cabin",
            do=lambda voyage: BookCabin(voyage=voyage.id),
            undo=lambda voyage: GiveCabinBack(voyage=voyage.id),
            timeout=TIMEOUT,
        ),
    ),
    finish=lambda work, voyage: None,
)


@VOYAGES.handles(Embark)
def embark(work: UnitOfWork, command: Embark) -> Voyage:
    return VOYAGE.begin(work, Voyage(id=work.next_id("voyages")))


@VOYAGES.handles(Proceed, is_internal=True)
def proceed(work: UnitOfWork, outcome: Proceed) -> Voyage:
    return VOYAGE.go_on(work, outcome)
