"""The reference system in one process, without a server: what is acknowledged outlives `kill -9`."""

import asyncio
import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator.dev.servers.process import descendants
from tests.e2e.test_cache import Traffic
from tests.support.callers import key_of
from tests.support.monolith import SERVICES, Monolith
from tests.support.system import wait_until
from tests.support.torn import TORN

CLIENTS = 20
KILLED_AFTER = 60
"""Purchases that are acknowledged."""
ITEMS = 4
STOCK = 10_000
ENDED = ("completed", "compensated")


ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text().partition("## Try it in one process")[2].partition("## Try it with")[0]


@pytest.fixture
def monolith(tmp_path: Path) -> Iterator[Monolith]:
    made = Monolith(tmp_path, ACCESS_KEYS_REFRESH_S="0.2")
    yield made
    if made.process is not None:
        made.process.kill()


class Buyers:
    """Each has an account, and buys one thing after the other; whoever gets no answer sends the same again."""

    def __init__(self, monolith: Monolith, session: aiohttp.ClientSession, keys: list[str]) -> None:
        self._monolith = monolith
        self._session = session
        self._keys = keys
        self.acknowledged: dict[str, int] = {}
        """The purchases' ids, by idempotency key."""
        self.sent: dict[str, tuple[int, int]] = {}
        """The buyer and the number of each purchase that was asked for, by idempotency key."""
        self.accepted: list[str] = []
        """The ids of commands that were answered with 202, and that nobody sends again."""
        self.enough = asyncio.Event()

    async def sign_up(self) -> None:
        for number in range(ITEMS):
            item = {"name": f"i{number}", "price": 100 + number, "currency": "EUR", "stock": STOCK}
            await self._write("/items", item, f"i{number}", self._monolith.headers)
        for number in range(len(self._keys)):
            user = {"name": f"u{number}", "email": f"u{number}@example.org"}
            made = await self._write("/users", user, f"u{number}", self._of(number))
            assert made["id"] == number + 1

    async def buy_until_it_is_killed(self, buyer: int) -> None:
        number = 0
        try:
            while True:
                await self.buy(buyer, number)
                number += 1
        except TORN:
            return

    async def rename(self, number: int) -> None:
        """Ask for something that need not be done yet."""
        told = self._of(number) | {"Prefer": "respond-async"}
        path = f"{self._monolith.url}/users/{number + 1}"
        async with self._session.patch(path, json={"name": f"renamed{number}"}, headers=told) as response:
            assert response.status == 202, await response.text()
            self.accepted.append(response.headers["Command-Id"])

    async def buy(self, buyer: int, number: int) -> None:
        key = f"{buyer}-{number}"
        self.sent[key] = buyer, number
        order = {
            "item_id": 1 + number % ITEMS,
            "quantity": 1 + number % 3,
            "payment_method": "pm_card_chargeDeclined" if (buyer + number) % 7 == 6 else "pm_card_visa",
        }
        purchase = await self._write(f"/users/{buyer + 1}/purchases", order, key, self._of(buyer))
        assert self.acknowledged.setdefault(key, purchase["id"]) == purchase["id"], "it was applied twice"
        if len(self.acknowledged) >= KILLED_AFTER:
            self.enough.set()

    def _of(self, buyer: int) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._keys[buyer]}"}

    async def _write(self, path: str, body: object, key: str, headers: dict[str, str]) -> Any:
        # Some are answered before they have an outcome: what is said then must be safe, too.
        told = headers | {"Idempotency-Key": key, "Prefer": "wait=5"}
        async with self._session.post(self._monolith.url + path, json=body, headers=told) as response:
            answer = await response.json()
            assert response.status in (200, 201), answer
            return answer


@pytest.mark.timeout(180)
async def test_kill_9_amid_purchases_loses_nothing_and_the_money_adds_up(monolith: Monolith) -> None:
    await asyncio.to_thread(monolith.start)
    users = {"users": monolith.owner("users")}
    keys = [await asyncio.to_thread(key_of, f"buyer-{n}", users) for n in range(CLIENTS)]
    last = {"Authorization": f"Bearer {keys[-1]}"}
    await asyncio.to_thread(wait_until, lambda: monolith.lets_in(last), "the keys count")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        buyers = Buyers(monolith, session, keys)
        await buyers.sign_up()
        buying = [asyncio.create_task(buyers.buy_until_it_is_killed(buyer)) for buyer in range(CLIENTS)]
        async with asyncio.timeout(60):
            await buyers.enough.wait()
        await asyncio.gather(*(buyers.rename(number) for number in range(CLIENTS)))
        assert monolith.process is not None
        monolith.process.kill()
        await asyncio.gather(*buying)
    acknowledged, sent = dict(buyers.acknowledged), dict(buyers.sent)
    assert len(sent) > len(acknowledged), "something was under way"

    await asyncio.to_thread(monolith.start)
    async with aiohttp.ClientSession() as session:
        again = Buyers(monolith, session, keys)
        again.acknowledged = acknowledged
        await asyncio.gather(*(again.buy(*of) for of in sent.values()))
    assert sorted(again.acknowledged.values()) == list(range(1, len(sent) + 1))
    for command_id in buyers.accepted:
        # Also of those that were not applied yet when it was killed.
        settled = await asyncio.to_thread(fetched, f"{monolith.url}/commands/{command_id}", monolith.headers)
        assert settled["status"] == "applied"
    assert monolith.rows("users", "SELECT count(*) FROM users WHERE name LIKE 'renamed%'") == [(CLIENTS,)]

    def is_at_rest() -> bool:
        ended = dict(monolith.rows("users", "SELECT status, count(*) FROM purchases GROUP BY status"))
        waiting = [monolith.rows(service, "SELECT count(*) FROM outbox")[0][0] for service in SERVICES]
        return sum(ended.get(status, 0) for status in ENDED) == len(sent) and waiting == [0, 0, 0]

    await asyncio.to_thread(wait_until, is_at_rest, "every purchase has ended and nothing waits", None, 60.0)
    charges = fetched(f"{monolith.urls['sandbox']}/sandbox/charges")["charges"]
    assert await asyncio.to_thread(monolith.stop) == 0
    check_money(monolith.rows, charges, ITEMS * STOCK)
    for service in SERVICES:
        [(last, settled)] = monolith.rows(service, "SELECT max(sequence), count(*) FROM command_log")
        assert last == settled, f"the order of {service} has gaps"


