"""What people send is in no log: it is planted wherever they can send something, and looked for."""

import asyncio
import json
from uuid import uuid4

import aiohttp
import pika
import pytest

from coordinator.operate.open import lane_admin
from coordinator.stores.admin import LetterQuery
from tests.support.callers import HEADERS
from tests.support.system import System, wait_until

PLANTED = "ada-planted"
EMAIL = f"{PLANTED}@example.org"


async def send_everywhere(url: str) -> list[int]:
    """Requests that are answered in each way, with the same text in each place; their statuses."""
    statuses = []
    user = {"name": PLANTED, "email": EMAIL}
    keyed = {"Idempotency-Key": f"{PLANTED}-key"}
    async with aiohttp.ClientSession(headers=HEADERS) as session:

        async def call(method: str, path: str, **options: object) -> None:
            async with session.request(method, f"{url}{path}", **options) as answer:  # type: ignore[arg-type]
                statuses.append(answer.status)

        await call("POST", "/users", json=user, headers=keyed)
        # The email is taken, which the answer says in its own words.
        await call("POST", "/users", json=user)
        await call("GET", f"/users?email={EMAIL}")
        await call("GET", f"/users/{PLANTED}")
        await call("GET", f"/{PLANTED}")
        await call("POST", "/users", json=user | {"name": PLANTED * 200})
        await call("POST", "/users", json=user | {PLANTED: 1})
        await call("POST", "/users", data=f"{{{PLANTED}")
        await call("GET", f"/commands/{PLANTED}")
        await call("GET", "/users/1", headers={"Authorization": f"Bearer {PLANTED}"})
        await call("GET", "/users/1", headers={"User-Agent": PLANTED, "Cookie": PLANTED, "X-Name": PLANTED})
    return statuses


def test_nothing_that_is_sent_is_logged(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_DATABASE_URL", system.environment["USERS_DATABASE_URL"])
    system.prepare("users")
    coordinator = system.start_coordinator("users", LANE_LOGGED_BATCH_S="0")
    gateway = system.start_gateway("users")
    statuses = asyncio.run(send_everywhere(system.urls["users"]))
    assert {200, 201, 400, 401, 404, 409} <= set(statuses)
    with system.broker() as channel:
        channel.confirm_delivery()
        # Past the gateway: a dead letter, whose reason quotes what was sent.
        bodies: list[object] = [{"name": PLANTED, "email": 7}, {"name": PLANTED, "email": EMAIL, PLANTED: 1}]
        for body in map(json.dumps, bodies):
            properties = pika.BasicProperties(message_id=str(uuid4()), type="users.create")
            channel.basic_publish("writes", "users", body.encode(), properties, mandatory=True)
    wait_until(lambda: coordinator.log_path.read_text().count('"body":"dead_lettered"') == 2, "both are dead letters")
    with lane_admin("users") as admin:
        assert any(PLANTED in letter.reason for letter in admin.letters(LetterQuery(), 0, 10))
    logs = [gateway.log_path.read_text(), coordinator.log_path.read_text()]
    assert [line for log in logs for line in log.splitlines() if PLANTED in line] == []
    # One line for each request and each batch, with what it takes to follow a command from one to the other.
    requests = [line for line in map(json.loads, logs[0].splitlines()) if line["body"] == "request"]
    assert len([line for line in requests if line["http.route"] not in ("/readyz", "/healthz")]) == len(statuses)
    [created] = [line for line in requests if line["http.response.status_code"] == 201]
    batches = [line for line in map(json.loads, logs[1].splitlines()) if line["body"] == "batch"]
    assert any(created["command_id"] in line["command_ids"] for line in batches)
    assert len(created["trace_id"]) == 32
    assert all(line["service.name"] == "gateway-users" for line in requests)


@pytest.mark.parametrize("is_wanted", ["true", "false"])
def test_who_asks_is_logged_where_a_setting_says_so(system: System, is_wanted: str) -> None:
    system.prepare("users")
    system.start_coordinator("users")
    gateway = system.start_gateway("users", TELEMETRY_LOG_PERSONAL=is_wanted)

    async def call() -> None:
        url = f"{system.urls['users']}/users/{PLANTED}"
        async with aiohttp.ClientSession(headers=HEADERS) as session, session.get(url):
            pass

    asyncio.run(call())
    wait_until(lambda: '"http.route":"/users/{id}"' in gateway.log_path.read_text(), "the request is logged")
    assert (PLANTED in gateway.log_path.read_text()) is (is_wanted == "true")
