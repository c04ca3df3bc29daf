"""The rules of the reference system, with its gateways and lanes: each sees and does what he may, and no more."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aiohttp
import pika
import pytest

from coordinator.transports.rabbitmq.direct_reply import DIRECT_REPLY
from coordinator.transports.rabbitmq.topology import WRITES_EXCHANGE
from tests.support.callers import HEADERS, key_of
from tests.support.system import System, wait_until

LANES = ("users", "items", "payments")
ITEM = {"name": "Lamp", "price": 250, "currency": "EUR", "stock": 5}
OPENED = {"user_id": 1, "amount": 100, "currency": "EUR"}
FORBIDDEN = (403, "forbidden")
NO_USER = (404, "user_not_found")


class Caller:
    """Somebody with a key, or without."""

    def __init__(self, system: System, session: aiohttp.ClientSession, key: str | None) -> None:
        self._urls = system.urls
        self._session = session
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    async def __call__(self, method: str, service: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        sent = self._headers | {name.replace("_", "-"): value for name, value in headers.items()}
        url = self._urls[service] + path
        async with self._session.request(method, url, json=body, headers=sent) as response:
            raw = await response.read()
            return response.status, json.loads(raw) if raw else None

    async def refused(self, method: str, service: str, path: str, body: Any = None) -> tuple[int, str]:
        """The status, and the code of the problem."""
        status, problem = await self(method, service, path, body)
        return status, problem["code"]


class Cast:
    """Who is there. Ada has bought: she is user 1, Bob user 2."""

    def __init__(self, system: System, session: aiohttp.ClientSession) -> None:
        owners = {lane: system.owner(lane) for lane in LANES}

        def caller(subject: str, *scopes: str, tenant: str | None = None) -> Caller:
            return Caller(system, session, key_of(subject, owners, *scopes, tenant=tenant))

        self.ada, self.bob = caller("ada"), caller("bob")
        self.other_ada = caller("ada", tenant="acme")
        self.staff, self.cashier = caller("sue", "staff"), caller("cas", "cashier")
        self.stock, self.payments = caller("sto", "stock"), caller("pat", "payments")
        self.stranger = Caller(system, session, None)
        self.all = Caller(system, session, HEADERS["Authorization"].removeprefix("Bearer "))


@pytest.fixture
async def cast(system: System) -> AsyncIterator[Cast]:
    def start() -> None:
        system.prepare(*LANES)
        system.start_sandbox()
        system.start_coordinators(*LANES)
        system.start_effects("payments")

    await asyncio.to_thread(start)
    async with aiohttp.ClientSession() as session:
        cast = Cast(system, session)
        for lane in LANES:
            await asyncio.to_thread(system.start_gateway, lane)
        for number, who in enumerate((cast.ada, cast.bob), 1):
            status, user = await who("POST", "users", "/users", {"name": "N", "email": f"{number}@example.org"})
            assert (status, user["id"]) == (201, number)
        assert (await cast.stock("POST", "items", "/items", ITEM))[0] == 201
        order = {"item_id": 1, "quantity": 1, "payment_method": "pm_card_visa"}
        _, purchase = await cast.ada("POST", "users", "/users/1/purchases", order, Prefer="wait=9")
        async with asyncio.timeout(60):
            while purchase["status"] in ("pending", "running"):  # on a slow machine longer than a request may wait
                await asyncio.sleep(0.1)
                status, found = await cast.ada("GET", "users", "/purchases/1")
                purchase = found["purchase"] if status == 200 else purchase
        assert purchase["status"] == "completed", purchase
        yield cast


async def test_a_user_is_for_its_owner_and_staff_and_for_others_as_if_it_were_not_there(cast: Cast) -> None:
    gone = await cast.bob.refused("GET", "users", "/users/99")
    for other in (cast.bob, cast.cashier, cast.stock, cast.other_ada):
        assert await other.refused("GET", "users", "/users/1") == NO_USER == gone
        assert await other.refused("PATCH", "users", "/users/1", {"name": "Eve"}) == NO_USER
        assert await other.refused("DELETE", "users", "/users/1") == NO_USER
        assert await other.refused("GET", "users", "/users/1/purchases") == NO_USER
        assert await other.refused("GET", "users", "/users/1/purchases/totals") == NO_USER
        assert await other.refused("GET", "users", "/purchases/1") == (404, "purchase_not_found")
    assert await cast.bob.refused("PATCH", "users", "/users/99", {"name": "Eve"}) == NO_USER
    ids = [[row["id"] for row in (await who("GET", "users", "/users"))[1]["items"]] for who in (cast.ada, cast.bob)]
    assert ids == [[1], [2]]
    assert (await cast.cashier("GET", "users", "/users"))[1]["items"] == []
    for who in (cast.ada, cast.staff):
        assert (await who("GET", "users", "/users/1"))[0] == 200
        assert (await who("PATCH", "users", "/users/1", {"name": "Ada"}))[0] == 200
        assert (await who("GET", "users", "/purchases/1"))[1]["purchase"]["status"] == "completed"
        assert len((await who("GET", "users", "/users/1/purchases"))[1]["items"]) == 1
    assert len((await cast.staff("GET", "users", "/users"))[1]["items"]) == 2
    for method, service, path in (
        ("GET", "users", "/users"),
        ("POST", "users", "/users"),
        ("GET", "payments", "/payments"),
    ):
        assert (await cast.stranger(method, service, path))[0] == 401


async def test_credit_is_a_cashier_s_and_nobody_gives_himself_any(cast: Cast) -> None:
    for who in (cast.ada, cast.bob, cast.staff, cast.payments):
        assert await who.refused("POST", "users", "/users/1/credit", {"amount": 5}) == FORBIDDEN
    assert (await cast.cashier("POST", "users", "/users/1/credit", {"amount": 5}))[1] == {"id": 1}, (
        "he sees no accounts"
    )
    taken = await cast.cashier("POST", "users", "/transfers", {"from": 1, "to": 2, "amount": 1})
    assert taken[1] == {"from": 1, "to": 2, "amount": 1, "from_credit": None}
    assert (await cast.cashier("POST", "users", "/users/1/credit", {"amount": 1}))[0] == 200
    assert (await cast.ada("GET", "users", "/users/1"))[1]["credit"] == 5
    steal = {"from": 1, "to": 2, "amount": 5}
    assert await cast.bob.refused("POST", "users", "/transfers", steal) == NO_USER
    # What the other has then is not told.
    assert (await cast.ada("POST", "users", "/transfers", steal))[1] == {
        "from": 1,
        "to": 2,
        "amount": 5,
        "from_credit": 0,
    }
    # Who has nothing to give does not find out who is here.
    for nobody in (2, 9999):
        refused = await cast.ada.refused("POST", "users", "/transfers", steal | {"to": nobody})
        assert refused == (409, "insufficient_credit")
    order = {"item_id": 1, "quantity": 1, "payment_method": "pm_card_visa"}
    for who in (cast.bob, cast.staff, cast.cashier):
        assert await who.refused("POST", "users", "/users/1/purchases", order) == NO_USER


async def test_the_rule_is_asked_in_order_against_the_rows_as_they_are_then(cast: Cast) -> None:
    """Each command of a request sees what those before it have left: an account that is made, and one that is gone."""
    made = {"type": "users.create", "args": {"name": "Own", "email": "own@example.org"}}
    rename = {"type": "users.update", "args": {"id": 3, "name": "Mine"}}
    delete = {"type": "users.delete", "args": {"id": 3}}
    _, told = await cast.bob("POST", "users", "/commands", [rename, made, rename, delete, rename])
    assert [(each["status"], (each["error"] or {}).get("code")) for each in told] == [
        ("rejected", "user_not_found"),
        ("applied", None),
        ("applied", None),
        ("applied", None),
        ("rejected", "user_not_found"),
    ]
    sequences = [each["sequence"] for each in told]
    assert sequences == list(range(sequences[0], sequences[0] + 5))
    # What became of them is for him, and for operators.
    path = f"/commands/{told[0]['command_id']}"
    assert [(await who("GET", "users", path))[0] for who in (cast.bob, cast.ada, cast.staff, cast.all)] == [
        200,
        404,
        404,
        200,
    ]


async def test_the_catalogue_is_for_all_and_stock_for_those_who_keep_it(cast: Cast) -> None:
    for who in (cast.stranger, cast.bob, cast.stock):
        assert (await who("GET", "items", "/items/1"))[1]["stock"] == 4
        assert len((await who("GET", "items", "/items"))[1]["items"]) == 1
    for who in (cast.ada, cast.bob, cast.staff):
        assert await who.refused("POST", "items", "/items", ITEM) == FORBIDDEN
        assert await who.refused("PATCH", "items", "/items/1", {"price": 1}) == FORBIDDEN
        assert await who.refused("POST", "items", "/items/1/reservations", {"quantity": 1}) == FORBIDDEN
        # Else the same thing would be sold twice: the reservation is that of Ada's purchase.
        assert await who.refused("DELETE", "items", "/items/1/reservations/1") == FORBIDDEN
    assert (await cast.stock("POST", "items", "/items/1/reservations", {"quantity": 1}))[0] == 201
    assert (await cast.stock("DELETE", "items", "/items/1/reservations/2"))[0] == 204


async def test_a_payment_is_seen_by_its_buyer_and_moved_by_the_scope_alone(cast: Cast) -> None:
    for who in (cast.bob, cast.staff, cast.other_ada):
        assert await who.refused("GET", "payments", "/payments/1") == (404, "payment_not_found")
        assert await who.refused("GET", "payments", "/payments/1/refunds") == (404, "payment_not_found")
        assert (await who("GET", "payments", "/payments?user_id=1"))[1]["items"] == []
    for who in (cast.ada, cast.bob, cast.staff, cast.cashier):
        assert await who.refused("POST", "payments", "/payments/1/refunds", {"amount": 1}) == FORBIDDEN
        assert await who.refused("POST", "payments", "/payments/1/reversal") == FORBIDDEN
        assert await who.refused("POST", "payments", "/payments", OPENED) == FORBIDDEN
    for who in (cast.ada, cast.payments):
        assert (await who("GET", "payments", "/payments/1"))[1]["status"] == "captured"
        assert [row["id"] for row in (await who("GET", "payments", "/payments"))[1]["items"]] == [1]
    status, refund = await cast.payments("POST", "payments", "/payments/1/refunds", {"amount": 1})
    assert status == 201
    assert (await cast.ada("GET", "payments", f"/payments/1/refunds/{refund['id']}"))[0] == 200
    assert await cast.bob.refused("GET", "payments", f"/payments/1/refunds/{refund['id']}") == (
        404,
        "payment_not_found",
    )


def test_what_comes_by_amqp_is_its_account_s(system: System) -> None:
    account = system.account
    system.prepare("users")
    system.start_coordinator("users", LANE_GATEWAY_ACCOUNTS="", LANE_ACCOUNT_SCOPES=f"{account}=cashier other=staff")

    def told(command_type: str, args: Any, user_id: str | None, **headers: str) -> tuple[str, str | None]:
        with system.broker() as channel:
            outcomes: list[bytes] = []
            channel.basic_consume(DIRECT_REPLY, lambda *message: outcomes.append(message[3]), auto_ack=True)
            properties = pika.BasicProperties(
                message_id=str(uuid4()), type=command_type, reply_to=DIRECT_REPLY, user_id=user_id, headers=headers
            )
            channel.basic_publish(WRITES_EXCHANGE, "users", json.dumps(args), properties)
            wait_until(lambda: channel.connection.process_data_events(0.05) or bool(outcomes), "the outcome")
        outcome = json.loads(outcomes[0])
        return outcome["status"], (outcome["error"] or {}).get("code")

    claim = {"actor": '{"subject":"sue","scopes":["staff","cashier"]}'}
    ada = {"name": "Ada", "email": "ada@example.org"}
    assert told("users.create", ada, account) == ("applied", None)
    assert told("users.create", ada | {"email": "b@example.org"}, None) == ("applied", None)
    assert told("users.credit", {"id": 1, "amount": 1}, account) == ("applied", None)
    assert told("users.credit", {"id": 1, "amount": 1}, None, **claim) == ("rejected", "forbidden")
    # The first is the account's own, the second nobody's. Who asks for others, unbelieved, does not ask for itself.
    assert told("users.update", {"id": 1, "name": "A"}, account) == ("applied", None)
    assert told("users.update", {"id": 2, "name": "A"}, account) == ("rejected", "user_not_found")
    assert told("users.update", {"id": 1, "name": "B"}, account, **claim) == ("rejected", "forbidden")
