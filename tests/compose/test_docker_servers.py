"""The two others who run servers in Docker: `coordinator dev --servers docker`, and the fixtures of the tests."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from coordinator.registry import APP_SETTING
from tests.support.compose_file import COMPOSE_FILE
from tests.support.servers import REFERENCE_APP
from tests.support.system import wait_until

pytestmark = pytest.mark.timeout(900)

SERVICES = ("USERS", "ITEMS", "PAYMENTS")
PORTS = {
    f"DEV_{name}_PORT": str(free_port())
    for name in (
        *("AMQP", "POSTGRESQL", "MYSQL", "MONGODB", "REDIS", "SANDBOX", "PAYMENTS_EFFECTS", "OPERATIONS"),
        *SERVICES,
        *(f"{service}_METRICS" for service in SERVICES),
    )
}
ENVIRONMENT = os.environ | PORTS | {"DEV_DOCKER_PROJECT": "write-coordinator-tests-dev", APP_SETTING: REFERENCE_APP}
SKIPPED_BY_DESIGN = "the servers run in Docker: tests that kill them need processes of their own"


def dev(directory: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "coordinator", "dev", "--dir", str(directory), *options]


def add_user(directory: Path, email: str) -> int:
    """Its id. The run has made a key, since rules ask who asks."""
    key = dict(re.findall(r"export (\w+)='(.*)'", (directory / "env").read_text())).get("DEV_KEY", "")
    body = json.dumps({"name": "Ada", "email": email}).encode()
    url = f"http://127.0.0.1:{PORTS['DEV_USERS_PORT']}/users"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", "Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(json.load(answer)["id"])


def has_come_up(run: Process) -> bool:
    """Or has ended."""
    return not run.alive or "Ctrl-C stops everything" in run.log_tail(100)


def test_coordinator_dev_has_its_servers_in_docker_and_keeps_their_data(tmp_path: Path) -> None:
    directory, log_path = tmp_path / "run", tmp_path / "dev.log"
    try:
        for number in (1, 2):
            run = Process(dev(directory, "--servers", "docker"), log_path=log_path, environment=ENVIRONMENT)
            wait_until(partial(has_come_up, run), "all of it", run, 300)
            assert run.alive, run.log_tail(100)
            assert "in Docker" in run.log_tail(100)
            assert add_user(directory, f"ada{number}@example.org") == number
            run.stop(signal.SIGINT, 120)
            assert run.exit_status == 0, run.log_tail(100)
    finally:
        subprocess.run(dev(directory, "--clean"), env=ENVIRONMENT, cwd=COMPOSE_FILE.parent, check=True)
    assert not directory.exists()


def run_tests(*arguments: str) -> None:
    """Run tests of the others on servers in containers; those that are skipped must have the one good reason."""
    command = [sys.executable, "-m", "pytest", "-q", "-rfEs", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=COMPOSE_FILE.parent, capture_output=True, text=True, check=False)
    print(done.stdout[-10_000:])
    assert done.returncode == 0, done.stderr[-2000:]
    for reason in re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", done.stdout, re.MULTILINE):
        assert reason == SKIPPED_BY_DESIGN


def test_a_purchase_passes_its_tests_on_servers_in_containers() -> None:
    run_tests("tests/e2e/test_purchases.py")


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_all_that_needs_servers_passes_on_servers_in_containers() -> None:
    run_tests("tests/integration", "tests/e2e")
