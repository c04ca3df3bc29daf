"""A database that has lost acknowledged commits: its lane says so, and gives nothing out a second time."""

import asyncio
import json
import signal
import urllib.error
import urllib.request
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import make_url, text

from coordinator.cli import cli
from coordinator.dev.servers.process import Process
from tests.support.callers import HEADERS
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until, write_all

pytestmark = pytest.mark.operators

BEFORE = 20
AFTER = 30


class Backup:
    """A copy of the users' database, while nobody uses it."""

    def __init__(self, system: System) -> None:
        self._address = make_url(system.owner("users"))
        self._admin = self._address.set(database="postgres").render_as_string(hide_password=False)

    def take(self) -> None:
        name = self._address.database
        self._run(f"CREATE DATABASE {name}_backup TEMPLATE {name}")

    def restore(self) -> None:
        name = self._address.database
        self._run(f"DROP DATABASE {name} WITH (FORCE)", f"ALTER DATABASE {name}_backup RENAME TO {name}")

    def drop(self) -> None:
        self._run(f"DROP DATABASE IF EXISTS {self._address.database}_backup WITH (FORCE)")

    def _run(self, *statements: str) -> None:
        engine = sql_engine(self._admin)
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()


def query(system: System, statement: str) -> list[tuple[Any, ...]]:
    engine = sql_engine(system.owner("users"))
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(statement)).all()]
    engine.dispose()
    return rows


def stopped(process: Process, system: System) -> None:
    process.stop(signal.SIGTERM, 20)
    assert process.exit_status == 0, process.log_tail(30)
    system.processes.remove(process)


