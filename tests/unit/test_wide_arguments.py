"""Arguments that take more than the columns of their names are known at the start, and found by `simulate`."""

from typing import Annotated, Any

import pytest
import sqlalchemy as sa
import structlog
from msgspec import Meta

from coordinator import VISIBLE, Command, Id, Name, Service, UnitOfWork, VersionedRow
from coordinator.stores.wide_arguments import wide_arguments
from coordinator.testing import SimulationFailed, simulate
from coordinator.worker.declaration_check import check_services

METADATA = sa.MetaData()
SEATS = sa.Table(
    "seats",
    METADATA,
    sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("place", sa.String(10), nullable=False, unique=True),
    sa.Column("holder", sa.String(200), nullable=False),
    sa.Column("note", sa.String(10), nullable=False),
    sa.Column("version", sa.BigInteger(), nullable=False),
)


class Seat(VersionedRow, table=SEATS, key="id", unique=("place",), index=("holder",)):
    id: int
    place: str
    holder: str = ""
    note: str = ""


def service_of(command: type[Command], **options: Any) -> Service:
    service = Service("seats", models=(Seat,))

    @service.handles(command, **options)
    def add(work: UnitOfWork, command: Any) -> None:
        if command.place is not None and not work.exists(Seat, place=command.place):
            work.add(Seat(id=work.next_id(Seat), place=command.place))

    return service


class Add(Command, type="seats.add"):
    place: str


class AddVisible(Command, type="seats.add"):
    place: Annotated[str, Meta(max_length=10, pattern=VISIBLE)]


class AddNamed(Command, type="seats.add"):
    place: Name


class AddShort(Command, type="seats.add"):
    place: Annotated[str, Meta(max_length=10)] | None


class AddMany(Command, type="seats.add"):
    place: Annotated[str, Meta(pattern=r"\A[A-Z0-9]{1,10}\Z")]
    id: Id
    note: str
    holder: Name


class AddChecked(Command, type="seats.add"):
    place: str

    def __post_init__(self) -> None:
        """It may refuse what its types take."""


@pytest.mark.parametrize(
    ("command", "problems"),
    [
        (Add, {"place": "'a ': text that ends in a space, by which rows are found"}),
        (AddShort, {"place": "'a ': text that ends in a space, by which rows are found"}),
        (AddNamed, {"place": "'aaaaaaaaaaa': 11 characters, and at most 10 fit"}),
        (AddVisible, {}),
        (AddMany, {"id": "2147483648: an integer out of range: -2147483648 to 2147483647"}),
        (AddChecked, {}),
    ],
)
def test_an_argument_that_takes_more_than_its_column_is_named(command: type[Command], problems: dict[str, str]) -> None:
    found = {each.field: each.problem for each in wide_arguments(service_of(command))}
    assert found == problems
    assert list(wide_arguments(service_of(command, is_internal=True))) == []


def test_a_column_of_another_class_may_be_the_one() -> None:
    class Row(VersionedRow, table="others", key="id", unique=("id",)):
        id: int

    service = service_of(AddMany)
    assert list(wide_arguments(service.replace(models=(Seat, Row)))) == []


def test_the_start_of_a_process_says_so() -> None:
    with structlog.testing.capture_logs() as logs:
        check_services(service_of(Add), service_of(AddVisible))
    (line,) = [each for each in logs if each["event"] == "argument_wider_than_column"]
    assert (line["lane"], line["type"], line["field"], line["column"]) == ("seats", "seats.add", "place", "Seat.place")


@pytest.mark.authors
def test_simulate_finds_it() -> None:
    with pytest.raises(SimulationFailed, match="ends in a space, by which rows are found"):
        simulate(service_of(AddShort), seeds=20)
    simulate(service_of(AddVisible), seeds=5)