def check_money(rows: Callable[[str, str], Sequence[Any]], charges: list[dict[str, Any]], stock: int) -> None:
    """What the three databases and the provider say of the same purchases, all of which have ended."""
    states: Counter[str] = Counter()
    amount = 0
    for status, count, of_state in rows(
        "users", "SELECT status, count(*), coalesce(sum(amount), 0) FROM purchases GROUP BY status"
    ):
        states[status] = count
        amount += int(of_state) if status == "completed" else 0
    assert set(states) == set(ENDED), states
    [(noted, count)] = rows("users", "SELECT sum(amount), sum(purchases) FROM purchase_totals")
    assert (noted, count) == (amount, states["completed"])
    [(kept,)] = rows("payments", "SELECT sum(captured - refunded) FROM payments")
    assert kept == amount
    assert sum(charge["captured"] - charge["refunded"] for charge in charges) == amount
    assert not [charge for charge in charges if charge["status"] == "requires_capture"]
    [(left,)] = rows("items", "SELECT sum(stock) FROM items")
    [(reserved,)] = rows("items", "SELECT coalesce(sum(quantity), 0) FROM reservations")
    assert left + reserved == stock


def test_one_port_has_all_routes_the_pages_are_on_theirs_and_ctrl_c_leaves_nothing(monolith: Monolith) -> None:
    said = monolith.start()
    assert "users, items, payments in this process" in said
    document = fetched(f"{monolith.url}/openapi.json", monolith.headers)
    assert {"/users/{id}", "/items/{id}", "/payments/{id}", "/purchases/{id}", "/webhooks/stripe"} <= set(
        document["paths"]
    )
    assert [tag["name"] for tag in document["tags"]] == [*SERVICES, "every gateway"]
    schemas = {each["type"] for each in fetched(f"{monolith.url}/schemas", monolith.headers)}
    assert {"users.create", "items.create", "payments.open"} <= schemas
    for code in ("email_taken", "out_of_stock", "payment_not_found"):
        with urllib.request.urlopen(f"{monolith.url}/problems/{code}", timeout=30) as page:
            assert page.status == 200
    ready = fetched(f"{monolith.url}/readyz")
    assert set(ready["checks"]) >= {f"database of {service}" for service in SERVICES} | {"cache of items"}
    assert set(ready["checks"].values()) == {"ok"}
    with urllib.request.urlopen(monolith.urls["operations"], timeout=30) as page:
        assert page.status == 200
    assert monolith.process is not None
    pid = monolith.process.pid
    assert descendants(pid) == []
    assert monolith.stop(signal.SIGINT) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    for url in (monolith.url, monolith.urls["operations"], monolith.urls["sandbox"]):
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=5)


async def test_no_read_is_older_than_an_acknowledged_write(monolith: Monolith) -> None:
    await asyncio.to_thread(monolith.start)
    await asyncio.to_thread(monolith.admit_caller)
    async with Traffic.flowing(monolith) as traffic:
        await traffic.more("write", "hit")


def test_the_lines_of_the_readme_answer_as_they_are_shown(monolith: Monolith) -> None:
    monolith.start()
    (session,) = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = re.findall(r"^\$ (curl (?:.*\\\n)*.*)\n(.*)$", session, re.MULTILINE)
    assert len(lines) == 4

    def run(line: str, shown: str) -> None:
        here = line.replace("localhost:8080", monolith.url).replace("localhost:8090", monolith.urls["sandbox"])
        script = f'source .dev/env; ME="Authorization: Bearer $DEV_KEY"; {here} -s'
        ran = subprocess.run(
            ["bash", "-c", script], cwd=monolith.folder, capture_output=True, text=True, timeout=30, check=True
        )
        pattern = ".*".join(map(re.escape, shown.split("...")))
        assert re.fullmatch(pattern, ran.stdout.strip()), (line, ran.stdout)

    for line, shown in lines:
        run(line, shown)
    # As it says: nothing is lost.
    assert monolith.process is not None
    monolith.process.kill()
    monolith.start()
    run(*lines[-1])


def fetched(url: str, headers: dict[str, str] | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=30) as answer:
        return json.load(answer)
