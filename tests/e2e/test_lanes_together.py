"""`coordinator run` with several lanes: each goes on whatever becomes of the others."""

import asyncio
import json
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from coordinator.transports.rabbitmq.rights import lanes_account
from tests.support.accounts import as_account
from tests.support.system import System, wait_until, write_all


def asked(url: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
    except OSError:
        return 0, {}


def test_a_lane_that_cannot_run_leaves_the_others_of_its_process_running(system: System, tmp_path: Path) -> None:
    system.prepare("users", "items")
    names = ("USERS_DATABASE_URL", "ITEMS_DATABASE_URL", "REDIS_URL")
    settings = {name: system.environment[name] for name in names}
    # Its database has no tables, and nobody but its owner can log in.
    settings |= {
        "PAYMENTS_DATABASE_URL": system.owner("payments"),
        "AMQP_URL": as_account(system.environment["AMQP_URL"], lanes_account("all")),
    }
    process, url = system.launch_coordinator("users items payments", settings)

    def ended() -> bool:
        lanes = asked(url)[1].get("lanes", {})
        return [lane["status"] for lane in lanes.values()] == ["ready", "ready", "unready"]

    wait_until(ended, "two lanes are ready, and one has ended", process)
    status, said = asked(url)
    assert status == 503
    assert list(said["lanes"]) == ["users", "items", "payments"]
    assert "coordinator migrate" in said["lanes"]["payments"]["reason"]
    assert said["reason"] == f"lane payments: {said['lanes']['payments']['reason']}"
    assert asked(url.replace("readyz", "healthz")) == (200, {"status": "alive", "lanes": list(said["lanes"])})

    system.start_gateway("users")
    body = {"email": "anna@example.com", "name": "Anna"}
    answers = asyncio.run(write_all(system.urls["users"], "/users", body, 1, 1, "together"))
    assert [status for status, _ in answers] == [201]

    with urllib.request.urlopen(url.replace("readyz", "metrics"), timeout=5) as response:
        metrics = response.read().decode()
    assert 'coordinator_lane_epoch{lane="users"} 1.0' in metrics
    assert 'coordinator_lane_epoch{lane="items"}' in metrics

    process.stop(signal.SIGTERM, 20)
    system.processes.remove(process)
    assert process.exit_status == 2
    lines = [json.loads(line) for line in process.log_tail(200).splitlines() if line.startswith("{")]
    told = [(line["body"], line.get("lane")) for line in lines]
    assert ("lane_ended", "payments") in told
    assert {lane for body, lane in told if body == "stopped"} == {"users", "items"}
