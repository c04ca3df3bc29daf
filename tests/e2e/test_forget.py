"""A person is forgotten on the real system: nothing of him is in a dump of the database, and the order is as it was."""

import asyncio
import subprocess
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from tests.e2e.test_operate import Run, run
from tests.e2e.test_rest import Api, users
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

__all__ = ("run", "users")

NAME, EMAIL = "Ada Plantedname", "ada@planted.example"
CREDITS = 320
"""So many that forgetting takes several steps."""


def dump(system: System) -> str:
    """What `pg_dump` shows of the database of users, in lower case."""
    dumped = subprocess.run(
        ["pg_dump", "--data-only", "--inserts", system.owner("users")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return dumped.stdout.lower()


def log_of(system: System) -> list[tuple[Any, ...]]:
    engine = sql_engine(system.environment["USERS_DATABASE_URL"])
    with engine.connect() as connection:
        found = connection.execute(text("SELECT sequence, command_id, type, status FROM command_log ORDER BY sequence"))
        rows = [tuple(row) for row in found]
    engine.dispose()
    return rows


@pytest.mark.timeout(180)
async def test_a_user_is_forgotten_though_the_coordinator_is_killed(system: System, users: Api, run: Run) -> None:
    first = str(uuid4())
    status, _, _ = await users("POST", "/users", {"name": NAME, "email": EMAIL}, Command_Id=first)
    assert status == 201
    assert (await users("POST", "/users", {"name": "Eve", "email": "eve@kept.example"}))[0] == 201
    assert (await users("POST", "/users", {"name": NAME, "email": EMAIL}))[1]["code"] == "email_taken"
    some = [{"type": "users.credit", "args": {"id": 1, "amount": 1}} for _ in range(CREDITS)]
    assert (await users("POST", "/commands", some))[0] == 200
    assert (await users("DELETE", "/users/1"))[0] == 204
    assert "planted" in dump(system)
    before = log_of(system)
    counted = (await asyncio.to_thread(run, "forget", "users", 1, "--dry-run", "--json")).json
    assert counted["commands"] == CREDITS + 3
    # The order is confirmed, and its lane is killed before, or while, it carries it out.
    system.start_coordinator("users")
    await asyncio.to_thread(run, "forget", "users", 1, "--wait", 0, expect=3)
    system.processes[0].kill()
    await asyncio.to_thread(wait_until, lambda: "planted" not in dump(system), "nothing of the user is left", None, 60)
    done = (await asyncio.to_thread(run, "forget", "users", 1, "--json")).json
    assert (done["status"], done["log_entries"], done["row_is_there"]) == ("forgotten", 0, False)
    assert "eve@kept.example" in dump(system)
    after = log_of(system)
    assert after[: len(before)] == before
    assert [row[0] for row in after] == list(range(1, len(after) + 1))
    # Who repeats what is forgotten is told so, and no second Ada comes of it.
    status, problem, _ = await users("POST", "/users", {"name": NAME, "email": EMAIL}, Command_Id=first)
    assert (status, problem["code"]) == (410, "forgotten")
    status, shown, _ = await users("GET", f"/commands/{first}")
    assert (status, shown["status"], shown["error"]["code"], shown["result"]) == (200, "applied", "forgotten", None)
    assert (await users("GET", "/users"))[1]["items"][0]["id"] == 2
