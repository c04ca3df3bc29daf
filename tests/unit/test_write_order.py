"""The order of writes, apart from any database: what it costs, and what it leaves alone."""

from collections.abc import Callable

from coordinator.service.rows import Row
from coordinator.stores.port import Changes
from coordinator.stores.write_order import Reference, Uniqueness, WriteOrder
from tests.support.reference_contract import ADA, BOB, OF_ADA, OF_BOB, Customer, Order, Part, Seat

ORDER = WriteOrder(
    (Order, Customer, Part),
    (Reference(Order, ("customer_id",), Customer, ("id",)), Reference(Part, ("whole_id",), Part, ("id",))),
    (Uniqueness(Customer, ("email",)),),
)
NEW = Customer(id=3)


def before(*rows: Row) -> Callable[[Row], Row | None]:
    known = {(type(row), row.id): row for row in rows}  # type: ignore[attr-defined]
    return lambda row: known.get((type(row), row.id))  # type: ignore[attr-defined]


def test_lists_in_which_no_row_waits_are_written_whole() -> None:
    inserts: list[list[Row]] = [[OF_ADA, Order(id=2, customer_id=3)], [ADA, NEW]]
    deletes: list[list[Row]] = [[BOB], [Order(id=3, customer_id=2)]]
    steps = ORDER.steps(Changes(deletes, [], inserts))
    written = [*deletes[::-1], *inserts[::-1]]
    assert [kind for kind, _ in steps] == ["delete", "delete", "insert", "insert"]
    assert all(rows is each for (_, rows), each in zip(steps, written, strict=True))


def test_only_the_rows_that_wait_cost_statements() -> None:
    updated: list[Row] = [Order(id=n, customer_id=3 if n % 2 else 1) for n in range(1, 101)]
    known = before(*(Order(id=n, customer_id=1, note="old") for n in range(1, 101)))
    steps = ORDER.steps(Changes([], [updated], [[NEW]], known))
    assert [(kind, len(rows)) for kind, rows in steps] == [("update", 50), ("insert", 1), ("update", 50)]


def test_rows_of_one_statement_are_inserted_after_those_to_which_they_refer() -> None:
    chain: list[Row] = [Part(id=n, whole_id=n + 1 if n < 1000 else None) for n in range(1, 1001)]
    assert ORDER.steps(Changes([], [], [chain])) == [("insert", chain[::-1])]


def test_rows_that_wait_for_each_other_are_written_in_the_usual_order_after_the_others() -> None:
    swapped: list[Row] = [Customer(id=1, email="bob"), Customer(id=2, email="ada"), Customer(id=3, email="new")]
    changes = Changes(
        [], [swapped, [OF_BOB]], [], before(ADA, BOB, Customer(id=3, email="old"), OF_ADA), has_moves=True
    )
    assert ORDER.steps(changes) == [("update", [swapped[2]]), ("update", [OF_BOB]), ("update", swapped[:2])]


def test_without_references_nothing_is_looked_at() -> None:
    def unasked(row: Row) -> Row | None:
        raise AssertionError(row)

    rows: list[Row] = [OF_BOB]
    assert WriteOrder((Order,)).steps(Changes([], [rows], [], unasked)) == [("update", rows)]


def test_what_only_the_database_calls_unique_is_looked_at_where_rows_of_its_table_change() -> None:
    order = WriteOrder((Order, Seat), uniques=(Uniqueness(Seat, ("hall", "place")),))
    there = [Seat(id=n, hall=1, place=str(n)) for n in (1, 2)]
    first, second = Seat(id=1, hall=1, place="2"), Seat(id=2, hall=1, place="3")
    changes = Changes([], [[first, second]], [], before(*there))
    assert order.steps(changes) == [("update", [second]), ("update", [first])]


def test_where_rows_are_written_one_by_one_those_that_wait_for_each_other_cost_no_further_step() -> None:
    there = [Seat(id=n, hall=1, place=str(n)) for n in range(1, 101)]
    moved: list[Row] = [Seat(id=n, hall=1, place=str(n + 1)) for n in range(1, 101)]
    changes = Changes([], [moved], [], before(*there))
    uniques = (Uniqueness(Seat, ("hall", "place")),)
    assert WriteOrder((Seat,), uniques=uniques, one_by_one=True).steps(changes) == [("update", moved[::-1])]
    assert len(WriteOrder((Seat,), uniques=uniques).steps(changes)) == 100
