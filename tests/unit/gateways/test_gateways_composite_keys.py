"""Keys of several columns: in declarations, in the lane and its kit, and in a made gateway."""

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from msgspec import Meta
from sqlalchemy import inspect, text

from coordinator import Command, ConfigurationError, Rejected, Row, Service, UnitOfWork, VersionedRow
from coordinator.http import gateway_of
from coordinator.http.service_gateway import REPOSITORIES
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.defects import defects_of
from coordinator.stores.lane_tables import ParkedCommand
from coordinator.stores.open import open_store
from coordinator.stores.row_checks import WrongUse
from coordinator.testing import LaneInMemory, simulate
from tests.support.databases import sql_engine
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import RESULTS
from tests.unit.gateways.test_gateways_made import Shelf

ORDERS = Service("orders")


@ORDERS.row(is_public=True)
class Line(VersionedRow, table="lines", key=("order_id", "line"), unique=("code",)):
    # In another order than the key's.
    line: int
    order_id: int
    quantity: int
    code: str | None = None


@ORDERS.row(is_public=True)
class Place(VersionedRow, table="places", key=("hall", "seat")):
    hall: Annotated[str, Meta(max_length=40)]
    seat: UUID


class PutLine(Command, type="orders.put_line"):
    order_id: int
    line: int
    quantity: int


class TakeLine(Command, type="orders.take_line"):
    order_id: int
    line: int


@ORDERS.handles(PutLine, target=lambda command: Line.at(command.order_id, command.line), on_failure="park-key")
def put_line(work: UnitOfWork, command: PutLine) -> Line:
    if command.quantity < 0:
        raise RuntimeError("less than nothing")
    line = work.get(Line, (command.order_id, command.line))
    if line is None:
        return work.add(Line(order_id=command.order_id, line=command.line, quantity=command.quantity))
    return work.save(line.replace(quantity=command.quantity))


@ORDERS.handles(TakeLine, target=lambda command: Line.at(command.order_id, command.line))
def take_line(work: UnitOfWork, command: TakeLine) -> Line:
    line = work.get(Line, (command.order_id, command.line))
    if line is None:
        raise Rejected("line_not_found", "there is no such line")
    work.remove(line)
    return line


def test_a_lane_finds_changes_and_removes_such_rows() -> None:
    lane = LaneInMemory(ORDERS)
    lane.given(Line(order_id=7, line=3, quantity=1), Line(order_id=6, line=9, quantity=1))
    assert lane.apply(PutLine(order_id=7, line=2, quantity=5)).result(Line).version == 1
    assert lane.apply(PutLine(order_id=7, line=2, quantity=6), expected_version=1).result(Line).quantity == 6
    assert lane.apply(PutLine(order_id=7, line=2, quantity=7), expected_version=1).rejected_with("version_conflict")
    assert lane.apply(TakeLine(order_id=7, line=3)).applied
    assert lane.apply(TakeLine(order_id=3, line=7)).rejected_with("line_not_found")
    assert lane.row(Line, (7, 2)) == Line(order_id=7, line=2, quantity=6, version=2)
    assert [(row.order_id, row.line) for row in lane.rows(Line)] == [(6, 9), (7, 2)]


def test_commands_wait_behind_a_failure_of_their_own_row_only() -> None:
    lane = LaneInMemory(ORDERS)
    assert lane.apply(PutLine(order_id=7, line=2, quantity=-1)).failed_with("handler_error")
    (parked,) = lane.rows(ParkedCommand)
    assert parked.ordering_key == "lines.order_id,line=[7,2]"
    assert lane.apply(PutLine(order_id=7, line=3, quantity=1)).applied
    assert len(lane.rows(ParkedCommand)) == 1
    with pytest.raises(RuntimeError, match="waits behind"):
        lane.apply(PutLine(order_id=7, line=2, quantity=1))
    assert len(lane.rows(ParkedCommand)) == 2


def test_every_history_of_such_commands_ends_alike() -> None:
    simulate(ORDERS, seeds=60, elsewhere=False, may_fail=True)


class Strange(Command, type="orders.strange"):
    how: str


