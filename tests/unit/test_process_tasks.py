"""What a process does when one of its tasks or threads ends that must not: it ends too, and says why."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings, LaneSettings
from coordinator.stores.port import StoreUnavailable
from coordinator.worker.process import CoordinatorProcess

ROOT = Path(__file__).parents[2]
AWAY = "amqp://guest:guest@127.0.0.1:9/%2F"
"""Nothing listens on port 9."""

LANE = ["coordinator", "run", "users"]
GATEWAY = ["gateways", "users", "--port", "0"]
RUN = """
import importlib, runpy, sys

where, name, error, *argv = sys.argv[1:]
module, owner = where.split(":")
from coordinator.service.errors import ConfigurationError

def fail(*_, **__):
    raise {"defect": KeyError("a defect of ours"), "configuration": ConfigurationError("AMQP_URL: no right")}[error]

async def fail_later(*_, **__):
    fail()

owner = getattr(importlib.import_module(module), owner)
setattr(owner, name, fail if name == "run" and owner.__name__ == "LaneThread" else fail_later)
sys.argv = argv
runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
"""


def run(directory: Path, where: str, error: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
    owner, _, name = where.rpartition(".")
    return subprocess.run(
        [sys.executable, "-c", RUN, owner, name, error, *argv],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "COORDINATOR_APP": "gateways.app:APP",
            "USERS_DATABASE_URL": database(directory, argv),
            "AMQP_URL": AWAY,
            **QUICK,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


QUICK = {"LANE_OUTBOX_WATCH_S": "0.1", "GATEWAY_WAIT_S": "0.1"}


def database(directory: Path, argv: list[str]) -> str:
    if argv is GATEWAY:
        return "postgresql://nobody@127.0.0.1:9/users"
    url = f"sqlite:///{directory / 'users.db'}"
    migrate(registry().service("users"), DatabaseSettings(database_url=url))
    return url


TASKS = [
    ("coordinator.transports.rabbitmq.consumer:LaneConsumer._consume", LANE),
    ("coordinator.transports.rabbitmq.consumer:LaneConsumer._serve", LANE),
    ("coordinator.transports.rabbitmq.publisher:Publisher._serve", LANE),
    ("coordinator.worker.lane_thread:LaneThread.run", LANE),
    ("coordinator.worker.outbox_watch:OutboxWatch.run", LANE),
    ("coordinator.worker.retention:Retention.run", LANE),
    ("coordinator.transports.rabbitmq.publisher:Publisher._serve", GATEWAY),
    ("coordinator.transports.rabbitmq.writes:RabbitWrites._receive", GATEWAY),
]
"""Every task and thread that stays for as long as its process."""


@pytest.mark.parametrize(("where", "argv"), TASKS)
def test_a_process_ends_when_one_of_its_tasks_meets_a_defect(tmp_path: Path, where: str, argv: list[str]) -> None:
    ended = run(tmp_path, where, "defect", argv)
    assert ended.returncode == 1, ended.stderr
    assert "a defect of ours" in ended.stderr
    assert "Traceback" in ended.stderr
    if argv is LANE:
        assert '"body":"stopping"' in ended.stderr


@pytest.mark.parametrize(("where", "argv"), TASKS)
def test_a_process_ends_with_one_line_when_one_of_its_tasks_cannot_be_configured_so(
    tmp_path: Path, where: str, argv: list[str]
) -> None:
    ended = run(tmp_path, where, "configuration", argv)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.strip().splitlines()[-1].endswith(": AMQP_URL: no right")
    assert "Traceback" not in ended.stderr


async def test_a_database_that_is_away_at_the_start_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    tries, stop = 0, asyncio.Event()

    async def away(*_: object) -> None:
        nonlocal tries
        tries += 1
        if tries == 6:
            stop.set()
        raise StoreUnavailable("connection refused" if tries < 4 else "it starts up")

    monkeypatch.setattr("coordinator.worker.process.check_database", away)
    process = object.__new__(CoordinatorProcess)
    process._settings = LaneSettings(retry_delay_s=0.001, retry_delay_s_max=0.002)
    process._service, process._database_reason = registry().service("users"), None
    process._store = cast("Any", None)
    process._where = {"server.address": "db.internal", "server.port": 5432}
    with capture_logs() as lines:
        assert not await process._wait_for_database(stop)
    assert [line["reason"] for line in lines] == ["connection refused", "it starts up"]
    for line in lines:
        assert (line["server.address"], line["server.port"]) == ("db.internal", 5432)
        assert "USERS_DATABASE_URL" in line["what_to_do"]
