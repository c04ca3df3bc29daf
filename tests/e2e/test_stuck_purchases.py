"""Somebody is told that a purchase is stuck, and finds where and why: with the pages alone, and with the command line.

One cause is planted at random, by a seed that the test prints (`STUCK_SEED` repeats it); `make faults` has each once.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pika
import psycopg
import pytest
from msgspec import Struct
from sqlalchemy import make_url

from coordinator.operate.output import now
from coordinator.registry import APP_SETTING
from tests.faults.proxy import TcpProxy
from tests.support.browser import Page, browser, chromium
from tests.support.callers import ACCESS, HEADERS, KEY
from tests.support.system import System, wait_ready, wait_until

pytestmark = pytest.mark.operators

SERVICES: Final = ("users", "items", "payments")
REFRESH_S: Final = 2.0
"""One refresh: pages look twice a second, and so does this machine at best."""
QUEUE_BYTES: Final = 1 << 20


class Cause(Struct, frozen=True):
    """What makes a purchase stick.

    `plant` returns once the cause has worked, by what the servers and processes say themselves. `card` is what the page
    of all lanes then shows, an expression of JavaScript; `where` and `why` are what both ways must name.
    """

    plant: Callable[["Shop"], Awaitable[None]]
    card: str
    where: str
    why: str
    settings: dict[str, dict[str, str]] = {}
    app: str | None = None


class Shop:
    """A system with one user and one item, and a purchase that is begun."""

    def __init__(self, system: System, stack: AsyncExitStack) -> None:
        self.system = system
        self.stack = stack
        self.health: dict[str, str] = {}
        self.purchase = 0
        self.proxy: AsyncExitStack | None = None

    async def post(self, service: str, path: str, body: object, *, method: str = "POST", **headers: str) -> Any:
        async with (
            aiohttp.ClientSession(headers=HEADERS | headers) as session,
            session.request(method, self.system.urls[service] + path, json=body) as answer,
        ):
            assert answer.status in (200, 201, 202), await answer.text()
            return await answer.json(content_type=None)

    async def buy(self) -> None:
        body = {"item_id": 1, "quantity": 1, "payment_method": "pm_card_visa"}
        self.purchase = (await self.post("users", "/users/1/purchases", body))["id"]

    def is_completed(self) -> bool:
        """Whether the purchase is, by the database."""
        with psycopg.connect(_plain(self.system.owner("users"))) as connection:
            found = connection.execute("SELECT status FROM purchases WHERE id = %s", (self.purchase,)).fetchone()
        return found == ("completed",)

    def waits_at(self, step: str) -> bool:
        """Whether the purchase waits at this step, by the database."""
        query = "SELECT name, status FROM saga_steps WHERE saga_id = %s ORDER BY number DESC LIMIT 1"
        with psycopg.connect(_plain(self.system.owner("users"))) as connection:
            return connection.execute(query, (self.purchase,)).fetchone() == (step, "waiting")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await asyncio.to_thread(wait_until, condition, what)

    async def ready(self, name: str) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.health[name]}/readyz") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def cli(self, *words: str) -> str:
        """What the command line says, as an operator calls it."""
        environment = self.system.environment | {"OPERATIONS_COORDINATORS": " ".join(self.health.values())}
        command = [sys.executable, "-m", "coordinator", *words]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def plant_dead_letter(shop: Shop) -> None:
    """The command that would go on with the purchase fails in its own lane: a defect, of which its row is a sign."""
    shop.system.operate("payments", lambda admin: admin.pause("for the test", now()))
    await shop.buy()
    await shop.until(lambda: shop.waits_at("authorize"), "the purchase waits for the payment")
    with psycopg.connect(_plain(shop.system.owner("users"))) as connection:
        # No number comes after it.
        last = (9223372036854775807, shop.purchase)
        connection.execute("UPDATE purchases SET emitted = %s WHERE id = %s", last)
        connection.execute("UPDATE saga_steps SET number = %s WHERE saga_id = %s AND status = 'waiting'", last)
    shop.system.operate("payments", lambda admin: admin.resume(now()))
    await shop.until(lambda: shop.system.operate("users", lambda admin: admin.state().dead_letters) == 1, "a letter")


async def plant_suspension(shop: Shop) -> None:
    """The database of payments is away, for its coordinator."""
    assert shop.proxy is not None
    await shop.proxy.aclose()
    await shop.buy()
    async with asyncio.timeout(30):
        while not (await shop.ready("payments"))["reason"]:
            await asyncio.sleep(0.05)
    await shop.until(lambda: shop.waits_at("authorize"), "the purchase waits for the payment")


async def plant_provider_down(shop: Shop) -> None:
    sandbox = next(process for name, process in shop.system.named.items() if name.startswith("sandbox"))
    await asyncio.to_thread(sandbox.stop, signal.SIGKILL, 10.0)
    await shop.buy()
    async with asyncio.timeout(40), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{shop.health['effects']}/metrics") as answer:
                if 'coordinator_effects_breaker_open{service="payments"} 1.0' in await answer.text():
                    return
            await asyncio.sleep(0.05)


async def plant_parked_key(shop: Shop) -> None:
    """Somebody's change of the item fails, by a defect; the purchase asks for its price then."""
    await shop.post("items", "/items/1", {"price": 5}, method="PATCH", Prefer="respond-async")
    await shop.until(lambda: len(shop.system.operate("items", lambda admin: admin.parked())) == 1, "a failed command")
    await shop.buy()
    await shop.until(lambda: len(shop.system.operate("items", lambda admin: admin.parked())) == 2, "a parked one")