WRONG: dict[str, Any] = {
    "half a key": 7,
    "too many": (7, 2, 1),
    "another type": (7, "2"),
    "a list": [7, 2],
    "None": (7, None),
    "too large": (7, 2**63),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_no_key_fails_its_command(how: str) -> None:
    def look(work: UnitOfWork, command: Strange) -> None:
        work.get(Line, WRONG[command.how])

    service = Service("orders", models=[Line])
    service.handles(Strange)(look)
    lane = LaneInMemory(service)
    outcome = lane.apply(Strange(how=how))
    assert outcome.failed_with("handler_error") or outcome.failed_with("invalid_row"), outcome


def test_a_reference_takes_the_columns_in_their_order() -> None:
    assert Line.at(7, 2).value == (7, 2)
    assert Line.at(code="a").column == "code"
    for arguments in ((), (7,), (7, 2, 1)):
        with pytest.raises(TypeError, match=r"Line.at takes a whole key \(order_id, line\)"):
            Line.at(*arguments)
    with pytest.raises(TypeError, match=r"Line.at takes a whole key"):
        Line.at(7, 2, code="a")
    assert Line.at(line=2, order_id=7) == Line.at(7, 2)
    # What only looked sound would fail each of its commands.
    for wrong in ({"order_id": 7}, {"order_id": 7, "code": "a"}, {"order_id": 7, "line": 2, "code": "a"}):
        with pytest.raises(TypeError, match=r"takes a whole key \(order_id, line\), or one unique column"):
            Line.at(**wrong)
    with pytest.raises(TypeError, match=r"found by .*'code', and 'lines' is none of them"):
        Line.at(order_id=7, lines=2)


def test_the_first_columns_are_an_index_and_others_are_not() -> None:
    assert Line.where(order_id=7, limit=10).where == (("order_id", 7),)
    with pytest.raises(TypeError, match=r"its indexes are \(order_id, line\), \(code\)"):
        Line.where(line=2, limit=10)
    with pytest.raises(TypeError):
        Line.where(order_id=None, limit=10)


def test_they_are_not_numbered_by_themselves() -> None:
    def number(work: UnitOfWork, _command: Strange) -> None:
        work.next_id(Line)

    service = Service("orders", models=[Line])
    service.handles(Strange)(number)
    assert LaneInMemory(service).apply(Strange(how="")).failed_with("handler_error")


class OneTuple(Row, table="one", key=("id",)):
    id: int


class Twice(Row, table="twice", key=("id", "id")):
    id: int


class Unknown(Row, table="unknown", key=("id", "place")):
    id: int


class MayBeNone(Row, table="none", key=("id", "place")):
    id: int
    place: str | None


class OfBytes(Row, table="bytes", key=("id", "place")):
    id: int
    place: bytes


class OfDays(Row, table="days", key=("id", "day")):
    id: int
    day: date


class Listed(Row, table="listed", key=["id", "place"]):
    id: int
    place: int


class Empty(Row, table="empty", key=()):
    id: int


class Indexed(Row, table="indexed", key=("id", "place"), index=(("holder", "place", "id"),)):
    id: int
    place: int
    holder: str


class Doubled(Row, table="doubled", key=("id", "place"), index=("id",)):
    id: int
    place: int


class Turned(Row, table="turned", key=("id", "place"), index=(("place", "id"),)):
    id: int
    place: int


class Behind(Row, table="behind", key=("id", "place"), index=(("holder", "place"),)):
    id: int
    place: int
    holder: str


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (OneTuple, "OneTuple: key=('id',) is one column in a tuple: write key=\"id\""),
        (Twice, "Twice: key=('id', 'id') names a column twice"),
        (Unknown, "Unknown has no field place, which is to be its key"),
        (MayBeNone, "MayBeNone.place: a key is never None"),
        (OfBytes, "OfBytes.place: a key is an int, a str or a UUID"),
        (OfDays, "OfDays.day: a key is an int, a str or a UUID: of a time take a text, always in one form and in UTC"),
        (Listed, "Listed names no key"),
        (Empty, "Empty names no key"),
        (Indexed, "Indexed: its key, id, place, ends each index by itself: leave one of its columns out there"),
        (Doubled, "Doubled: its key, id, place, and its first columns are indexes: leave id out of `index`"),
        (Turned, "Turned: its key, id, place, and its first columns are indexes: leave place, id out of `index`"),
        (Behind, "Behind: an index has columns of the key first, in their order: write it as ('place', 'holder')"),
    ],
)
def test_a_key_that_cannot_be_is_found_at_the_start(model: type[Row], expected: str) -> None:
    found = defects_of(Service("orders", models=[model]))
    assert [line for line in found if expected in line], found


