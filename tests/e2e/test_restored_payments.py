"""The payments' database falls back to an older copy amid calls to the provider: all has a way on."""

import asyncio
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import make_url, text

from coordinator.cli import cli
from coordinator.dev.servers.process import Process
from tests.e2e.test_restore import reason, stopped
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until, write_all

pytestmark = pytest.mark.operators

PAYMENT = {"user_id": 1, "amount": 500, "currency": "EUR", "payment_method": "pm_card_visa"}
PURCHASE = {"item_id": 1, "quantity": 2, "payment_method": "pm_card_visa"}


def query(system: System, service: str, *statements: str) -> list[tuple[Any, ...]]:
    """What the last of them returns."""
    engine = sql_engine(system.owner(service))
    rows: list[tuple[Any, ...]] = []
    with engine.connect() as connection:
        for statement in statements:
            found = connection.execute(text(statement))
            rows = [tuple(row) for row in found.all()] if found.returns_rows else []
    engine.dispose()
    return rows


class Copy:
    """A copy of the payments' database, while nobody uses it."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._name = f"{make_url(system.owner('payments')).database}_backup"

    def take(self) -> None:
        query(self._system, "payments", f"CREATE DATABASE {self._name}")
        for table in self._tables:
            copied = f"{self._name}.{table}"
            insert = f"INSERT INTO {copied} SELECT * FROM {table}"
            query(self._system, "payments", f"CREATE TABLE {copied} LIKE {table}", insert)

    def restore(self) -> None:
        for table in self._tables:
            insert = f"INSERT INTO {table} SELECT * FROM {self._name}.{table}"
            query(self._system, "payments", f"DELETE FROM {table}", insert)

    def drop(self) -> None:
        query(self._system, "payments", f"DROP DATABASE IF EXISTS {self._name}")

    @property
    def _tables(self) -> list[str]:
        return [table for (table,) in query(self._system, "payments", "SHOW TABLES")]


@pytest.fixture
def copy(system: System) -> Iterator[Copy]:
    copy = Copy(system)
    yield copy
    copy.drop()


async def operator(system: System, *words: str) -> Result:
    # In a thread: it runs an event loop of its own.
    return await asyncio.to_thread(CliRunner().invoke, cli, words, env=system.environment)


async def until(system: System, service: str, statement: str, rows: list[tuple[Any, ...]], process: Process) -> None:
    def is_so() -> bool:
        return query(system, service, statement) == rows

    await asyncio.to_thread(wait_until, is_so, f"{statement}: {rows}", process)


async def test_what_was_under_way_at_the_provider_has_a_way_on(system: System, copy: Copy) -> None:
    system.prepare("users", "items", "payments")
    system.start_sandbox()
    system.start_coordinators("users", "items")
    lane = system.start_coordinator("payments")
    for service in ("users", "items", "payments"):
        system.start_gateway(service)
    item = {"name": "Pen", "price": 100, "currency": "EUR", "stock": 5}
    await write_all(system.urls["items"], "/items", item, 1, 1, "pen")
    await write_all(system.urls["users"], "/users", {"name": "Ada", "email": "ada@example.org"}, 1, 1, "ada")
    await write_all(system.urls["payments"], "/payments", PAYMENT, 1, 1, "first")
    # No worker runs: the call is with the broker, and no longer in the outbox.
    await until(system, "payments", "SELECT count(*) FROM outbox", [(0,)], lane)
    await asyncio.to_thread(copy.take)
    worker = system.start_effects("payments")
    await until(system, "payments", "SELECT id, status FROM payments", [(1, "authorized")], lane)
    ((held,),) = query(system, "payments", "SELECT provider_id FROM payments")
    await asyncio.to_thread(worker.stop, signal.SIGKILL, 10)
    system.processes.remove(worker)
    await write_all(system.urls["users"], "/users/1/purchases", PURCHASE, 1, 1, "purchase")
    await until(system, "payments", "SELECT id, status FROM payments WHERE id = 2", [(2, "pending")], lane)
    await asyncio.to_thread(stopped, lane, system)
    await asyncio.to_thread(copy.restore)

    lane, ready_at = system.launch_coordinator("payments", {})
    worker = system.start_effects("payments")
    # The second call's result is the first command that comes.
    await asyncio.to_thread(wait_until, lambda: "accept-loss" in reason(ready_at), "it says what is lost", lane)
    said = re.search(r"`coordinator (accept-loss payments --at \d+ --up-to \d+)`", reason(ready_at))
    assert said is not None
    accepted = await operator(system, *said[1].split())
    assert accepted.exit_code == 0, accepted.output
    refused = "SELECT count(*) FROM command_log WHERE error_code = 'payment_not_found' AND type LIKE '%result'"
    await until(system, "payments", refused, [(1,)], lane)

    waiting = "SELECT id, status, pending_action FROM payments"
    assert query(system, "payments", waiting) == [(1, "pending", "authorize")]
    resolution = f'{{"id": 1, "status": "authorized", "provider_id": "{held}", "reason": "AL"'
    without = await operator(system, "send", "payments.resolve", resolution + "}", "--wait", "10")
    assert without.exit_code == 1
    assert "even_if_under_way" in without.output
    resolved = await operator(
        system, "send", "payments.resolve", resolution + ', "even_if_under_way": true}', "--wait", "10"
    )
    assert resolved.exit_code == 0, resolved.output
    assert query(system, "payments", waiting) == [(1, "authorized", None)]
    captured = await write_all(system.urls["payments"], "/payments/1/capture", None, 1, 1, "capture")
    assert [status for status, _ in captured] == [200]

    # The purchase waits for a command that nobody has any more.
    step = "SELECT command_id FROM saga_steps WHERE status = 'waiting'"
    ((lost,),) = query(system, "users", step)
    again = f'{{"id": 1, "step": "{lost}", "verdict": "again", "reason": "AL", "even_if_running": true}}'
    taken_up = await operator(system, "send", "users.resume_purchase", again, "--wait", "10")
    assert taken_up.exit_code == 0, taken_up.output
    await until(system, "users", "SELECT status FROM purchases", [("completed",)], lane)
    everything = [(1, "captured", None), (3, "captured", None)]
    await until(system, "payments", waiting + " ORDER BY id", everything, lane)