async def plant_full_queue(shop: Shop) -> None:
    """Nobody works off the queue of items, and it has no more room."""
    items = next(process for name, process in shop.system.named.items() if name.startswith("coordinator-items"))
    await asyncio.to_thread(items.stop, signal.SIGTERM, 20.0)
    with shop.system.broker() as channel:
        channel.confirm_delivery()
        with pytest.raises(pika.exceptions.NackError):
            _fill(channel)
    await shop.buy()
    await shop.until(
        lambda: any(
            each.target == "items" and time.time() - each.oldest_at.timestamp() > 3
            for each in shop.system.operate("users", lambda admin: admin.backlog())
        ),
        "the outbox of users is refused",
    )


def _fill(channel: Any) -> None:
    properties = pika.BasicProperties(type="items.nonsense")
    for _ in range(2 * QUEUE_BYTES // 50_000):
        channel.basic_publish("writes", "items", b" " * 50_000, properties, mandatory=True)


def _card(lane: str, rest: str) -> str:
    return f"document.querySelector('[data-lane={lane}]'){rest}"


CAUSES: Final = {
    "dead letter": Cause(
        plant_dead_letter, _card("users", ".querySelector('[data-fact=dead]').textContent === '1'"),
        "dead letter 1 of lane users", "users.continue_purchase failed (invalid_row)",
    ),
    "suspended lane": Cause(
        plant_suspension, _card("payments", ".dataset.state === 'suspended'"),
        "queue of lane payments", "lane payments is suspended",
    ),
    "provider down": Cause(
        plant_provider_down, _card("payments", ".querySelector('.badge.provideraway')"),
        "a call to the outside (effects.payments)", "the provider does not answer",
        {"effects": {"EFFECTS_BREAKER_FAILURES": "1"}},
    ),
    "parked key": Cause(
        plant_parked_key, _card("items", ".querySelector('[data-fact=parked]').textContent === '1 for 1 key'"),
        "waits for its key", "failed (handler_error), and 1 command waits", app="tests.support.parking_app:APP",
    ),
    "full queue": Cause(
        plant_full_queue, _card("items", ".querySelector('.why').textContent.includes('its queue is full')"),
        "in the outbox of lane users", "its queue is full",
    ),
}  # fmt: skip


@asynccontextmanager
async def opened_shop(system: System, cause: Cause) -> AsyncIterator[Shop]:
    """All processes of the system, a user and an item."""
    if cause.app is not None:
        system.environment[APP_SETTING] = cause.app
    system.environment["AMQP_QUEUE_BYTES_MAX"] = str(QUEUE_BYTES)
    async with AsyncExitStack() as stack:
        shop = Shop(system, stack)
        await asyncio.to_thread(system.prepare, *SERVICES)
        shop.proxy = await stack.enter_async_context(AsyncExitStack())
        url = make_url(system.environment["PAYMENTS_DATABASE_URL"])
        proxy = await shop.proxy.enter_async_context(TcpProxy(url.port or 0))
        through = url.set(port=proxy.port).render_as_string(hide_password=False)
        await asyncio.to_thread(system.start_sandbox)
        waited = []
        for service in SERVICES:
            settings = {"PAYMENTS_DATABASE_URL": through} if service == "payments" else {}
            process, readyz = system.launch_coordinator(service, settings)
            shop.health[service] = readyz.removesuffix("/readyz")
            waited.append((readyz, process))
        for service in ("users", "items"):
            process, readyz = system.launch_gateway(service, ACCESS)
            waited.append((readyz, process))
        for readyz, process in waited:
            await asyncio.to_thread(wait_ready, readyz, process)
        await asyncio.to_thread(lambda: system.start_effects("payments", **cause.settings.get("effects", {})))
        shop.health["effects"] = system.urls["effects-payments"]
        await asyncio.to_thread(lambda: system.start_operations(*SERVICES, coordinators=list(shop.health.values())))
        await shop.post("users", "/users", {"name": "Ada", "email": "ada@example.org"})
        item = {"name": "seat 7A", "price": 9900, "currency": "EUR", "stock": 5}
        await shop.post("items", "/items", item)
        yield shop


async def answers(page: Page) -> str:
    """What the page of the purchase says, once it says why."""
    await page.until("document.querySelector('[data-saga=purchase] [data-answer=why]')")
    found: str = await page.ask("document.querySelector('[data-saga=purchase]').innerText")
    return found


async def check(system: System, tmp_path: Path, name: str) -> None:
    cause = CAUSES[name]
    async with (
        opened_shop(system, cause) as shop,
        browser(tmp_path / "browser") as started,
        started.page() as page,
    ):
        url = system.urls["operations"]
        await page.open(f"{url}/#key={KEY.text}")
        await page.until("document.querySelectorAll('[data-lane][data-state]').length === 3")
        await cause.plant(shop)
        # The page that is open shows it within one refresh, and nobody has touched it.
        await page.until(cause.card, REFRESH_S)

        # With the pages alone: what was told is typed in.
        began_s = time.monotonic()
        await page.fill("#find input", f"purchase {shop.purchase}")
        await page.click("Find", within="document.querySelector('#find')")
        said = await answers(page)
        assert cause.where in said, said
        assert cause.why in said, said
        by_page_s = time.monotonic() - began_s

        # With the command line alone.
        began_s = time.monotonic()
        said = await shop.cli("find", "purchase", str(shop.purchase))
        assert cause.where in said, said
        assert cause.why in said, said
        by_line_s = time.monotonic() - began_s
        print(f"{name}: by page in {by_page_s:.1f} s, by the command line in {by_line_s:.1f} s\n{said}")
        found = json.loads(await shop.cli("find", f"/purchases/{shop.purchase}", "--json"))
        (saga,) = found["sagas"]
        assert saga["is_stuck"]
        assert cause.why in saga["why"]
        assert saga["todo"]
        assert page.errors == []


async def test_the_cause_of_a_stuck_purchase_is_found(system: System, tmp_path: Path) -> None:
    chromium()
    seed = int(os.environ.get("STUCK_SEED") or random.SystemRandom().randrange(1 << 32))
    name = random.Random(seed).choice(list(CAUSES))
    print(f"STUCK_SEED={seed}: {name}")
    await check(system, tmp_path, name)


@pytest.mark.faults
@pytest.mark.parametrize("name", CAUSES)
async def test_each_cause_of_a_stuck_purchase_is_found(system: System, tmp_path: Path, name: str) -> None:
    chromium()
    await check(system, tmp_path, name)
