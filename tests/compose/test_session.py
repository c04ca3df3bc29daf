"""What a user and an operator do with the composed system, through its published ports."""

import asyncio
import json

import aiohttp
import pytest

from shared.payments.sandbox.defaults import API_KEY
from tests.compose.composed import Composed
from tests.compose.user import User

pytestmark = pytest.mark.timeout(900)  # the first test waits for all of it to be built and healthy

LANES = ["users", "items", "payments"]
OURS = [
    *(f"{lane}-{kind}" for lane in LANES for kind in ("coordinator", "gateway")),
    "payments-effects",
    "ingress",
    "sandbox",
]


@pytest.fixture
async def user(composed: Composed, session: aiohttp.ClientSession) -> User:
    user = User(composed, session)
    await user.register(f"ada{id(user)}@example.org")
    return user


async def test_the_session_of_the_readme(user: User) -> None:
    credit = f"/users/{user.id}/credit"
    for _ in range(2):
        answer = await user.post("users", credit, {"amount": 500}, Idempotency_Key=f"gift-{user.id}")
        assert (answer[0], answer[1]["version"], answer[1]["credit"]) == (200, 2, 500)
    status, refused = await user.post("users", credit, {"amount": -501})
    assert (status, refused["code"]) == (409, "insufficient_credit")
    stale = {"If-Match": '"1"'}
    status, refused = await user.ask("PATCH", "users", f"/users/{user.id}", json={"name": "Ada L."}, headers=stale)
    assert (status, refused["code"]) == (412, "version_conflict")

    status, seat = await user.post("items", "/items", {"name": "7A", "price": 99, "currency": "EUR", "stock": 1})
    assert status == 201, seat
    sold = [await user.post("items", f"/items/{seat['id']}/reservations", {"quantity": 1}) for _ in range(2)]
    assert [status for status, _ in sold] == [201, 409]
    status, item = await user.ask("GET", "items", f"/items/{seat['id']}")
    assert (status, item["stock"]) == (200, 0)

    commands = [{"type": "users.credit", "args": {"id": user.id, "amount": amount}} for amount in (1, 2, -600)]
    status, outcomes = await user.post("users", "/commands", commands)
    assert [outcome["status"] for outcome in outcomes] == ["applied", "applied", "rejected"]


async def test_a_purchase_goes_through_all_services_and_the_provider_s_events_come_back(
    user: User, composed: Composed, session: aiohttp.ClientSession
) -> None:
    _, item = await user.post("items", "/items", {"name": "7B", "price": 9900, "currency": "EUR", "stock": 5})
    order = {"item_id": item["id"], "quantity": 2, "payment_method": "pm_card_visa"}
    status, purchase = await user.post("users", f"/users/{user.id}/purchases", order, Prefer="wait=9")
    assert (status, purchase["status"], purchase["amount"]) == (201, "completed", 19800), purchase
    _, item = await user.ask("GET", "items", f"/items/{item['id']}")
    assert item["stock"] == 3

    # As somebody does in the provider's dashboard: the payment knows of it by the provider's event only.
    path = f"/payments/{purchase['payment_id']}"
    _, payment = await user.ask("GET", "payments", path)
    asked = {"payment_intent": payment["provider_id"], "amount": "100"}
    bearer = {"Authorization": f"Bearer {API_KEY}"}
    async with session.post(f"{composed.url('sandbox')}/v1/refunds", data=asked, headers=bearer) as response:
        assert response.status == 200, await response.text()
    async with asyncio.timeout(30):
        while (await user.ask("GET", "payments", path))[1]["refunded"] != 100:
            await asyncio.sleep(0.1)

    order |= {"payment_method": "pm_card_chargeDeclined"}
    _, purchase = await user.post("users", f"/users/{user.id}/purchases", order, Prefer="wait=9")
    assert purchase["status"] == "compensated", purchase


def test_an_operator_has_a_place_with_every_address(composed: Composed) -> None:
    printed = composed.compose("run", "--rm", "--no-TTY", "operator", "coordinator", "status", "--json")
    lanes = json.loads(printed)
    assert [lane["lane"] for lane in lanes] == LANES
    assert not any(lane["errors"] for lane in lanes), lanes


@pytest.mark.parametrize("service", OURS)
def test_a_container_of_ours_may_do_and_take_no_more_than_it_needs(composed: Composed, service: str) -> None:
    found = composed.inspect(composed.containers(service)[0])
    host = found["HostConfig"]
    assert found["Config"]["User"] not in ("", "0", "root")
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["Memory"] == 4 << 30
    assert host["PidsLimit"] == 200
    assert host["NanoCpus"] == 10**9
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}}
