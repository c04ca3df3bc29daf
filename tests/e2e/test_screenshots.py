"""The pages as docs/OPERATING.md shows them: `make screenshots` writes the pictures, and each fits its screen."""

import asyncio
import os
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from tests.e2e.test_operations import enqueue
from tests.e2e.test_stuck_purchases import CAUSES, Shop, opened_shop
from tests.support.browser import Page, browser, chromium
from tests.support.callers import HEADERS, KEY
from tests.support.system import System

LOAD_S = 90.0
SEEN_S = 12.0
WIDE, TALL, NARROW = (1180, 760), (1180, 1170), (390, 780)

pytestmark = pytest.mark.faults


async def load(shop: Shop) -> None:
    """Something to see: waves of writes, some of which are refused."""
    began_s = asyncio.get_running_loop().time()
    async with aiohttp.ClientSession(headers=HEADERS) as session:

        async def credit(amount: int) -> None:
            async with session.post(f"{shop.system.urls['users']}/users/1/credit", json={"amount": amount}) as answer:
                await answer.read()

        async def update(number: int) -> None:
            path = f"{shop.system.urls['items']}/items/1"
            async with session.patch(path, json={"price": 9000 + number}) as answer:
                await answer.read()

        number = 0
        while (passed_s := asyncio.get_running_loop().time() - began_s) < LOAD_S:
            at_once = 2 + int(8 * abs((passed_s % 7) - 3.5))
            number += 1
            await asyncio.gather(*(credit(5 if n % 9 else -(10**9)) for n in range(at_once)), update(number))
            await asyncio.sleep(0.05)


async def shoot(page: Page, name: str, size: tuple[int, int], *, is_dark: bool = False, directory: Path) -> None:
    """A picture of the page as it is now. Nothing sticks out of the screen."""
    await page.size(*size, is_dark=is_dark)
    await page.until("document.querySelector('main h1')")
    wide = await page.ask("document.documentElement.scrollWidth")
    assert wide <= size[0], f"{name} is {wide} wide"
    await page.screenshot(directory / f"{name}.png", is_whole=False)


async def payment_of(page: Page) -> str:
    """The id of the command that asks for the payment, on the page that has found a purchase."""
    link: str = await page.until("document.querySelectorAll('.steps a')[1]?.getAttribute('href')")
    return link.rpartition("/")[2]


async def test_the_pages_fit_their_screens(system: System, tmp_path: Path) -> None:
    chromium()
    directory = Path(os.environ.get("SCREENSHOTS") or tmp_path / "screenshots")
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    async with (
        opened_shop(system, CAUSES["provider down"]) as shop,
        browser(tmp_path / "browser") as started,
        started.page() as page,
    ):
        url = system.urls["operations"]
        await page.open(f"{url}/#key={KEY.text}")
        await page.until("document.querySelectorAll('[data-lane][data-state]').length === 3")
        for _ in range(2):
            await shop.buy()
            await shop.until(shop.is_completed, "a purchase is completed")
        loading = asyncio.create_task(load(shop))
        await CAUSES["provider down"].plant(shop)
        await page.until(CAUSES["provider down"].card)
        # Charts have a few seconds to show.
        await page.until(f"performance.now() > {SEEN_S * 1000}", 2 * SEEN_S)
        enqueue(system, "users.create", b'{"name": "Bob", "mail": "bob@example.org"}', str(uuid4()))
        await page.until("document.querySelector('[data-lane=users] [data-fact=dead] a')")
        await shoot(page, "lanes", TALL, directory=directory)
        await shoot(page, "lanes-dark", TALL, is_dark=True, directory=directory)
        await page.open(f"{url}/#/find?what=purchase+{shop.purchase}")
        await page.until("document.querySelector('[data-answer=why]')")
        await shoot(page, "find", WIDE, directory=directory)
        await shoot(page, "find-phone", NARROW, is_dark=True, directory=directory)
        # Its steps are not to be taken for those of the purchase before.
        await page.open(f"{url}/#/acts")
        await page.until("!document.querySelector('.steps')")
        await page.open(f"{url}/#/find?what=purchase+1")
        await page.open(f"{url}/#/commands/{await payment_of(page)}")
        await page.until("document.querySelector('.moments [data-moment=committed]')")
        assert "purchase" in await page.until("document.querySelector('[data-relative=parent]')"), "it sent the step"
        led_to = "[...document.querySelectorAll('[data-relative=child]')].map((each) => each.textContent).join()"
        assert "came to its result" in await page.until(f"{led_to}.includes('applied') && {led_to}"), "and its answer"
        await shoot(page, "command", WIDE, directory=directory)
        await shoot(page, "command-phone", NARROW, is_dark=True, directory=tmp_path)
        await page.open(f"{url}/#/lanes/users")
        await page.until("document.querySelectorAll('#kinds-of-commands tbody tr').length > 1")
        await shoot(page, "lane", WIDE, directory=directory)
        await shoot(page, "lane-phone", NARROW, directory=tmp_path)
        await page.open(f"{url}/#/letters/users/1")
        await page.until("document.querySelector('#arguments')")
        await shoot(page, "letter", WIDE, directory=directory)
        await shoot(page, "letter-phone", NARROW, is_dark=True, directory=tmp_path)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        assert page.errors == []