def test_the_table_has_its_key_in_the_key_s_order(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    migrate(ORDERS, DatabaseSettings(database_url=url))
    engine = sql_engine(url)
    with engine.connect() as connection:
        assert inspect(connection).get_pk_constraint("lines")["constrained_columns"] == ["order_id", "line"]
    engine.dispose()
    store = open_store(url, ORDERS)
    store.check(ORDERS.models, must_sync=False)
    store.close()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("line, order_id", "rows are found by order_id, line, and its primary key is (line, order_id): in this order"),
        ("order_id", "rows are found by order_id, line, and its primary key is (order_id)"),
    ],
)
def test_a_table_that_is_there_must_have_that_key(tmp_path: Path, key: str, expected: str) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    engine = sql_engine(url)
    with engine.connect() as connection:
        connection.execute(
            text(
                "CREATE TABLE lines (order_id BIGINT NOT NULL, line BIGINT NOT NULL, quantity BIGINT NOT NULL, "
                f"code VARCHAR(255) UNIQUE, version BIGINT NOT NULL, PRIMARY KEY ({key}))"
            )
        )
    engine.dispose()
    with pytest.raises(ConfigurationError) as refused:
        migrate(ORDERS, DatabaseSettings(database_url=url))
    assert expected in str(refused.value)


LINES = [Line(order_id=order, line=line, quantity=1) for order in (7, 10) for line in (2, 10)]
SEATS = [Place(hall=hall, seat=UUID(int=number)) for hall in ("a", "a/b", "ä ö", "", "a,b") for number in (1, 2)]


@pytest.fixture
async def gateway(start: Start, monkeypatch: pytest.MonkeyPatch) -> RunningGateway:
    monkeypatch.setitem(RESULTS, "orders.put_line", LINES[0])
    running = await start(gateway_of(ORDERS))
    repositories: Any = running.app[REPOSITORIES]
    repositories |= {Line: Shelf(*LINES), Place: Shelf(*SEATS)}
    return running


async def test_a_row_is_at_the_path_of_its_key(gateway: RunningGateway) -> None:
    response, body = await gateway.call("GET", "/orders/lines/7/10")
    assert (response.status, body["order_id"], body["line"], response.headers["ETag"]) == (200, 7, 10, '"1"')
    response, _ = await gateway.call(
        "POST", "/orders/commands/put_line", json={"order_id": 7, "line": 2, "quantity": 1}
    )
    assert response.headers["Content-Location"] == "/orders/lines/7/2"
    for path in (
        "/orders/lines/7",
        "/orders/lines/7/3",
        "/orders/lines/7/02",
        "/orders/lines/7/2/1",
        "/orders/lines/7/",
    ):
        response, problem = await gateway.call("GET", path)
        assert response.status == 404, (path, problem)


async def test_texts_and_uuids_in_paths(gateway: RunningGateway) -> None:
    from urllib.parse import quote

    from yarl import URL

    for seat in SEATS:
        path = f"/orders/places/{quote(seat.hall, safe='')}/{seat.seat}"
        url = URL(f"http://127.0.0.1:{gateway.port}{path}", encoded=True)
        async with gateway.session.get(url) as response:
            assert response.status == 200, path
            assert (await response.json())["hall"] == seat.hall


async def test_pages_go_on_behind_a_key(gateway: RunningGateway) -> None:
    for table, rows in (("lines", LINES), ("places", SEATS)):
        found: list[Any] = []
        after: dict[str, str] = {}
        while True:
            response, page = await gateway.call("GET", f"/orders/{table}", params={"limit": "3", **after})
            assert response.status == 200, page
            found += page["items"]
            if page["next"] is None:
                break
            after = {"after": json.dumps(page["next"])}
        assert len(found) == len(rows)
        assert len({json.dumps(each, sort_keys=True) for each in found}) == len(rows)


@pytest.mark.parametrize("after", ["7", "[7]", "[7,2,1]", '["7",2]', "[7,null]", "(7,2)", "[7,2", "{}", "[" * 500, ""])
async def test_what_is_no_key_of_a_page_is_refused(gateway: RunningGateway, after: str) -> None:
    response, problem = await gateway.call("GET", "/orders/lines", params={"after": after})
    assert (response.status, problem["code"], problem["field"]) == (400, "invalid_query", "after")


def test_an_unknown_unique_column_is_none() -> None:
    from coordinator.stores.row_checks import RowChecks

    check = RowChecks(ORDERS).of(Line)
    for column in ("order_id", ("line", "order_id"), ("order_id",), None):
        with pytest.raises(WrongUse, match=r"Line is found by 'code', \('order_id', 'line'\)"):
            check.key(column, 7)  # type: ignore[arg-type]
