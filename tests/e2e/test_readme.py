"""What README's first session shows is what happens, line by line."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.transports.rabbitmq.rights import gateway_account
from tests.support.accounts import as_account
from tests.support.callers import KEY
from tests.support.monolith import Monolith
from tests.support.system import System

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SESSION = README[README.index("## A first session") : README.index("## Without HTTP")]
PROGRAM = README.partition("From Python, with the services' own methods:")[2].partition("The same `UserService`")[0]
PORTS = {"users": 8081, "items": 8082, "payments": 8083}
ID = re.compile(r"(?:/commands/|Command-Id: )(?P<id>[0-9a-f-]{36})")


def calls() -> list[tuple[str, str]]:
    """Each command line with curl, and what is shown below it."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", SESSION, re.DOTALL):
        for line in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            if not line.startswith("curl"):
                continue
            if "<<'END'" in line:
                command, shown = line.split("\nEND\n")
                command += "\nEND\n"
            else:
                command, _, shown = re.sub(r"\\\n *", "", line).partition("\n")
            found.append((command, shown))
    return found


@pytest.fixture(params=["servers", "one process"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System | Monolith]:
    if request.param == "servers":
        yield served(request.getfixturevalue("system"))
        return
    monolith = Monolith(tmp_path, ACCESS_KEYS_REFRESH_S="0.2")
    try:
        monolith.start()
        monolith.admit_caller()
        yield monolith
    finally:
        if monolith.process is not None:
            monolith.process.kill()


def served(system: System) -> System:
    system.prepare(*PORTS)
    system.start_sandbox()
    system.start_coordinators(*PORTS)
    system.start_effects("payments")
    for service in PORTS:
        system.start_gateway(service)
    return system


def told(text: str) -> list[Any]:
    """The members of the answers, in order, of what tells an outcome from another."""
    return re.findall(r'"(?:code|status|credit|stock|quantity|sequence|amount|reason_code)":("[a-z_]*"|\d+)', text)


def test_each_line_of_the_first_session_answers_as_it_is_shown(shop: System | Monolith) -> None:
    last_id = ""
    ran = 0
    for command, shown in calls():
        here = ID.sub(f"/commands/{last_id}", command)
        for service, port in PORTS.items():
            here = here.replace(f"localhost:{port}", shop.urls[service])
        script = f'ME="Authorization: Bearer $DEV_KEY"\n{here.replace("curl ", "curl -sS ", 1)}'
        environment = {"DEV_KEY": KEY.text, "PATH": "/usr/bin:/bin"}
        answer = subprocess.run(
            ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert answer.returncode == 0, answer.stderr
        seen = answer.stdout
        # Nobody is made to wait for an outcome that is there already.
        is_outcome = "respond-async" in command and "200 OK" in seen
        for line in (
            [] if is_outcome else re.findall(r"^(?:HTTP/1.1 .*|Location: /(?:users|purchases).*)$", shown, re.MULTILINE)
        ):
            assert line in seen.splitlines() or line in seen.replace("\r", "").splitlines(), (here, seen)
        assert set(told(shown)) <= set(told(seen)), (here, shown, seen)
        if (found := ID.search(seen)) is not None:
            last_id = found["id"]
        ran += 1
    assert ran == 15
    # Without the key nobody gets in.
    ask = ["curl", "-s", f"{shop.urls['users']}/users/1"]
    refused = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(refused.stdout)["code"] == "unauthenticated"


def test_the_program_in_python_gives_credit_with_the_account_that_it_is_given(system: System) -> None:
    system.prepare("users")
    # As `make run` says it: the operator's account is none of them.
    system.start_coordinator("users", LANE_GATEWAY_ACCOUNTS=" ".join(map(gateway_account, PORTS)))
    system.start_gateway("users")
    create = ["curl", "-sS", "-H", f"Authorization: Bearer {KEY.text}", "-H", "Content-Type: application/json"]
    create += ["-d", '{"name": "Ada", "email": "ada@example.org"}', f"{system.urls['users']}/users"]
    subprocess.run(create, capture_output=True, timeout=30, check=True)
    (code,) = re.findall(r"```python\n(.*?)```", PROGRAM, re.DOTALL)
    (gateway,) = re.findall(r"source \.dev/programs/gateway-(\w+) && python", PROGRAM)
    account = as_account(system.environment["AMQP_URL"], gateway_account(gateway))
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=system.environment | {"AMQP_URL": account},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stdout.split() == ["2", "250"], ended.stderr
