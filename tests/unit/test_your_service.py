"""docs/YOUR_SERVICE.md: its Python is run as it stands."""

import importlib
import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import MetaData
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from coordinator import saga_steps
from coordinator.client.database import close_database, open_database
from coordinator.http.app import create_app
from coordinator.migrations.migrate import migrate
from coordinator.registry import App, Registry
from coordinator.runtime.settings import DatabaseSettings, GatewaySettings
from coordinator.service.defects import defects_of
from coordinator.service.unhandled import unhandled_commands
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.open import open_store
from coordinator.stores.sqlite.store import create_schema
from coordinator.testing import LaneInMemory, simulate
from coordinator.worker.inprocess import InProcessWrites

pytestmark = pytest.mark.authors

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "YOUR_SERVICE.md").read_text()


def blocks(file: str) -> list[str]:
    found = re.findall(rf"^```python\n# {re.escape(file)}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found
    return list(found)


SERVICES = ("seats", "holds", "refunds", "shifts", "vouchers", "purchases", "notes")
FILES = {name: (f"shop/{name}.py", "/".join(("tests", f"test_{name}.py"))) for name in SERVICES}


ROUTES = ("shop/http.py", "shop/app.py")
TICKETS = "shop/tickets.py"
MIGRATED = ("shop/vouchers.py, with revisions", "shop/migrations/vouchers_0001.py")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package of the document, in files, since `simulate` has other processes import it."""
    folder = tmp_path_factory.mktemp("document")
    package = folder / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    for file, _ in FILES.values():
        (folder / file).write_text("\n".join(blocks(file)))
    names = ("shop", *(f"shop.{service}" for service in SERVICES))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        yield
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module", params=FILES)
def module(request: pytest.FixtureRequest, shop: None) -> dict[str, Any]:
    made = vars(importlib.import_module(f"shop.{request.param}"))
    return made | {"service": made[request.param]}


def test_its_service_is_declared_rightly(module: dict[str, Any]) -> None:
    assert defects_of(module["service"]) == []
    assert unhandled_commands(module["service"]) == []


def test_its_tests_pass(module: dict[str, Any]) -> None:
    """As pytest finds them: with no names but those that they import."""
    (block,) = blocks(FILES[module["service"].name][1])
    names: dict[str, Any] = {}
    exec(block, names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test(LaneInMemory(module["service"]))


def test_its_handlers_do_the_same_in_every_history(module: dict[str, Any]) -> None:
    simulate(module["service"], seeds=5)


@pytest.mark.parametrize("module", ["seats"], indirect=True)
async def test_its_routes_serve(module: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As one process does, on SQLite, with the application that the document names."""
    service, url = module["service"], f"sqlite:///{tmp_path}/seats.db"
    for file in ROUTES:
        made = ModuleType(file.removesuffix(".py").replace("/", "."))
        monkeypatch.setitem(sys.modules, made.__name__, made)
        exec(blocks(file)[0], vars(made))
    app: App = vars(sys.modules["shop.app"])["APP"]
    gateway = Registry(app).gateway("seats")
    create_schema(f"{tmp_path}/seats.db", service)
    database = open_database(url)
    async with InProcessWrites({"seats": open_store(url, service)}, [service]) as writes:
        served = create_app(
            gateway,
            transport=writes,
            database=database,
            command_log=gateway.open_log(database),
            settings=GatewaySettings(),
        )
        async with TestClient(TestServer(served)) as client:
            for place in ("A1", "A2", "A3"):
                assert (await client.post("/seats/commands/add", json={"place": place})).status == 200
            for number in (1, 3):
                booked = await client.put(f"/seats/{number}/holder", json={"holder": "ada"})
                assert (booked.status, (await booked.json())["holder"]) == (200, "ada")
            page = await (await client.get("/seats/held", params={"holder": "ada", "limit": 1})).json()
            assert ([row["id"] for row in page["items"]], page["next"]) == ([1], 1)
            page = await (await client.get("/seats/held", params={"holder": "ada", "after": 1})).json()
            assert ([row["id"] for row in page["items"]], page["next"]) == ([3], None)
            assert (await client.get("/seats/2")).headers["ETag"] == '"1"'
            answers = {
                "/seats/held": (400, "invalid_query"),
                "/seats/held?holder=ada&place=A1": (400, "invalid_query"),
                "/seats/07": (404, "seat_not_found"),
                "/seats/9": (404, "seat_not_found"),
            }
            for path, expected in answers.items():
                answer = await client.get(path)
                assert (answer.status, (await answer.json())["code"]) == expected, path
            taken = await client.put("/seats/1/holder", json={"holder": "bob"})
            assert (taken.status, (await taken.json())["code"]) == (409, "taken")
    await close_database(database)


async def test_its_list_by_a_key_of_several_columns_has_all_pages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = ModuleType("shop.tickets")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(blocks(TICKETS)[0], vars(made))
    service, ticket = made.tickets, made.Ticket
    keys = [("A", 1), ("A", 2), ("B", 1), ('a, "b" & c', 1)]
    create_schema(f"{tmp_path}/tickets.db", service)
    with closing(sqlite3.connect(f"{tmp_path}/tickets.db")) as connection, connection:
        insert = "INSERT INTO tickets (show, number, holder, version) VALUES (?, ?, 'ada', 1)"
        connection.executemany(insert, keys)
    database = open_database(f"sqlite:///{tmp_path}/tickets.db")
    async with InProcessWrites({"tickets": MemoryStore(MemoryDatabase())}, [service]) as writes:
        log = made.GATEWAY.open_log(database)
        served = create_app(
            made.GATEWAY, transport=writes, database=database, command_log=log, settings=GatewaySettings()
        )
        async with TestClient(TestServer(served)) as client:
            shown, params = [], {"holder": "ada", "limit": "1"}
            for _ in keys:
                page = await (await client.get("/tickets/held", params=params)).json()
                shown += [(row["show"], row["number"]) for row in page["items"]]
                params["after"] = json.dumps(page["next"])
            assert shown == keys
            assert page["next"] is None
            for after in ("1", "[]", '["A"]', '["A","1"]', '["A\u0000",1]', '["A",1.0]', "[" * 1500):
                answer = await client.get("/tickets/held", params={"holder": "ada", "after": after})
                told = await answer.json()
                assert (answer.status, told["code"]) == (400, "invalid_query"), after
                assert "after must be the key of a row" in told["detail"]
    await close_database(database)
    assert ticket.key == ("show", "number")


def test_its_first_revision_makes_the_tables_that_a_lane_needs(
    shop: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its declaration takes the place of the one without revisions."""
    (code,), (declared,), (revision,) = (blocks(file) for file in ("shop/vouchers.py", *MIGRATED))
    plain = 'vouchers = Service("vouchers")\nvouchers.row(SagaStep)\n'
    assert plain in code
    (tmp_path / "shop" / "migrations").mkdir(parents=True)
    (tmp_path / MIGRATED[1]).write_text(revision)
    monkeypatch.setitem(sys.modules, "migrated", made := ModuleType("migrated"))
    made.__file__ = f"{tmp_path}/shop/vouchers.py"
    exec(code.replace(plain, declared), vars(made))
    url = f"sqlite:///{tmp_path}/vouchers.db"
    migrate(made.vouchers, DatabaseSettings(database_url=url))
    store = open_store(url, made.vouchers)
    store.check(made.vouchers.models)
    store.close()
    with closing(sqlite3.connect(f"{tmp_path}/vouchers.db")) as connection:
        indexes = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert "saga_steps_of" in indexes
    made_by_revision = str(CreateTable(saga_steps(MetaData())).compile(dialect=mysql.dialect()))
    assert "COLLATE utf8mb4_bin" in made_by_revision


def test_all_its_python_is_run() -> None:
    run = [
        block for files in (*FILES.values(), ROUTES, (TICKETS,), MIGRATED) for file in files for block in blocks(file)
    ]
    assert len(re.findall(r"^```python$", TEXT, re.MULTILINE)) == len(run)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([A-Z_]+\.md)", TEXT):
        assert (ROOT / "docs" / target).is_file(), target
