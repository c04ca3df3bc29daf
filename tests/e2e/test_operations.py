"""The operations gateway, as operators see it: in a real browser, on the real system."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pika
import pytest

from coordinator.operate.open import lane_admin
from coordinator.operate.output import now
from coordinator.protocol.actors import HEADER_ACTOR
from coordinator.stores.admin import LetterQuery
from coordinator.stores.audit import ActQuery
from tests.support.browser import Browser, Page, axe, browser, chromium
from tests.support.callers import CALLER, HEADERS, KEY, key_of
from tests.support.system import System, wait_ready, wait_until

pytestmark = pytest.mark.operators

LANE = "users"
CARD = f"document.querySelector('[data-lane={LANE}]')"
PHONE = (390, 800)
HOSTILE = "<img src=x onerror=window.hurt=1>"
ADA = {"name": "Ada", "email": "ada@example.org"}


@asynccontextmanager
async def opened(system: System, tmp_path: Path, key: str = KEY.text) -> AsyncIterator[tuple[Browser, Page]]:
    """A browser that is signed in by a link, as `coordinator dev` prints it."""
    async with browser(tmp_path / "browser") as started, started.page() as page:
        await page.open(f"{system.urls['operations']}/#key={key}")
        await page.until(f"{CARD}.dataset.state")
        yield started, page
        assert page.errors == []
        foreign = [url for url in page.requests if not url.startswith((system.urls["operations"], "data:image/svg"))]
        assert foreign == []


async def create(system: System, number: int, *, waits: bool = True) -> str:
    """A user; the id of the command."""
    body = ADA | {"email": f"ada{number}@example.org"}
    headers = HEADERS if waits else HEADERS | {"Prefer": "respond-async"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{system.urls[LANE]}/users", json=body) as answer,
    ):
        assert answer.status == (201 if waits else 202), await answer.text()
        return answer.headers["Command-Id"]


def enqueue(system: System, command_type: str, body: bytes, command_id: str | None) -> None:
    """Past the gateway, which would refuse it."""
    with system.broker() as channel:
        asked = {"user_id": system.account, "headers": {HEADER_ACTOR: CALLER.as_json}}
        properties = pika.BasicProperties(message_id=command_id, type=command_type, **asked)
        channel.confirm_delivery()
        channel.basic_publish("writes", LANE, body, properties, mandatory=True)


def letters(monkeypatch: pytest.MonkeyPatch, system: System) -> list[int]:
    monkeypatch.setenv("USERS_DATABASE_URL", system.environment["USERS_DATABASE_URL"])
    with lane_admin(LANE) as admin:
        return [each.id for each in admin.letters(LetterQuery(), 0, 1000)]


def acts(monkeypatch: pytest.MonkeyPatch, system: System) -> list[tuple[str, str, str | None]]:
    monkeypatch.setenv("USERS_DATABASE_URL", system.environment["USERS_DATABASE_URL"])
    with lane_admin(LANE) as admin:
        return [(each.author, each.act, each.reason) for each in admin.acts(ActQuery(), None, 100)]


async def answer_dialog(page: Page, button: str, reason: str) -> None:
    await page.fill("dialog input[name=reason]", reason)
    await page.click(button, within="document.querySelector('dialog')")
    await page.until("!document.querySelector('dialog')")


async def fact(page: Page, name: str, wanted: str, timeout_s: float = 15.0) -> None:
    await page.until(f"{CARD}.querySelector('[data-fact={name}]').textContent === {wanted!r}", timeout_s)


async def test_a_lane_is_followed_paused_and_taken_over(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chromium()
    system.prepare(LANE)
    coordinators = [system.launch_coordinator(LANE, {}) for _ in range(2)]
    system.start_gateway(LANE)
    for process, url in coordinators:
        await asyncio.to_thread(wait_ready, url, process)
    urls = [url.removesuffix("/readyz") for _, url in coordinators]
    system.start_operations(LANE, coordinators=urls)
    async with opened(system, tmp_path) as (_, page):
        await page.until(f"{CARD}.querySelector('.badge.standby')")

        # A command appears within a second of its answer.
        command_id = await create(system, 1)
        await page.until(f"document.querySelector('#recent-commands a[href=\"#/commands/{command_id}\"]')", 1.0)

        # A paused lane shows its backlog, and why; both acts are recorded with their author.
        await page.click("Pause", within=CARD)
        await answer_dialog(page, "Pause", "the stock is counted")
        await page.until(f"{CARD}.dataset.state === 'paused'")
        assert "the stock is counted" in await page.text()
        for number in range(2, 5):
            # One after the other: what comes at once may share a message.
            await create(system, number, waits=False)
        await fact(page, "backlog", "3")
        await page.click("Resume", within=CARD)
        await answer_dialog(page, "Resume", "it is counted")
        await page.until(f"{CARD}.dataset.state !== 'paused'")
        await fact(page, "sequence", "4")
        await fact(page, "backlog", "0")
        author = f"page:{CALLER.subject}"
        done = [(author, "resume", "it is counted"), (author, "pause", "the stock is counted")]
        assert acts(monkeypatch, system) == done

        # A killed coordinator's standby becomes active.
        await page.click("Drain", within=CARD)
        await answer_dialog(page, "Drain", "before the kill")
        epoch = int(await page.until(f"{CARD}.querySelector('[data-fact=epoch]')"))
        epochs = [await _epoch(url) for _, url in coordinators]
        coordinators[epochs.index(epoch)][0].kill()
        # It takes the lane over with the first command that comes to it.
        await create(system, 9)
        await fact(page, "epoch", str(epoch + 1))
        await page.until(f"{CARD}.querySelector('.badge.active') && {CARD}.querySelector('.badge.away')")

        # The first command's times are drawn, and are a table to whoever does not see. When it was committed the same
        # process noted with the next one, though the lane had been paused in between.
        await page.open(f"{system.urls['operations']}/#/commands/{command_id}")
        drawn = "[...document.querySelectorAll('.moments tbody tr')]"
        await page.until(f"{drawn}.length")
        assert await page.ask(f"{drawn}.map((e) => e.dataset.moment).join()") == (
            "received,delivered,applied,committing,committed"
        )
        assert await page.ask(f"{drawn}.every((e) => e.querySelector('svg[aria-hidden] rect.all'))")
        assert await page.ask("document.querySelector('[data-answer=where]').textContent") == (
            f"applied in lane {LANE} as number 1"
        )
        await page.open(f"{system.urls['operations']}/#/commands/{uuid4()}")
        where = "document.querySelector('[data-answer=where]').textContent"
        await page.until(f"{where}.startsWith('not settled yet: in the queue of lane {LANE}')")


async def test_what_is_found_is_looked_at_again_until_nothing_keeps_it(system: System, tmp_path: Path) -> None:
    """Somebody who waits for the mend sees it come."""
    chromium()
    system.start(LANE)
    system.start_operations(LANE)
    await create(system, 1)
    system.operate(LANE, lambda admin: admin.pause("the stock is counted", now()))
    async with opened(system, tmp_path) as (_, page):
        await page.open(f"{system.urls['operations']}/#/find?what=users/1")
        await page.until("document.querySelector('[data-answer=why]').textContent.includes('lane users is paused')")
        system.operate(LANE, lambda admin: admin.resume(now()))
        await page.until("!document.querySelector('[data-answer=why]')")
        assert await page.ask("document.querySelector('[data-answer=where]').textContent")


async def wide_on_a_phone(page: Page) -> int:
    """How wide the page is there, which has no room for a long word."""
    await page.size(*PHONE)
    wide: int = await page.ask("document.documentElement.scrollWidth")
    await page.size(1280, 900)
    return wide


async def test_letters_are_edited_replayed_in_steps_and_discarded(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chromium()
    script = await asyncio.to_thread(axe)
    system.start(LANE)
    system.start_operations(LANE)
    failed = str(uuid4())
    enqueue(system, "users.create", json.dumps({f"{HOSTILE}{'w' * 80}": 1}).encode(), failed)
    enqueue(system, f"users.{HOSTILE}", json.dumps({"x": HOSTILE}).encode(), str(uuid4()))
    enqueue(system, "users.nonsense", b"\xff\x00<script>", None)
    wait_until(lambda: len(letters(monkeypatch, system)) == 3, "three letters", system.processes[0])
    first, hostile, nameless = letters(monkeypatch, system)
    async with opened(system, tmp_path) as (_, page):
        await fact(page, "dead", "3")
        url = system.urls["operations"]

        # One whose arguments are mended is applied.
        await page.open(f"{url}/#/letters")
        await page.until("document.querySelectorAll('#letters tbody tr').length === 3")
        # What came from outside is text.
        assert HOSTILE in await page.text()
        assert await page.ask("!document.querySelector('main img, main script')")
        await page.click(f"Letter {first}")
        await page.until("document.querySelector('#arguments').value.includes('onerror')")
        await page.fill("#arguments", json.dumps(ADA))
        await page.click("Replay…")
        await answer_dialog(page, "Replay", "its arguments were wrong")
        await page.until("document.querySelector('#outcome').textContent.startsWith('Replayed, and applied')")
        assert letters(monkeypatch, system) == [hostile, nameless]
        author, act, reason = acts(monkeypatch, system)[0]
        assert (author, reason) == (f"page:{CALLER.subject}", "its arguments were wrong")
        assert "replay" in act

        # Replaying in steps stops at the first that fails, and the rest is as it was.
        await page.open(f"{url}/#/letters?lane={LANE}")
        await page.until("document.querySelectorAll('#letters tbody tr').length === 2")
        await page.click("1 at a time")
        await answer_dialog(page, "Begin", "try it")
        await page.until("document.body.innerText.includes('stopped: 0 went well, 1 did not')")
        assert nameless in letters(monkeypatch, system)

        # One without an id is shown, and discarded.
        await page.open(f"{url}/#/letters/{LANE}/{nameless}")
        assert "without an id" in await page.until("document.querySelector('.facts')")
        await page.click("Discard…")
        await answer_dialog(page, "Discard", "nobody knows it")
        await page.until("location.hash.startsWith('#/letters?')")
        assert nameless not in letters(monkeypatch, system)

        # Nothing that came from outside has run, on any page; and axe finds nothing serious on one.
        pages = ["#/", "#/letters", f"#/letters/{LANE}/{letters(monkeypatch, system)[0]}", "#/commands", "#/acts"]
        pages += ["#/find", f"#/find?what={failed}", f"#/lanes/{LANE}", f"#/parked?lane={LANE}"]
        for path in [*pages, f"#/commands/{failed}"]:
            await page.open(f"{url}/{path}")
            await page.until("document.querySelector('main h1') && !document.querySelector('main .problem[role]')")
            await page.until("document.querySelectorAll('main td, main dd, main li').length")
            for is_dark in (False, True) if script is not None else ():
                await page.size(1280, 900, is_dark=is_dark)
                assert await serious(page, script) == [], (path, is_dark)
            assert await wide_on_a_phone(page) <= PHONE[0], path
            assert await page.ask("window.hurt === undefined && !document.querySelector('main img, main script')"), path
    if script is None:
        pytest.skip("all but axe-core has run: npm, which has it, is missing or fetches nothing")


async def test_a_viewer_looks_and_cannot_act_and_others_are_kept_out(system: System, tmp_path: Path) -> None:
    chromium()
    system.start(LANE)
    owner = {LANE: system.owner(LANE)}
    viewer, other = key_of("vera", owner, "viewer"), key_of("otto", owner, "staff")
    operator = key_of("eve", owner, "operator")
    system.start_operations(LANE, GATEWAY_HOST="127.0.0.1")
    enqueue(system, "users.nonsense", b'{"secret": 1}', str(uuid4()))
    async with browser(tmp_path / "browser") as started, started.page() as page:
        await page.open(system.urls["operations"])
        await page.fill("input[name=key]", other)
        await page.click("Sign in")
        assert "neither the scope" in await page.until("document.querySelector('.problem')")
        await page.open(f"{system.urls['operations']}/#key={viewer}")
        await page.until(f"{CARD}.dataset.state")
        # Whoever is signed in becomes nobody else by a link.
        await page.open(f"{system.urls['operations']}/?again#key={operator}")
        await page.until(f"{CARD}.dataset.state")
        assert "vera" in await page.ask("document.getElementById('who').textContent")
        await fact(page, "dead", "1")
        assert await page.ask("document.cookie") == ""
        assert not await page.ask("[...document.querySelectorAll('button')].some((e) => e.textContent === 'Pause')")
        await page.open(f"{system.urls['operations']}/#/letters/{LANE}/1")
        assert "secret" not in await page.until(
            "document.querySelector('main .facts') && document.querySelector('main')"
        )
        refused = await page.ask(
            f"fetch('/api/lanes/{LANE}/pause', {{method: 'POST', headers: {{'Content-Type': 'application/json',"
            " 'Operations-Mark': 'x'}, body: '{\"reason\": \"r\"}'}).then((r) => r.status)"
        )
        assert refused == 403


async def serious(page: Page, script: str | None) -> Sequence[Any]:
    """What axe finds that is serious or critical."""
    await page.ask(f"window.axe ? 0 : (() => {{ {script}; }})()")
    found = await page.ask(
        "axe.run(document, {resultTypes: ['violations']}).then((r) => JSON.stringify(r.violations"
        ".filter((v) => ['serious', 'critical'].includes(v.impact))"
        ".map((v) => [v.id, v.nodes.slice(0, 3).map((n) => n.html + ' ' + n.failureSummary)])))"
    )
    violations: list[Any] = json.loads(found)
    return violations


async def _epoch(readyz: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(readyz.replace("/readyz", "/metrics")) as answer:
        lines = (await answer.text()).splitlines()
    found = [line for line in lines if line.startswith("coordinator_lane_epoch{")]
    return int(float(found[0].split()[-1])) if found else 0
