"""Tables and columns whose names are words of SQL's own, on every store: they are quoted wherever they stand."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator.client.database import close_database, open_database, reading_problem
from coordinator.client.repository import open_repository
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.rows import Row, RowSelection, VersionedRow, key_of
from coordinator.service.service import Service
from coordinator.stores.open import open_admin, open_store
from coordinator.stores.port import Read, Store
from tests.support.databases import FreshDatabases
from tests.support.store_contract import NOW, changes, commit

SHOP = Service("shop")


@SHOP.row
class Order(
    VersionedRow, table="order", key=("group", "order"), unique=("user",), index=(("select", "offset"), "desc")
):
    """Reserved by PostgreSQL, MySQL, MariaDB or SQLite, or by all of them."""

    group: int
    order: str
    user: str
    select: str
    offset: int
    desc: int | None = None
    values: dict[str, int]
    default: float = 0.5
    check: bool = True
    end: str | None = None
    rank: int = 0
    system: int = 0
    lateral: int = 0
    collation: int = 0
    tablesample: int = 0
    returning: int = 0
    nothing: int = 0
    qualify: int = 0
    primary: int = 0
    references: int = 0


@SHOP.row
class Lateral(Row, table="lateral", key="concurrently"):
    """SQLAlchemy does not know that these are reserved, nor some of those above."""

    concurrently: int
    tablesample: str = ""


@SHOP.row
class Table(Row, table="table", key="natural"):
    """With a key of one column."""

    natural: int
    current_user: str = ""
    offset: int = 0
    rows: int = 0


@pytest.fixture(params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL", "ITEMS_DATABASE_URL", "a file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "a file":
        made = f"sqlite:///{tmp_path}/shop.db"
    else:
        databases: FreshDatabases = request.getfixturevalue("databases")
        made = databases.new(request.param)
    migrate(SHOP, DatabaseSettings(database_url=made))
    return made


ORDERS = [
    Order(group=group, order=f"o{group}", user=f"u{group}", select="a", offset=3, values={"a": group})
    for group in (1, 2, 3)
]


def loaded(store: Store, *reads: Read | RowSelection[Any]) -> list[list[Any]]:
    transaction = store.begin()
    try:
        return transaction.load(list(reads))
    finally:
        transaction.rollback()


def test_a_lane_reads_and_writes_them(url: str) -> None:
    with closing(open_store(url, SHOP)) as store:
        store.check(SHOP.models, must_sync=False)
        lease = store.take_over("holder", NOW)
        lease = commit(store, lease, changes(inserts=[*ORDERS, Table(natural=7), Lateral(concurrently=7)]))
        for _ in range(5):
            store.look()
        by_key, by_user, chosen, tables = loaded(
            store,
            Read(Order, ("group", "order"), [(1, "o1"), (2, "o2")]),
            Read(Order, "user", ["u3"]),
            Order.where(select="a", limit=10),
            Read(Table, "natural", [7]),
        )
        assert (sorted(by_key, key=key_of), by_user, chosen, tables) == (
            ORDERS[:2],
            ORDERS[2:],
            ORDERS,
            [Table(natural=7)],
        )
        changed = ORDERS[0].replace(end="z", desc=1, version=2, values={"b": 2})
        lease = commit(store, lease, changes(updates=[changed], deletes=[ORDERS[1]]))
        assert loaded(store, Order.where(select="a", limit=10)) == [[changed, ORDERS[2]]]
        assert loaded(store, Order.where(desc=1, limit=10)) == [[changed]]
        transaction = store.begin()
        assert transaction.scan(Order, 10, where=("group", 3)) == [ORDERS[2]]
        assert transaction.last(Order, 1) == [ORDERS[2]]
        transaction.rollback()


async def test_a_gateway_and_an_operator_read_them(url: str) -> None:
    with closing(open_store(url, SHOP)) as store:
        commit(
            store, store.take_over("holder", NOW), changes(inserts=[*ORDERS, Table(natural=7), Lateral(concurrently=7)])
        )
    database = open_database(url)
    try:
        assert await reading_problem(database, "shop", ["order", "table", "lateral"]) is None
        orders = open_repository(database, SHOP, Order)
        assert await orders.get((2, "o2")) == ORDERS[1]
        assert (await orders.page((1, "o1"), 1)).items == ORDERS[1:2]
        assert (await orders.page(None, 10, {"select": "a", "offset": 3})).items == ORDERS
        assert await open_repository(database, SHOP, Table).get(7) == Table(natural=7)
        assert await open_repository(database, SHOP, Lateral).get(7) == Lateral(concurrently=7)
    finally:
        await close_database(database)
    with closing(open_admin(url, "shop")) as admin:
        assert admin.rows(SHOP, Order, {"select": "a", "offset": 3}, 10) == ORDERS
        found = admin.keeping([Order], ["u2"])
        assert found is not None
        assert found.value == (2, "o2")
        assert admin.keeping([Lateral], ["u2"]) is None
