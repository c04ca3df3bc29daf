"""The wheel in a fresh environment, outside the checkout."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from coordinator.dev.servers.ports import free_port

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 60.0
pytestmark = pytest.mark.timeout(900)


def run(*program: str | Path, cwd: Path, timeout_s: float = 600.0, **environment: str) -> str:
    """Run a program to its end, and return what it printed."""
    ended = subprocess.run(
        [str(part) for part in program],
        cwd=cwd,
        env=clean_environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def clean_environment() -> dict[str, str]:
    """Ours, without what would lead to the checkout."""
    ours = ("PYTHONPATH", "COORDINATOR_APP", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    return {name: value for name, value in os.environ.items() if name not in ours}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT, cwd=folder)
    (built,) = folder.glob("write_coordinator-*.whl")
    return built


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and no extra."""
    folder = tmp_path_factory.mktemp("base")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    run(folder / "venv/bin/python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return folder / "venv/bin"


@pytest.fixture(scope="module")
def shop(base: Path, wheel: Path) -> Path:
    """The project that `coordinator new shop` makes, with the wheel where its README says."""
    folder = base.parents[1]
    run(base / "coordinator", "new", "shop", cwd=folder)
    (folder / "shop/wheels" / wheel.name).write_bytes(wheel.read_bytes())
    return folder / "shop"


def test_the_base_has_no_driver_and_runs(base: Path) -> None:
    installed = {each["name"].lower() for each in json.loads(run(base / "pip", "list", "--format=json", cwd=base))}
    assert installed & {"pika", "psycopg", "pymysql", "pymongo", "redis", "aiohttp", "pytest", "stripe"} == set()
    run(base / "python", "-c", "import coordinator, coordinator.client, coordinator.testing", cwd=base)


def test_a_new_project_s_tests_pass(shop: Path) -> None:
    assert re.search(r"\b4 passed\b", run("make", "test", cwd=shop))


def test_a_new_project_runs_without_a_server(shop: Path) -> None:
    port, log_path = str(free_port()), shop / "run.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            ["make", "run"],
            cwd=shop,
            env=clean_environment() | {"DEV_SEATS_PORT": port, "DEV_OPERATIONS_PORT": str(free_port())},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        api = f"http://127.0.0.1:{port}"
        wait_until_ready(api, process, log_path)
        assert post(f"{api}/seats/commands/add", {"place": "A1"})[0] == 200
        book = f"{api}/seats/commands/book"
        assert post(book, {"id": 1, "holder": "ada"})[0] == 200
        status, problem = post(book, {"id": 1, "holder": "bob"})
        assert (status, problem["code"]) == (409, "taken")
    finally:
        # As Ctrl-C does.
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
    assert re.search(r"^stopped", log_path.read_text(), re.MULTILINE), log_path.read_text()


def wait_until_ready(api: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            urllib.request.urlopen(f"{api}/readyz", timeout=5)
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log_path.read_text()
            assert time.monotonic() < until, log_path.read_text()
            time.sleep(0.1)
        else:
            return


def post(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
