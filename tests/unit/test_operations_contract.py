"""What the operations gateway serves of its contract: the document, the page, problems, health and metrics."""

import json
from pathlib import Path

import jsonschema

from coordinator.http.contract.served import PAGE_HEADERS
from tests.unit.test_openapi import SCHEMA, contract
from tests.unit.test_operations_doors import LANE, Start, key, start

__all__ = ("start",)


async def test_the_document_and_the_page_are_open_to_all(start: Start) -> None:
    door = await start(ACCESS_METHODS="keys")
    status, document, answer = await door.ask("GET", "/openapi.json")
    assert (status, answer.content_type) == (200, "application/json")
    assert document == json.loads(contract("operations").text)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    status, page, answer = await door.ask("GET", "/docs")
    assert status == 200
    assert "/docs/assets/docs.js" in page
    assert {name: answer.headers[name] for name in PAGE_HEADERS} == PAGE_HEADERS
    for name in ("docs.js", "docs.css", "icon.svg"):
        assert (await door.ask("GET", f"/docs/assets/{name}"))[0] == 200
    for path in ("/openapi.json?a=1", "/api/session?a=1", "/api/session?a="):
        assert (await door.ask("GET", path))[0] in (400, 401), path


async def test_the_type_of_a_problem_leads_to_its_meaning(start: Start, tmp_path: Path) -> None:
    text = key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys")
    status, problem, answer = await door.ask("GET", "/api/session")
    assert (status, problem["code"]) == (401, "unauthenticated")
    # Of the scheme, or a browser would ask for a password.
    assert answer.headers["WWW-Authenticate"].startswith("Cookie ")
    found = [problem]
    await door.sign_in(text)
    found.append((await door.ask("GET", "/api/lanes/nowhere/letters"))[1])
    found.append((await door.ask("GET", f"/api/lanes/{LANE}/letters/7"))[1])
    found.append((await door.ask("GET", f"/api/lanes/{LANE}/letters?limit=no"))[1])
    found.append((await door.ask("GET", f"/api/lanes/{LANE}/letters?type=%00"))[1])
    found.append((await door.ask("POST", f"/api/lanes/{LANE}/pause", {"reason": "r"}))[1])
    assert [each["code"] for each in found] == [
        *("unauthenticated", "lane_not_found", "letter_not_found", "invalid_query", "invalid_query", "forbidden"),
    ]
    for problem in found:
        status, page, _ = await door.ask("GET", problem["type"])
        assert status == 200
        assert f"<code>{problem['code']}</code>" in page
    assert "may only look" in page
    assert (await door.ask("GET", "/problems/nothing_of_ours"))[0] == 404


async def test_what_nobody_reads_is_refused_and_changes_nothing(start: Start) -> None:
    door = await start()
    mark = {"Operations-Mark": (await door.ask("GET", "/api/session"))[1]["mark"]}
    for act in ("pause", "resume", "drain", "cancel", "letters/replay", "letters/discard"):
        path = f"/api/lanes/{LANE}/{act}?dry_run=1"
        status, problem, _ = await door.ask("POST", path, {"reason": "r"}, **mark)
        assert (status, problem["code"], problem["field"]) == (400, "invalid_query", "dry_run"), act
    assert (await door.ask("GET", f"/api/lanes/{LANE}/acts"))[1]["acts"] == []


async def test_it_tells_how_it_is_and_what_it_does(start: Start) -> None:
    door = await start()
    await door.ask("GET", f"/api/lanes/{LANE}/acts")
    assert (await door.ask("GET", "/healthz"))[1] == {"status": "ok"}
    status, body, _ = await door.ask("GET", "/readyz")
    assert (status, body.get("checks")) in ((200, {"lanes": "ok"}), (503, {"lanes": "down"}))
    status, text, answer = await door.ask("GET", "/metrics")
    assert (status, answer.content_type) == (200, "text/plain")
    route = 'route="/api/lanes/{lane}/acts"'
    assert f'coordinator_gateway_requests_total{{method="GET",{route},service="operations",status="200"}}' in text
    assert "coordinator_build_info{" in text
