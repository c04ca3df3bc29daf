"""The routes of a gateway that is made from a service, by an example, for docs/HTTP_API.md."""

from typing import Annotated, Final

from msgspec import Meta

from coordinator.http.contract.route_operations import HttpOperation, operations_of
from coordinator.http.service_gateway import gateway_of
from coordinator.service.commands import Command, Id, Name
from coordinator.service.errors import Rejected
from coordinator.service.rows import VersionedRow
from coordinator.service.service import Service
from coordinator.service.unit_of_work import UnitOfWork

PORT: Final = 8080
"""That of a service in one process, by default."""
ABOUT: Final = """Nobody wrote these: a gateway is made from each service that has none
([HTTP](HTTP.md#a-gateway-that-is-made-from-a-service)). Here it is that of a service `seats`; of another one, its name,
its commands and its tables stand in their places.
"""
_seats = Service("seats")
_Place = Annotated[str, Meta(min_length=1, max_length=10, pattern=r"\A[A-Z0-9]+\Z")]


@_seats.row(is_public=True)
class Seat(VersionedRow, table="seats", key="id", unique=("place",)):
    """A seat, and its holder once it is given away."""

    id: int
    place: _Place
    holder: str | None = None


class BookSeat(Command, type="seats.book"):
    """Give a free seat to its holder. Rejected: `seat_not_found`, `taken`."""

    id: Id
    holder: Name


@_seats.handles(BookSeat, target=lambda command: Seat.at(command.id))
def _book(work: UnitOfWork, command: BookSeat) -> Seat:
    seat = work.get(Seat, command.id)
    if seat is None:
        raise Rejected("seat_not_found", f"there is no seat {command.id}")
    if seat.holder is not None:
        raise Rejected("taken", f"seat {seat.place} is taken")
    return work.save(seat.replace(holder=command.holder))


def made_operations() -> tuple[HttpOperation, ...]:
    """The routes of its gateway, with examples that are made up from the types."""
    return operations_of(gateway_of(_seats).routes, [_seats])
