"""Programs ask the sandbox provider, and no page in a developer's browser does."""

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from shared.payments.sandbox.app import Sandbox
from shared.payments.sandbox.defaults import API_KEY, WEBHOOK_SECRET

PLAN = b'{"rates": {"500_before": 1}}'


@pytest.fixture
async def sandbox() -> AsyncIterator[TestClient]:  # type: ignore[type-arg]  # generic in newer releases
    made = Sandbox(None, api_key=API_KEY, webhook_url=None, webhook_secret=WEBHOOK_SECRET)
    async with TestClient(TestServer(made.application())) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        *(({}, 200), ({"Host": "localhost:8090"}, 200), ({"Host": "sandbox:8090"}, 200), ({"Host": "[::1]:8090"}, 200)),
        *(({"Host": "10.0.0.5:8090"}, 200), ({"Origin": "http://localhost:3000"}, 200)),
        # By a name of its own that leads here (DNS rebinding), or across sites, without asking first.
        *(({"Host": "sandbox.evil.example:8090"}, 403), ({"Host": "evil.example."}, 403), ({"Host": "[evil"}, 403)),
        *(({"Origin": "https://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Origin": ""}, 403)),
    ],
)
async def test_a_page_of_a_site_changes_and_reads_nothing(
    sandbox: TestClient,  # type: ignore[type-arg]
    headers: dict[str, str],
    status: int,
) -> None:
    answer = await sandbox.post("/sandbox/faults", data=PLAN, headers=headers | {"Content-Type": "text/plain"})
    assert answer.status == status
    assert (await sandbox.get("/sandbox/charges", headers=headers)).status == status
