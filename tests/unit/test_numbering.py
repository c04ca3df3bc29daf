"""`work.next_id(Seat)`: ids above those of the rows that are there, and the defaults of fields that rows lack."""

import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest
from msgspec import field

from coordinator import Command, Row, Service, UnitOfWork, VersionedRow
from coordinator.service.commands import INTEGER_MAX
from coordinator.stores.lane_tables import Series
from coordinator.stores.mongodb.documents import row_of_document
from coordinator.stores.port import Read
from coordinator.stores.row_makers import row_of_mapping
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from coordinator.testing import LaneInMemory

seats = Service("seats")


@seats.row
class Seat(VersionedRow, table="seats", key="id"):
    id: int
    tags: list[str] = field(default_factory=list)
    rows: int = 3


@seats.row
class Ticket(Row, table="tickets", key="id"):
    id: UUID


class AddSeat(Command, type="seats.add"):
    is_refused: bool = False


class AddTicket(Command, type="seats.ticket"):
    pass


@seats.handles(AddSeat)
def add(work: UnitOfWork, command: AddSeat) -> Seat:
    seat = work.add(Seat(id=work.next_id(Seat)))
    if command.is_refused:
        raise RuntimeError
    return seat


@seats.handles(AddTicket)
def add_ticket(work: UnitOfWork, command: AddTicket) -> None:
    work.next_id(Ticket)


def _ids(lane: LaneInMemory) -> list[int]:
    return [row.id for row in lane.rows(Seat)]


def test_ids_begin_with_one_where_there_are_no_rows() -> None:
    lane = LaneInMemory(seats)
    assert lane.apply(AddSeat(is_refused=True)).failed_with("handler_error")
    assert [lane.apply(AddSeat()).result(Seat).id for _ in range(3)] == [1, 2, 3]


def test_ids_begin_above_the_rows_that_a_test_is_given() -> None:
    lane = LaneInMemory(seats)
    lane.given(Seat(id=4), Seat(id=17))
    assert lane.apply(AddSeat(is_refused=True)).failed_with("handler_error")
    assert lane.apply(AddSeat()).result(Seat).id == 18
    assert lane.apply(AddSeat(is_refused=True)).failed_with("handler_error")
    assert lane.apply(AddSeat()).result(Seat).id == 19
    assert Series(name="seats", value=19) in lane.rows(Series)


def test_rows_below_one_leave_the_ids_as_they_are() -> None:
    lane = LaneInMemory(seats)
    lane.given(Seat(id=-5))
    assert lane.apply(AddSeat()).result(Seat).id == 1
    assert _ids(lane) == [-5, 1]


def test_no_id_is_above_what_json_keeps() -> None:
    lane = LaneInMemory(seats)
    lane.given(Seat(id=INTEGER_MAX))
    tried = lane.apply(AddSeat())
    assert tried.failed_with("handler_error")
    assert str(INTEGER_MAX) in (tried.reason or "")


def test_only_rows_whose_key_is_an_int_are_numbered() -> None:
    tried = LaneInMemory(seats).apply(AddTicket())
    assert tried.failed_with("handler_error")
    assert "next_id(Ticket): its key is no int, so give the series a name" in (tried.reason or "")


def test_a_field_that_a_row_lacks_has_its_default(tmp_path: Path) -> None:
    """Such as the version of a row that is older than the column."""
    path = str(tmp_path / "seats.db")
    create_schema(path, seats)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE seats")
        connection.execute("CREATE TABLE seats (id BIGINT PRIMARY KEY, tags TEXT, rows INTEGER, version BIGINT)")
        connection.execute("INSERT INTO seats VALUES (1, NULL, NULL, NULL), (2, '[\"a\"]', 0, 0)")
        connection.commit()
    store = SqliteStore(path, seats)
    transaction = store.begin()
    (found,) = transaction.load([Read(Seat, "id", [1, 2])])
    transaction.rollback()
    store.close()
    assert found == [Seat(id=1), Seat(id=2, tags=["a"], rows=0, version=0)]


def test_so_it_is_where_a_document_or_a_read_lacks_it() -> None:
    assert row_of_document(Seat, {"_id": 1}) == Seat(id=1)
    first = row_of_mapping(Seat, {"id": 1, "tags": None, "rows": None, "version": None})
    second = row_of_mapping(Seat, {"id": 1, "tags": None, "rows": None, "version": None})
    assert first == Seat(id=1)
    assert first.tags is not second.tags


def test_ids_begin_above_the_rows_that_the_batch_has_added_and_not_above_those_that_it_has_removed() -> None:
    service = Service("seats", models=[Seat])

    @service.handles(AddSeat)
    def number(work: UnitOfWork, command: AddSeat) -> Seat:
        if command.is_refused:
            work.add(Seat(id=50))
        else:
            work.remove(Seat(id=9))
        return work.add(Seat(id=work.next_id(Seat)))

    for adds, first in ((True, 51), (False, 5)):
        lane = LaneInMemory(service)
        lane.given(Seat(id=4), Seat(id=9))
        assert lane.apply(AddSeat(is_refused=adds)).result(Seat).id == first


@pytest.mark.parametrize("name", ["seats", "numbers"])
def test_a_series_with_a_name_of_its_own_begins_with_one(name: str) -> None:
    service = Service("seats", models=[Seat])

    @service.handles(AddSeat)
    def number(work: UnitOfWork, command: AddSeat) -> Seat:
        return work.add(Seat(id=work.next_id(name)))

    lane = LaneInMemory(service)
    lane.given(Seat(id=17))
    assert lane.apply(AddSeat()).result(Seat).id == 1
