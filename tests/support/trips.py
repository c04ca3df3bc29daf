"""A saga for the tests: a trip whose flight, hotel and car are booked by other lanes."""

import msgspec

from coordinator.service.commands import Command, Id
from coordinator.service.continuation import Continuation
from coordinator.service.errors import Rejected
from coordinator.service.rows import Row, VersionedRow
from coordinator.service.saga import Resumption, Saga, SagaRow, Step
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork


class Trip(SagaRow, table="trips", key="id"):
    with_car: bool = True
    flight: str = ""


class Traveller(VersionedRow, table="travellers", key="id"):
    id: int
    trips: int = 0


class OpenTrip(Command, type="trips.open"):
    with_car: bool = True


class ContinueTrip(Continuation, type="trips.continue"):
    pass


class ResumeTrip(Resumption, type="trips.resume"):
    pass


class Book(Command, type="agency.book"):
    trip: Id
    what: str


class Cancel(Command, type="agency.cancel"):
    trip: Id
    what: str


def _booked(trip: Trip, result: msgspec.Raw) -> Trip:
    flight = msgspec.json.decode(result, type=str)
    if flight == "overbooked":
        raise Rejected("overbooked", "the answer was of no use")
    return msgspec.structs.replace(trip, flight=flight)


def _finish(work: UnitOfWork, trip: Trip) -> None:
    traveller = work.get(Traveller, 1)
    if traveller is None:
        raise Rejected("traveller_gone", f"nobody makes trip {trip.id}")
    work.save(msgspec.structs.replace(traveller, trips=traveller.trips + 1))


TRIP = Saga(
    "trip",
    Trip,
    ContinueTrip,
    steps=(
        Step(name="weather", do=lambda trip: Book(trip=trip.id, what="weather")),
        Step(
            name="flight",
            do=lambda trip: Book(trip=trip.id, what="flight"),
            took=_booked,
            undo=lambda trip: Cancel(trip=trip.id, what="flight"),
            review=frozenset({"lost_ticket"}),
        ),
        Step(
            name="car",
            do=lambda trip: Book(trip=trip.id, what="car") if trip.with_car else None,
            undo=lambda trip: Cancel(trip=trip.id, what="car") if trip.with_car else None,
            undone=frozenset({"not_booked"}),
        ),
        Step(
            name="hotel",
            do=lambda trip: Book(trip=trip.id, what="hotel"),
            undo=lambda trip: Cancel(trip=trip.id, what="hotel"),
        ),
    ),
    finish=_finish,
)


def open_trip(work: UnitOfWork, command: OpenTrip) -> Trip:
    return TRIP.begin(work, Trip(id=work.next_id("trips"), with_car=command.with_car))


def note_trip(work: UnitOfWork, command: "NoteTrip") -> Trip:
    trip = work.get(Trip, command.id)
    if trip is None:
        raise Rejected("trip_not_found", f"there is no trip {command.id}")
    return work.save(msgspec.structs.replace(trip, flight=command.text))


class NoteTrip(Command, type="trips.note"):
    id: Id
    text: str


def welcome(work: UnitOfWork, command: "Welcome") -> Row:
    return work.add(Traveller(id=work.next_id("travellers")))


class Welcome(Command, type="trips.welcome"):
    pass


TRIPS = Service(
    name="trips",
    models=(Trip, Traveller, SagaStep),
    handlers=(
        Handler(Welcome, welcome),
        Handler(OpenTrip, open_trip),
        Handler(NoteTrip, note_trip),
        Handler(
            ContinueTrip,
            TRIP.go_on,
            reads=lambda command: (SagaStep.at(command.command_id),),
            is_internal=True,
        ),
        Handler(ResumeTrip, TRIP.resume, is_operators=True),
    ),
)
