"""The service of both examples: seats. Its lane is `coordinator --app seats:seats run seats`."""

from typing import Annotated

from msgspec import Meta

from coordinator import Command, Id, Name, Rejected, Service, UnitOfWork, VersionedRow

seats = Service("seats")

Place = Annotated[str, Meta(min_length=1, max_length=10, pattern=r"\A[A-Z0-9]+\Z")]


@seats.row
class Seat(VersionedRow, table="seats", key="id", unique=("place",)):
    """A seat, and its holder once it is sold."""

    id: int
    place: Place
    holder: str | None = None


class AddSeat(Command, type="seats.add"):
    """Put a seat up for sale. Rejected: `place_taken`."""

    place: Place


class BookSeat(Command, type="seats.book"):
    """Give a free seat to its holder. Rejected: `seat_not_found`, `taken`."""

    id: Id
    holder: Name


@seats.handles(AddSeat, reads=lambda command: [Seat.at(place=command.place)])
def add(work: UnitOfWork, command: AddSeat) -> Seat:
    if work.find(Seat, "place", command.place) is not None:
        raise Rejected("place_taken", f"there is a seat {command.place} already")
    return work.add(Seat(id=work.next_id("seats"), place=command.place))


@seats.handles(BookSeat, target=lambda command: Seat.at(command.id))
def book(work: UnitOfWork, command: BookSeat) -> Seat:
    seat = work.get(Seat, command.id)
    if seat is None:
        raise Rejected("seat_not_found", f"there is no seat {command.id}")
    if seat.holder is not None:
        raise Rejected("taken", f"seat {seat.place} is taken")
    return work.save(seat.replace(holder=command.holder))
