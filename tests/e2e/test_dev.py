"""`coordinator dev` runs any application: what it starts it has from the application's declarations alone."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.dev.new import make_project
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from coordinator.registry import APP_SETTING
from tests.support.system import wait_until

pytestmark = [pytest.mark.timeout(600), pytest.mark.authors]

ROOT = Path(__file__).parents[2]
APP = "tests.support.shop:APP"
PORTS = {
    f"DEV_{name}_PORT": str(free_port())
    for name in (
        "AMQP",
        "AMQP_DIST",
        "EPMD",
        "POSTGRESQL",
        "ORDERS",
        "ORDERS_METRICS",
        "CARRIER",
        "OPERATIONS",
        "INGRESS",
    )
} | {"INGRESS_ACCOUNTS": "partner"}
PLACED = 3


AWKWARD = "feature%2Fx it's \"#ü$HOME; :é"
"""A branch's name as a folder's, and what else a name may have."""


@pytest.fixture
def checkout(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A copy of this one, where PostgreSQL's own user can enter, unlike in pytest's; in a folder of the name asked for.

    One application runs below a plain folder, and one below an awkward one: which does not matter.
    """
    path = Path(tempfile.mkdtemp(prefix="write-coordinator-dev-"))
    path.chmod(0o755)
    copy: Path = path / request.param
    copy.mkdir()
    for package in ("coordinator", "tests"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    yield copy
    shutil.rmtree(path)


@pytest.fixture
def directory(checkout: Path) -> Path:
    return checkout / ".dev"


def command(directory: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "coordinator", "dev", "--app", APP, "--dir", str(directory), *options]


@pytest.mark.parametrize("checkout", [AWKWARD], ids=["below_an_awkward_folder"], indirect=True)
def test_somebody_else_s_service_comes_up_with_what_it_declares_and_nothing_else(
    checkout: Path, directory: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != APP_SETTING} | PORTS
    log_path = directory.parent / "dev.log"
    run = Process(
        command(directory, "--servers", "native"), log_path=log_path, environment=environment, directory=checkout
    )
    try:
        wait_until(lambda: not run.alive or "Ctrl-C stops everything" in log_path.read_text(), "all of it", run, 240)
        assert run.alive, log_path.read_text()
        outcomes = place_orders(f"http://127.0.0.1:{PORTS['DEV_ORDERS_PORT']}")
        assert [(outcome["status"], outcome["sequence"]) for outcome in outcomes] == [
            ("applied", number) for number in range(1, PLACED + 1)
        ]
        settings = dict(re.findall(r"export (\w+)='(.*)'", (directory / "env").read_text()))
        checking = [sys.executable, "-m", "coordinator", "database-accounts", "orders", "--check"]
        checked = subprocess.run(
            checking, env=environment | settings, cwd=checkout, capture_output=True, check=False, text=True
        )
        assert (checked.returncode, checked.stdout) == (
            0,
            "orders: orders_reader reads what gateways read, and no more\n",
        )
        run.stop(signal.SIGINT, 60)
    finally:
        run.kill()
    said = log_path.read_text()
    assert run.exit_status == 0, said
    password = directory / "servers" / "owner-password"
    assert sorted(path.name for path in password.parent.iterdir()) == [password.name, "postgresql", "rabbitmq"]
    assert re.findall(r"^  (\S+)", said, re.MULTILINE) == [
        "operations",
        "gateway-orders",
        "coordinator-orders",
        "ingress",
        "carrier",
    ]
    assert settings.pop("CARRIER_KEY") == (directory / "carrier-key").read_text()
    assert settings.pop(APP_SETTING) == APP
    postgresql = f"127.0.0.1:{PORTS['DEV_POSTGRESQL_PORT']}/orders"
    assert settings == {
        "AMQP_URL": f"amqp://operator:operator@127.0.0.1:{PORTS['DEV_AMQP_PORT']}/%2F",
        "INGRESS_ACCOUNTS": "partner",
        "LANE_GATEWAY_ACCOUNTS": "orders_gateway ingress",
        "ORDERS_DATABASE_URL": f"postgresql://orders_lane:orders_lane@{postgresql}",
        "ORDERS_MIGRATION_URL": f"postgresql://coordinator:{password.read_text()}@{postgresql}",
        "ORDERS_READER_URL": f"postgresql://orders_reader:orders_reader@{postgresql}",
        "CARRIER_URL": f"http://127.0.0.1:{PORTS['DEV_CARRIER_PORT']}",
        "CARRIER_TELLS": f"http://127.0.0.1:{PORTS['DEV_ORDERS_PORT']}/carrier",
        "OPERATIONS_COORDINATORS": f"http://127.0.0.1:{PORTS['DEV_ORDERS_METRICS_PORT']}",
    }
    subprocess.run(command(directory, "--clean"), env=environment, cwd=checkout, check=True)
    assert not directory.exists()


def place_orders(url: str) -> list[dict[str, object]]:
    return issued(url, [{"type": "orders.place", "args": {"title": f"order {number}"}} for number in range(PLACED)])


def issued(url: str, commands: list[dict[str, object]]) -> list[dict[str, object]]:
    request = urllib.request.Request(
        f"{url}/commands", json.dumps(commands).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        outcomes: list[dict[str, object]] = json.load(answer)
        return outcomes


@pytest.mark.parametrize("checkout", ["checkout"], indirect=True)
def test_a_new_project_s_service_alone_runs_on_servers(checkout: Path) -> None:
    """`coordinator dev --servers native shop.seats:seats`, of the project that `coordinator new` makes; on Redis."""
    project, log_path = checkout / "shop", checkout / "dev.log"
    make_project("shop", project)
    ports = {
        f"DEV_{name}_PORT": str(free_port())
        for name in ("REDIS_BROKER", "POSTGRESQL", "OPERATIONS", "SEATS", "SEATS_METRICS")
    }
    environment = {name: value for name, value in os.environ.items() if name != APP_SETTING} | ports
    # As in a shell that has the addresses of another run.
    environment |= {"PYTHONPATH": str(checkout), "DEV_BROKER": "redis", "AMQP_URL": "amqp://127.0.0.1:1/"}
    program = [sys.executable, "-m", "coordinator", "dev", "--servers", "native", "shop.seats:seats"]
    run = Process(program, log_path=log_path, environment=environment, directory=project)
    try:
        wait_until(lambda: not run.alive or "Ctrl-C stops everything" in log_path.read_text(), "all of it", run, 240)
        assert run.alive, log_path.read_text()
        commands: list[dict[str, object]] = [
            {"type": "seats.add", "args": {"place": "A1"}},
            {"type": "seats.book", "args": {"id": 1, "holder": "ada"}},
            {"type": "seats.book", "args": {"id": 1, "holder": "bob"}},
        ]
        url = f"http://127.0.0.1:{ports['DEV_SEATS_PORT']}"
        assert [each["status"] for each in issued(url, commands)] == ["applied", "applied", "rejected"]
        broker = f"127.0.0.1:{ports['DEV_REDIS_BROKER_PORT']}"
        assert re.search(rf"Redis \(broker\) \S+ on {broker}", log_path.read_text())
        assert f"BROKER_URL='redis://operator:operator@{broker}/0'" in (project / ".dev" / "env").read_text()
        run.stop(signal.SIGINT, 60)
    finally:
        run.kill()
    assert run.exit_status == 0, log_path.read_text()
    servers = project / ".dev" / "servers"
    assert sorted(path.name for path in servers.iterdir()) == ["owner-password", "postgresql", "redis-broker"]
