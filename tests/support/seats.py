"""A service as its author declares it: rows and handlers by decorators, and no table written by hand."""

from typing import Annotated

from msgspec import Meta

from coordinator import Command, Id, Name, Rejected, Service, UnitOfWork, VersionedRow

seats = Service("seats")


@seats.row(is_public=True)
class Seat(VersionedRow, table="seats", key="id", unique=("code",)):
    """A seat, and its holder once it is sold."""

    id: int
    code: Annotated[str, Meta(max_length=10)]
    holder: str | None = None


class AddSeat(Command, type="seats.add"):
    """Put up a seat for sale. Rejected: `seat_exists`."""

    id: Id
    code: Annotated[str, Meta(min_length=1, max_length=10, pattern=r"\A[A-Z0-9]*\Z")]


class BookSeat(Command, type="seats.book"):
    """Sell a seat. Rejected: `seat_not_found`, `taken`."""

    id: Id
    holder: Name


@seats.handles(AddSeat, reads=lambda command: (Seat.at(command.id), Seat.at(code=command.code)))
def add(work: UnitOfWork, command: AddSeat) -> Seat:
    if work.get(Seat, command.id) or work.find(Seat, "code", command.code):
        raise Rejected("seat_exists", f"there is a seat {command.id} or {command.code}")
    return work.add(Seat(id=command.id, code=command.code))


@seats.handles(BookSeat, target=lambda command: Seat.at(command.id))
def book(work: UnitOfWork, command: BookSeat) -> Seat:
    seat = work.get(Seat, command.id)
    if seat is None:
        raise Rejected("seat_not_found", f"there is no seat {command.id}")
    if seat.holder is not None:
        raise Rejected("taken", f"seat {seat.id} is taken")
    return work.save(seat.replace(holder=command.holder))