def reason(url: str) -> str:
    """Why the coordinator is not ready; nothing where it is."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""


@pytest.mark.parametrize("is_running", [False, True], ids=["restarted", "running"])
async def test_after_a_restore_the_lane_goes_on_above_what_was_acknowledged(system: System, is_running: bool) -> None:
    system.prepare("users")
    backup = Backup(system)
    coordinator = system.start_coordinator("users")
    gateway = system.start_gateway("users")
    url = system.urls["users"]
    created = await write_all(url, "/users", {"name": "Ada", "email": "ada@example.org"}, 1, 1, "ada")
    assert [status for status, _ in created] == [201]
    await write_all(url, "/users/1/credit", {"amount": 1}, BEFORE, 4, "before")
    for process in (coordinator, gateway):
        await asyncio.to_thread(stopped, process, system)
    await asyncio.to_thread(backup.take)
    coordinator, ready_at = system.launch_coordinator("users", {})
    gateway = system.start_gateway("users")
    url = system.urls["users"]
    await write_all(url, "/users", {"name": "Bob", "email": "bob@example.org"}, 1, 1, "bob")
    await write_all(url, "/users/1/credit", {"amount": 1}, AFTER, 4, "after")
    in_backup, at_end = 1 + BEFORE, 1 + BEFORE + 1 + AFTER
    if not is_running:
        for process in (coordinator, gateway):
            await asyncio.to_thread(stopped, process, system)
    await asyncio.to_thread(backup.restore)
    if not is_running:
        coordinator, ready_at = system.launch_coordinator("users", {})
        gateway = system.start_gateway("users")
        url = system.urls["users"]

    said = f"ends at sequence {in_backup}, and {at_end} was acknowledged"
    if is_running:
        # Nothing is to do, and it says so all the same.
        await asyncio.to_thread(wait_until, lambda: said in reason(ready_at), "the idle one says it", timeout_s=5.0)
    writing = asyncio.create_task(
        write_all(url, "/users", {"name": "Cy", "email": "cy@example.org"}, 1, 1, "cy"), name="the next user"
    )
    await asyncio.to_thread(wait_until, lambda: said in reason(ready_at), "the coordinator says what is lost")
    assert said in coordinator.log_tail(50)
    assert query(system, "SELECT sequence FROM lane_lease") == [(in_backup,)]
    arguments = ["accept-loss", "users", "--at", str(in_backup), "--up-to"]
    for wrong in (at_end - 1, 2**53 - 1):
        # In a thread: it runs an event loop of its own.
        refused = await asyncio.to_thread(CliRunner().invoke, cli, [*arguments, str(wrong)], env=system.environment)
        assert refused.exit_code == 1, refused.output
        assert f"{at_end} was acknowledged, by the mark of users in RabbitMQ, and not {wrong}" in refused.output
    arguments.append(str(at_end))
    on_word = [*arguments, "--without-mark"]
    refused = await asyncio.to_thread(CliRunner().invoke, cli, on_word, env=system.environment)
    assert refused.exit_code == 1, refused.output
    assert f"users has a mark in RabbitMQ, at sequence {at_end}, and its database ends at" in refused.output
    accepted = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=system.environment)
    assert accepted.exit_code == 0, accepted.output

    ((status, cy),) = await writing
    assert status == 201, cy
    assert cy["id"] == 3, "the second user's number is not given out again"
    assert query(system, "SELECT max(sequence) FROM command_log") == [(at_end + 1,)]
    # Whoever repeats what was lost has it applied.
    ((status, bob),) = await write_all(url, "/users", {"name": "Bob", "email": "bob@example.org"}, 1, 1, "bob")
    assert status == 201
    assert bob["id"] == 4
    assert query(system, "SELECT credit FROM users WHERE id = 1") == [(BEFORE,)]


async def test_a_purchase_that_is_repeated_after_a_restore_pays_once(system: System) -> None:
    """As docs/OPERATING.md has an operator do it: the steps that wait in vain are continued, one after the other."""
    services = ("users", "items", "payments")
    system.prepare(*services)
    backup = Backup(system)
    system.start_sandbox()
    system.start_coordinators("items", "payments")
    for service in ("items", "payments"):
        system.start_gateway(service)
    system.start_effects("payments")
    coordinator, gateway = system.start_coordinator("users"), system.start_gateway("users")
    item = {"name": "Pen", "price": 100, "currency": "EUR", "stock": 5}
    await write_all(system.urls["items"], "/items", item, 1, 1, "pen")
    await write_all(system.urls["users"], "/users", {"name": "Ada", "email": "ada@example.org"}, 1, 1, "ada")
    for process in (coordinator, gateway):
        await asyncio.to_thread(stopped, process, system)
    await asyncio.to_thread(backup.take)
    coordinator, gateway = system.start_coordinator("users"), system.start_gateway("users")

    async def buy() -> Any:
        body = {"item_id": 1, "quantity": 2, "payment_method": "pm_card_visa"}
        ((_, purchase),) = await write_all(system.urls["users"], "/users/1/purchases", body, 1, 1, "purchase")
        return purchase

    await buy()
    await asyncio.to_thread(wait_until, lambda: states(system) == ["completed"], "it is bought", coordinator)
    for process in (coordinator, gateway):
        await asyncio.to_thread(stopped, process, system)
    acknowledged = query(system, "SELECT sequence FROM lane_lease")[0][0]
    await asyncio.to_thread(backup.restore)
    ended_at = query(system, "SELECT sequence FROM lane_lease")[0][0]
    coordinator, ready_at = system.launch_coordinator("users", {})
    system.start_gateway("users")
    # It learns what was acknowledged with the first command that comes.
    buying = asyncio.create_task(buy(), name="the purchase again")
    said = f"ends at sequence {ended_at}, and {acknowledged} was acknowledged"
    await asyncio.to_thread(wait_until, lambda: said in reason(ready_at), "the coordinator says what is lost")
    arguments = ["accept-loss", "users", "--at", str(ended_at), "--up-to", str(acknowledged)]
    accepted = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=system.environment)
    assert accepted.exit_code == 0, accepted.output
    await buying
    payment = await asyncio.to_thread(payment_text, system)
    results = {"authorize": ["--result", payment], "capture": ["--result", payment]}
    for step in ("quote", "authorize", "reserve", "capture"):
        await asyncio.to_thread(wait_until, lambda: waiting(system)[:1] == [step], f"it waits at {step}")  # noqa: B023
        ((_, command_type, command_id),) = query(system, WAITING)
        arguments = ["continue", command_type.partition(".")[0], command_id, "--to", "users.continue_purchase"]
        arguments += results.get(step, ["--logged"])
        # In a thread: it runs an event loop of its own.
        continued = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=system.environment)
        assert continued.exit_code == 0, continued.output
    await asyncio.to_thread(wait_until, lambda: states(system) == ["completed"], "it is completed", coordinator)
    payments = sql_engine(system.owner("payments"))
    with payments.connect() as connection:
        rows = connection.execute(text("SELECT id, status, amount FROM payments")).all()
    payments.dispose()
    assert [tuple(row) for row in rows] == [(1, "captured", 200)]
    assert await asyncio.to_thread(stock, system) == 3


WAITING = "SELECT name, command_type, command_id FROM saga_steps WHERE status = 'waiting'"


def waiting(system: System) -> list[str]:
    """The steps that wait for the outcome of their command."""
    return [name for name, _, _ in query(system, WAITING)]


def payment_text(system: System) -> str:
    """The payment as its gateway shows it."""
    asked = urllib.request.Request(f"{system.urls['payments']}/payments/1", headers=HEADERS)
    with urllib.request.urlopen(asked, timeout=5) as response:
        text: bytes = response.read()
    return text.decode()


def stock(system: System) -> int:
    with urllib.request.urlopen(f"{system.urls['items']}/items/1", timeout=5) as response:
        return int(json.load(response)["stock"])


def states(system: System) -> list[str]:
    return [status for (status,) in query(system, "SELECT status FROM purchases")]


def test_what_is_accepted_must_be_what_is_there(system: System) -> None:
    system.prepare("users")

    def invoke(at: int, up_to: int, *options: str) -> Result:
        arguments = ["accept-loss", "users", "--at", str(at), "--up-to", str(up_to), "--json", *options]
        return CliRunner().invoke(cli, arguments, env=system.environment)

    refused = invoke(7, 9)
    assert refused.exit_code == 1
    assert "ends at sequence 0, not at 7" in refused.output
    healthy = invoke(0, 0)
    assert healthy.exit_code == 1
    assert "nothing is lost" in healthy.output
    unshown = invoke(0, 9)
    assert unshown.exit_code == 1
    assert "nothing shows that users has lost anything" in unshown.output
    said = {"lane": "users", "sequence": 0, "up_to": 9, "without_mark": True, "paused": None}
    assert json.loads(invoke(0, 9, "--without-mark").stdout) == said
