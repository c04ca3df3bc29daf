"""The page at which a gateway shows its routes, in a real browser."""

import asyncio
import json
from pathlib import Path

import pytest

from coordinator.runtime.settings import GatewaySettings
from tests.support.browser import Page, axe, browser, chromium
from tests.support.contract_system import contract_system

pytestmark = pytest.mark.operators

ROUTE = "document.getElementById('users.create')"


async def test_a_page_shows_the_routes_and_sends_requests_to_them(tmp_path: Path) -> None:
    await asyncio.to_thread(chromium)
    script = await asyncio.to_thread(axe)
    with contract_system(tmp_path, GatewaySettings()) as addresses:
        async with browser(tmp_path / "browser") as opened, opened.page() as page:
            await page.open(addresses["users"] + "/")
            await page.until("document.getElementById('state').textContent.includes('give a key')")
            # The browser says so itself of the 401.
            page.errors.clear()
            await page.fill("#key", "ada")
            await page.click("Use it")
            await page.until("/^[0-9]+ routes$/.test(document.getElementById('state').textContent)")
            assert "POST" in await page.text()
            await page.ask(f"{ROUTE}.open = true")
            await page.until(f"{ROUTE}.querySelector('textarea').value.includes('ada@example.org')")
            text = '{"name": "<img src=x onerror=alert(1)>", "email": "x@example.org"}'
            await page.fill("textarea", text)
            await page.click("Send POST", ROUTE)
            await page.until(f"{ROUTE}.querySelector('.good')")
            assert "201" in await page.ask(f"{ROUTE}.querySelector('.good').textContent")
            assert await page.ask("document.querySelectorAll('img').length") == 0
            await page.fill("#find", "transfers")
            assert await page.ask("document.querySelectorAll('details[data-words]:not([hidden])').length") == 1
            await page.fill("#find", "")
            for is_dark in (False, True):
                await page.size(1280, 900, is_dark=is_dark)
                assert await _serious(page, script) == []
            await page.screenshot(tmp_path / "dark.png", is_whole=False)
            await page.size(390, 800)
            assert await page.ask("document.documentElement.scrollWidth <= window.innerWidth")
            await page.screenshot(tmp_path / "phone.png", is_whole=False)
            assert page.errors == []
            assert [url for url in page.requests if not url.startswith(addresses["users"])] == []


async def _serious(page: Page, script: str | None) -> list[str]:
    """What axe finds that is serious or critical; nothing where it cannot be had."""
    if script is None:
        return []
    await page.ask(f"window.axe ? 0 : (() => {{ {script}; }})()")
    found = await page.ask(
        "axe.run(document, {resultTypes: ['violations']}).then((r) => JSON.stringify(r.violations"
        ".filter((v) => v.impact === 'serious' || v.impact === 'critical')"
        ".map((v) => v.id + ' ' + v.nodes[0].html)))"
    )
    violations: list[str] = json.loads(found)
    return violations
