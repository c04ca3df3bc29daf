"""Where a command stands and when it got there, at the gateway and for operators, on the running system."""

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from click.testing import CliRunner

from coordinator.cli import cli
from coordinator.runtime.settings import LaneSettings
from tests.support.callers import ACCESS, HEADERS, key_of
from tests.support.operated import operated
from tests.support.system import System, wait_until

pytestmark = pytest.mark.operators

JSON = {"Content-Type": "application/json"}
ORDER = ["received", "published", "delivered", "applied", "committing", "committed", "answered"]


@pytest.fixture
def running(system: System) -> System:
    system.prepare("users")
    system.start_coordinator("users")
    system.start_gateway("users", **ACCESS)
    return system


def create(number: int) -> dict[str, str]:
    return {"name": "Ada", "email": f"ada{number}@example.org"}


def write(system: System, body: object, *, path: str = "/users", **headers: str) -> tuple[int, str]:
    """The status, and the command's id."""
    sent = Request(f"{system.urls['users']}{path}", json.dumps(body).encode(), JSON | HEADERS | headers)
    try:
        with urlopen(sent, timeout=20) as answer:
            return answer.status, str(answer.headers["Command-Id"])
    except HTTPError as error:
        return error.code, str(error.headers["Command-Id"])


def read(system: System, command_id: str, **headers: str) -> tuple[int, Any]:
    asked = Request(f"{system.urls['users']}/commands/{command_id}", headers=HEADERS | headers)
    try:
        with urlopen(asked, timeout=20) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def shown(system: System, command_id: str, *, expect: int = 1) -> tuple[Any, str]:
    """What `coordinator command` prints as JSON, and the line of its error."""
    ran = CliRunner().invoke(cli, ["command", command_id, "--lane", "users", "--json"], env=system.environment)
    assert ran.exit_code == expect, ran.output
    return json.loads(ran.stdout)["timeline"], ran.stderr


def test_settled_commands_say_when_and_those_who_may_not_see_them_get_404(running: System) -> None:
    status, command_id = write(running, create(1))
    assert status == 201
    status, found = read(running, command_id)
    timeline = found["timeline"]
    assert (status, found["status"], timeline["standing"], timeline["clocks"]) == (200, "applied", "applied", None)
    assert [each["name"] for each in timeline["moments"]] == ORDER
    times = [each["ms"] for each in timeline["moments"] if each["clock"] == "gateway"]
    assert times == sorted(times)
    assert times[0] == 0
    assert timeline["consumer"] is None, "it is an operator's to see, in the lane's database"
    operators, _ = shown(running, command_id, expect=0)
    assert (operators["batch_size"], operators["place"], operators["sequence"]) == (1, 1, 1)
    assert operators["consumer"].startswith("coordinator users ")
    assert operators["attempts"] == 1
    assert "committed" not in [each["name"] for each in operators["moments"]], "the next transaction says when"
    stranger = key_of("eve@x.org", {"users": running.environment["USERS_DATABASE_URL"]})
    wait_until(lambda: read(running, command_id, Authorization=f"Bearer {stranger}")[0] != 401, "her key is known")
    assert read(running, command_id, Authorization=f"Bearer {stranger}")[0] == 404
    _, rejected = write(running, create(1))
    assert read(running, rejected)[1]["timeline"]["why"].startswith("email_taken: ")
    operators, _ = shown(running, command_id, expect=0)
    moments = {each["name"]: each for each in operators["moments"]}
    assert (moments["committed"]["clock"], moments["committed"]["at_latest"]) == ("lane", False)
    done = [moments[name]["ms"] for name in ("delivered", "applied", "committing", "committed")]
    assert done == sorted(done)
    by_gateway = read(running, command_id)[1]["timeline"]
    exact = {each["name"]: each["at"] for each in by_gateway["moments"]}
    assert exact["committed"] == moments["committed"]["at"]
    assert (by_gateway["batch_size"], by_gateway["place"]) == (1, 1)
    _, unknown = read(running, str(uuid4()))
    assert unknown["code"] == "command_not_found"


def test_a_command_of_a_paused_lane_says_how_many_wait_before_it(running: System) -> None:
    operated(running, "pause", "users", "--reason", "stocktaking")
    prefetch = LaneSettings().prefetch
    ids = [write(running, create(number), Prefer="respond-async") for number in range(3)]
    assert {status for status, _ in ids} == {202}
    status, found = read(running, ids[-1][1])
    timeline = found["timeline"]
    assert (status, found["status"], timeline["standing"]) == (202, "pending", "queued")
    assert prefetch <= timeline["waiting_before"] <= prefetch + 3
    assert [each["name"] for each in timeline["moments"]] == ["received", "published", "answered"]
    waits, refusal = shown(running, ids[-1][1])
    assert waits["why"] == "lane users is paused: stocktaking"
    assert waits["todo"] == "once the reason is over: coordinator resume users"
    assert prefetch <= waits["waiting_before"] <= prefetch + 3
    assert "lane users has not settled command" in refusal
    operated(running, "resume", "users")
    for _, command_id in ids:
        wait_until(lambda asked=command_id: read(running, asked)[0] == 200, "it is settled")  # type: ignore[misc]
        timeline = read(running, command_id)[1]["timeline"]
        # Whoever asked got 202 before it was applied, and no gateway got the outcome. The first command of a batch
        # says when its rows went to the database, and the next transaction when they were there.
        names = [each["name"] for each in timeline["moments"] if each["name"] not in ("committing", "committed")]
        assert names == ["received", "published", "delivered", "applied", "answered"]


def test_what_was_pruned_is_unknown_and_says_when_its_id_was_made(running: System) -> None:
    (_, first), (_, last) = write(running, create(1)), write(running, create(2))
    operated(running, "log", "prune", "users", "--older-than", "0s", "--force")
    assert read(running, first)[0] == 404
    assert read(running, last)[0] == 200, "the latest entry stays"
    gone, refusal = shown(running, first)
    assert (gone["standing"], gone["sequence"]) == ("unknown", None)
    assert "older than the log" in refusal
    assert "its id was made " in gone["where"]
