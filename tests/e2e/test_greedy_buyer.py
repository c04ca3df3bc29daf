"""One buyer who sends as many purchases as he can: others buy as if he had not, since only a few of his go on."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from shared.users.purchases.model import RUNNING_MAX
from tests.support.callers import HEADERS, key_of
from tests.support.system import System

AT_ONCE = 500
"""In one request, as many as a gateway takes at once."""
SLACK_S = 3.0
"""What a busy machine may add, and the few that go on: without the bound it was three times as much, and more."""
CARD = "pm_card_visa"


async def answered(asked: Any) -> tuple[int, Any]:
    async with asked as response:
        return response.status, await response.json(content_type=None)


@pytest.mark.timeout(120)
async def test_a_greedy_buyer_takes_nobody_s_turn(system: System) -> None:
    system.prepare("users", "items", "payments")
    keys = [key_of(name, {"users": system.environment["USERS_DATABASE_URL"]}) for name in ("ada", "bob")]
    ada, bob = ({"Authorization": f"Bearer {key}"} for key in keys)
    system.start_sandbox()
    system.start_coordinators("users", "items", "payments")
    for service in ("users", "items"):
        system.start_gateway(service)
    system.start_effects("payments")
    users, items = system.urls["users"], system.urls["items"]
    async with aiohttp.ClientSession() as session:
        for name, who in (("ada", ada), ("bob", bob)):
            made = {"name": name, "email": f"{name}@example.org"}
            assert (await answered(session.post(f"{users}/users", json=made, headers=who)))[0] == 201
        lamp = {"name": "Lamp", "price": 250, "currency": "EUR", "stock": 10_000}
        assert (await answered(session.post(f"{items}/items", json=lamp, headers=HEADERS)))[0] == 201

        async def bought_s() -> float:
            order = {"item_id": 1, "quantity": 1, "payment_method": CARD}
            began_s = time.perf_counter()
            asked = session.post(f"{users}/users/1/purchases", json=order, headers=ada | {"Prefer": "wait=30"})
            status, purchase = await answered(asked)
            while status == 202:
                status, found = await answered(session.get(f"{users}/purchases/{purchase['id']}", headers=ada))
                status = 202 if (purchase := found["purchase"])["status"] == "running" else status
                await asyncio.sleep(0.05)
            assert purchase["status"] == "completed", purchase
            return time.perf_counter() - began_s

        alone_s = min([await bought_s() for _ in range(3)])
        one = {"type": "users.open_purchase", "args": {"user_id": 2, "item_id": 1, "quantity": 1}}
        one["args"] |= {"payment_method": CARD}  # type: ignore[operator]
        begun = await answered(session.post(f"{users}/commands", json=[one] * AT_ONCE, headers=bob))
        beside_s = await bought_s()
    print(f"alone {alone_s:.2f} s, beside him {beside_s:.2f} s")
    codes = [None if each["error"] is None else each["error"]["code"] for each in begun[1]]
    assert set(codes) == {None, "too_many_purchases"}
    assert codes.count(None) < 2 * RUNNING_MAX
    assert beside_s < alone_s + SLACK_S
