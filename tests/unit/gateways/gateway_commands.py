"""Requests of several commands, for the gateways' tests."""

import json
from typing import Any
from uuid import uuid4

import aiohttp

from tests.unit.gateways.conftest import RunningGateway

NDJSON = "application/x-ndjson"
IDS = [str(uuid4()) for _ in range(4)]
CREATE = {"type": "users.create", "args": {"name": "Ada", "email": "ada@example.org"}}
CREDIT = {"type": "users.credit", "args": {"id": 7, "amount": 5}}
DELETE = {"type": "users.delete", "args": {"id": 7}}
MIXED = [CREATE, CREDIT, {"type": "users.transfer", "args": {"from": 7, "to": 8, "amount": 1}}, DELETE]


async def post(
    gateway: RunningGateway, body: Any, content_type: str = "application/json", **headers: str
) -> tuple[aiohttp.ClientResponse, Any]:
    """Send a body, text or values, as JSON or NDJSON; return the response and what its body holds."""
    if not isinstance(body, bytes):
        is_lines = content_type == NDJSON
        body = (("".join(json.dumps(each) + "\n" for each in body)) if is_lines else json.dumps(body)).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()} | {"Content-Type": content_type}
    url = f"http://127.0.0.1:{gateway.port}/commands"
    async with gateway.session.post(url, data=body, headers=sent) as response:
        text = await response.text()
        if response.content_type == NDJSON:
            assert text.endswith("\n")
            return response, [json.loads(line) for line in text.splitlines()]
        return response, json.loads(text)
