"""Another secret of idempotency keys, while several gateways of a lane run: the same key is one command at all."""

import itertools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from tests.support.accounts import own_settings
from tests.support.callers import ACCESS, HEADERS, own_command_id
from tests.support.operated import operated
from tests.support.system import System, wait_ready, wait_until

pytestmark = pytest.mark.doors

LATE_S = 3600.0


class Gateways:
    """Of users, in which another secret counts soon."""

    def __init__(self, system: System, directory: Path) -> None:
        self._system = system
        self._directory = directory
        self._made = ThreadPoolExecutor(3)
        self.urls: list[str] = []

    def start(self, refresh_s: float) -> str:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        arguments = ["gateway", "users", "--port", str(port)]
        environment = own_settings(["coordinator", *arguments], self._system.environment) | ACCESS
        process = Process(
            [sys.executable, "-m", "tests.support.quick_secrets", *arguments],
            log_path=self._directory / f"quick-{port}.log",
            environment=environment | {"TEST_SECRETS_REFRESH_S": str(refresh_s)},
        )
        self._system.processes.append(process)
        wait_ready(f"{url}/readyz", process)
        self.urls.append(url)
        return url

    def ask_all(self, key: str) -> list[tuple[int, dict[str, Any]]]:
        """The same request at each, at once."""
        return list(self._made.map(lambda url: call(url, key), self.urls))

    def close(self) -> None:
        self._made.shutdown()


def call(url: str, key: str) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"name": key, "email": f"{key}@example.org"}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, **HEADERS}
    return _answer(Request(f"{url}/users", body, headers))


def is_applied(url: str, command_id: str) -> bool:
    return _answer(Request(f"{url}/commands/{command_id}", headers=HEADERS))[1].get("status") == "applied"


def _answer(request: Request) -> tuple[int, dict[str, Any]]:
    try:
        with urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


def secret(system: System, *options: str) -> dict[str, Any]:
    return dict(operated(system, "keys", "secret", "users", *options))


def test_a_key_is_one_command_at_gateways_that_know_another_secret_and_that_do_not(
    system: System, tmp_path: Path
) -> None:
    system.prepare("users")
    system.start_coordinator("users")
    gateways = Gateways(system, tmp_path)
    prompt, late = gateways.start(0.2), gateways.start(LATE_S)
    before = secret(system)["secret"]
    wait_until(lambda: call(late, "first")[0] == call(prompt, "first")[0] == 201, "both serve")
    now = secret(system, "--new")["secret"]
    started = gateways.start(0.2)
    numbers = itertools.count()

    def asked_of_all() -> bool:
        key = f"order-{next(numbers)}"
        answers = gateways.ask_all(key)
        assert {status for status, _ in answers} <= {201, 503}, answers
        assert {answer["code"] for status, answer in answers if status == 503} <= {"idempotency_unavailable"}
        # Who sends it again, anywhere, gets the same user.
        again = gateways.ask_all(key)
        made = {answer["id"] for status, answer in (*answers, *again) if status == 201}
        assert len(made) <= 1, (answers, again)
        if not is_applied(prompt, own_command_id(now, "users", key)):
            return False
        assert not is_applied(prompt, own_command_id(before, "users", key))
        return [status for status, _ in again] == [201, 503, 201]

    wait_until(asked_of_all, "the new one counts, and the late gateway has none")
    # What was asked for with the one before is found.
    first = {call(url, "first")[1]["id"] for url in (prompt, started)}
    assert len(first) == 1
    assert call(late, "first")[0] == 503
    gateways.close()
