"""Somebody with an account, who buys."""

import asyncio
from typing import Any

import aiohttp

from tests.compose.composed import Composed
from tests.support.torn import TORN

UNAVAILABLE = (429, 502, 503, 504)
PRICE = 9900


class User:
    """Somebody with an account, and what he asks for."""

    def __init__(self, composed: Composed, session: aiohttp.ClientSession) -> None:
        self._composed = composed
        self._session = session
        self.id = 0

    async def ask(self, method: str, service: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self._session.request(method, self._composed.url(service) + path, **options) as response:
            return response.status, await response.json(content_type=None)

    async def post(self, service: str, path: str, body: object, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask("POST", service, path, json=body, headers=named)

    async def register(self, email: str) -> None:
        """Make the account."""
        status, created = await self.post("users", "/users", {"name": "Ada", "email": email})
        assert status == 201, created
        self.id = created["id"]

    async def offer(self, name: str, stock: int) -> int:
        """Put something on sale, and return its id."""
        item = {"name": name, "price": PRICE, "currency": "EUR", "stock": stock}
        status, made = await self.post("items", "/items", item)
        assert status == 201, made
        return int(made["id"])

    async def stock(self, item_id: int) -> int:
        """What is left, as the lane's database has it."""
        status, item = await self.ask("GET", "items", f"/items/{item_id}")
        assert status == 200, item
        return int(item["stock"])

    async def buy(self, item_id: int, key: str) -> dict[str, Any]:
        """Buy one, as a careful client does: repeat with the same key until it is answered, and look until it ended."""
        order = {"item_id": item_id, "quantity": 1, "payment_method": "pm_card_visa"}
        async with asyncio.timeout(90):
            purchase = await self._answered(
                "POST", f"/users/{self.id}/purchases", json=order, headers={"Idempotency-Key": key}
            )
            while purchase["status"] == "running":
                await asyncio.sleep(0.1)
                purchase = (await self._answered("GET", f"/purchases/{purchase['id']}"))["purchase"]
        return purchase

    async def _answered(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        while True:
            try:
                status, answer = await self.ask(method, "users", path, **options)
            except TORN:
                status, answer = 503, None
            if status in (200, 201):
                found: dict[str, Any] = answer
                return found
            # 202: not settled yet; 404: a standby may not have the purchase yet.
            assert status in (202, 404, *UNAVAILABLE), (status, answer)
            await asyncio.sleep(0.1)
