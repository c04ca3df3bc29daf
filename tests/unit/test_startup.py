"""A process imports what it uses, and nothing else: importing is most of the time in which it starts."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from coordinator.registry import APP_SETTING
from tests.support.servers import REFERENCE_APP

ROOT = Path(__file__).parents[2]
ADDRESSES = {
    "LANE_GATEWAY_ACCOUNTS": "gateway",
    "USERS_DATABASE_URL": "postgresql://localhost/users",
    "ITEMS_DATABASE_URL": "mongodb://localhost/items",
    "PAYMENTS_DATABASE_URL": "mysql://localhost/payments",
    "STRIPE_API_KEY": "sk_test_x",
    "STRIPE_METADATA_KEY": "a key for this test alone",
}
LARGE = {
    "aiohttp",
    "aiomysql",
    "alembic",
    "docker",
    "pika",
    "prometheus_client",
    "psycopg",
    "psycopg_pool",
    "pymongo",
    "pymysql",
    "redis",
    "requests",
    "sqlalchemy",
    "sqlalchemy.ext.asyncio",
    "stripe",
    "testcontainers",
}
"""Packages that take 20 ms or more of a process's start, and that not every process needs."""

HELP = """
import sys
from contextlib import suppress
from io import StringIO
from coordinator.cli import main
sys.argv = ["coordinator", *{!r}, "--help"]
sys.stdout, told = StringIO(), sys.stdout
with suppress(SystemExit):
    main()
sys.stdout = told
"""
NEVER_FOR_HELP = LARGE | {"asyncio", "email", "pydantic", "pydantic_settings", "structlog"}
"""What takes 20 ms or more, and says nothing of how a command is used."""
COMMAND = "from coordinator.cli import cli; cli.get_command(None, {!r})"
LOOK = COMMAND + "\nfrom coordinator.operate.open import lane_admin\nwith lane_admin({!r}): pass"
LANE = (
    COMMAND.format("run")
    + "\nfrom coordinator.worker.process import *\nCoordinatorProcess(registry().service({!r}), is_watched=True)"
)
EFFECTS = """
from coordinator.cli import cli
from coordinator.effects.process import *
from coordinator.registry import registry

async def open_all() -> None:
    service = next(each for each in registry().calling if each.name == {!r})
    effects = service.effects()
    open_transport(load(BrokerSettings)).effects(service.name, 1)
    await effects.close()

asyncio.run(open_all())
"""
MONOLITH = """
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from coordinator.cli import cli
cli.get_command(None, "dev")
from coordinator.dev import one_process
from coordinator.dev.servers.ports import free_port

async def stopped(*_) -> None:
    "As soon as all of it runs."

one_process.stopped = stopped
for name in [name for name in os.environ if name.endswith("_DATABASE_URL") or name.startswith("STRIPE_")]:
    del os.environ[name]
os.environ |= {f"DEV_{each}_PORT": str(free_port()) for each in ("GATEWAY", "OPERATIONS", "SANDBOX")}
with TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
    sys.stdout, told = nowhere, sys.stdout
    assert one_process.run(Path(folder) / ".dev") == 0
    sys.stdout = told
"""
STARTS = {
    "coordinator, to say its commands": ("from coordinator.cli import cli", set[str]()),
    "coordinator dev": (COMMAND.format("dev"), set[str]()),
    "coordinator migrate, for no lane": (COMMAND.format("migrate"), set[str]()),
    "coordinator status users": (LOOK.format("status", "users"), {"psycopg", "sqlalchemy"}),
    "coordinator status items": (LOOK.format("status", "items"), {"pymongo", "sqlalchemy"}),
    "coordinator status payments": (LOOK.format("status", "payments"), {"pymysql", "sqlalchemy"}),
    "coordinator run users": (LANE.format("users"), {"pika", "prometheus_client", "psycopg", "sqlalchemy"}),
    "coordinator run items": (
        LANE.format("items"),
        {"pika", "prometheus_client", "pymongo", "redis", "sqlalchemy"},
    ),
    "coordinator run payments": (
        LANE.format("payments"),
        {"pika", "prometheus_client", "pymysql", "sqlalchemy"},
    ),
    "coordinator dev gateways.app:APP": (
        "import sys" + MONOLITH,
        {"aiohttp", "alembic", "prometheus_client", "requests", "sqlalchemy", "sqlalchemy.ext.asyncio", "stripe"},
    ),
    "coordinator effects payments": (
        EFFECTS.format("payments"),
        {"aiohttp", "pika", "prometheus_client", "requests", "stripe", "sqlalchemy"},
    ),
}


@cache
def loaded(program: str) -> set[str]:
    """The modules of a process that has run this."""
    run = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport json, sys\njson.dump(sorted(sys.modules), sys.stdout)"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], APP_SETTING: REFERENCE_APP, **ADDRESSES},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


@pytest.mark.parametrize("start", STARTS)
def test_a_process_imports_what_it_uses_and_nothing_else(start: str) -> None:
    program, uses = STARTS[start]
    assert LARGE & loaded(program) == uses


@pytest.mark.parametrize("words", [(), ("run",), ("gateway",), ("dev",)], ids=["list", "run", "gateway", "dev"])
def test_help_waits_for_no_import(words: tuple[str, ...]) -> None:
    modules = loaded(HELP.format(words))
    assert NEVER_FOR_HELP & modules == set()
    assert {name for name in modules if name.startswith(("coordinator.operate", "coordinator.accounts"))} == set()


def test_status_imports_no_service() -> None:
    """Its code may be what is broken."""
    services = {name for name in loaded(LOOK.format("status", "users")) if name.partition(".")[0] == "shared"}
    assert services == set()
