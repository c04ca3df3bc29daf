"""`served`: a gateway in a test, with its lane."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from coordinator import (
    Call,
    Command,
    Effect,
    EffectHandler,
    GivenUp,
    Id,
    Principal,
    Rejected,
    Service,
    UnitOfWork,
    VersionedRow,
    any_principal,
)
from coordinator.http import Dependencies, gateway_of, json_response, principal_of
from coordinator.stores.open import open_store
from coordinator.stores.port import BatchFault
from coordinator.testing import gateway as gateway_under_test
from coordinator.testing import served

pytestmark = pytest.mark.authors

called: list[Effect] = []
closed: list[object] = []


class Pay(Effect, type="tills.pay"):
    id: Id


class Paid(Command, type="tills.paid"):
    id: Id


class Provider:
    def __init__(self) -> None:
        self.handlers = (EffectHandler(Pay, perform=self.pay, give_up=self.give_up),)

    async def pay(self, effect: Pay, call: Call) -> Command:
        del call
        called.append(effect)
        return Paid(id=effect.id)

    def give_up(self, effect: Pay, why: GivenUp) -> Command:
        del why
        return Paid(id=effect.id)

    async def close(self) -> None:
        closed.append(self)


class Sale(VersionedRow, table="sales", key="id"):
    id: int
    state: str = "asked"
    by: str | None = None


class Sell(Command, type="tills.sell"):
    id: Id


def sell(work: UnitOfWork, command: Sell) -> Sale:
    if work.get(Sale, command.id) is not None:
        raise Rejected("sold", "it is sold")
    work.emit(Pay(id=command.id))
    return work.add(Sale(id=command.id, by=work.actor.subject if work.actor else None))


def paid(work: UnitOfWork, command: Paid) -> None:
    sale = work.get(Sale, command.id)
    if sale is not None:
        work.save(sale.replace(state="paid"))


def tills(**options: Any) -> Service:
    made = Service("tills", effects=Provider, **options)
    made.row(is_public=True)(Sale)
    made.handles(Sell)(sell)
    made.handles(Paid, is_internal=True)(paid)
    return made


async def who(request: web.Request) -> web.Response:
    asking = principal_of(request)
    return json_response({"who": None if asking is None else asking.subject})


def attach(app: web.Application, dependencies: Dependencies) -> None: ...


def client_of(app: web.Application) -> TestClient[Any, Any]:
    return TestClient(TestServer(app))


async def test_what_it_issues_is_applied_to_the_rows_that_are_given(tmp_path: Path) -> None:
    service = tills()
    gateway = gateway_of(service, routes=[web.get("/who", who)], attach=attach)
    async with served(gateway, service, tmp_path, given=[Sale(id=7)]) as app, client_of(app) as client:
        assert (await client.post("/tills/commands/sell", json={"id": 7})).status == 409
        assert (await client.post("/tills/commands/sell", json={"id": 8})).status == 200
        page = await (await client.get("/tills/sales")).json()
        assert [(row["id"], row["by"]) for row in page["items"]] == [(7, None), (8, None)]
        assert await (await client.get("/who")).json() == {"who": None}


async def test_an_actor_is_whoever_his_credential_names(tmp_path: Path) -> None:
    service = tills(allow=any_principal)
    gateway = gateway_of(service, routes=[web.get("/who", who)], attach=attach)
    actors = {"key-of-ada": Principal(subject="ada")}
    async with served(gateway, service, tmp_path, actors=actors) as app, client_of(app) as client:
        assert (await client.get("/who")).status == 401
        wrong = await client.get("/who", headers={"Authorization": "Bearer bob"})
        assert (wrong.status, "there are key-of-ada" in await wrong.text()) == (401, True)
        as_ada = {"Authorization": "Bearer key-of-ada"}
        assert await (await client.get("/who", headers=as_ada)).json() == {"who": "ada"}
        sold = await client.post("/tills/commands/sell", json={"id": 1}, headers=as_ada)
        assert (sold.status, (await sold.json())["by"]) == (200, "ada")


async def test_nothing_outside_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called.clear()
    closed.clear()
    asked, call_nobody = asyncio.Event(), gateway_under_test._call_nobody

    async def noted(effect: Effect, call: Call) -> Command:
        asked.set()
        return await call_nobody(effect, call)

    monkeypatch.setattr(gateway_under_test, "_call_nobody", noted)
    service = tills()
    async with served(gateway_of(service), service, tmp_path) as app, client_of(app) as client:
        assert (await client.post("/tills/commands/sell", json={"id": 1})).status == 200
        await asyncio.wait_for(asked.wait(), 30)
        assert (await (await client.get("/tills/sales/1")).json())["state"] == "asked"
    assert called == []
    assert len(closed) == 1


async def test_a_folder_is_for_one_of_them(tmp_path: Path) -> None:
    service = tills()
    async with served(gateway_of(service), service, tmp_path):
        pass
    with pytest.raises(FileExistsError, match=r"tills\.db is there already: give each test a folder of its own"):
        async with served(gateway_of(service), service, tmp_path):
            pass


async def test_rows_that_cannot_be_given_leave_no_database_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def noted(*given: Any) -> Any:
        opened.append(open_store(*given))
        return opened[-1]

    monkeypatch.setattr(gateway_under_test, "open_store", noted)
    service = tills()
    with pytest.raises(BatchFault, match="sales"):
        async with served(gateway_of(service), service, tmp_path, given=[Sale(id=7), Sale(id=7)]):
            pass
    assert [store._connection for store in opened] == [None]
