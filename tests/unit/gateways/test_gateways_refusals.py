"""Requests that are refused: each with a status, a stable code, and the name of what is at fault."""

import asyncio
import gzip
from typing import Any

import pytest
from multidict import CIMultiDict

import coordinator.http.bodies
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.ids import system_command_id
from tests.unit.gateways.conftest import RunningGateway, Start

JSON = {"Content-Type": "application/json"}
SYSTEM_ID = system_command_id("a", "b")


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"", 400, "missing_body", "body"),
        (b"{", 400, "malformed_json", "body"),
        (b"\xff\xfe", 400, "malformed_json", "body"),
        (b'{"name": NaN}', 400, "malformed_json", "body"),
        (b'{"name": "\\ud800"}', 400, "malformed_json", "body"),
        (b'{"name": "\xff"}', 400, "malformed_json", "body"),
        (b'{"a":' * 40_000, 400, "malformed_json", "body"),
        (b"[" * 100_000, 422, "invalid_arguments", None),
        (b"null", 422, "invalid_arguments", None),
        (b"[1]", 422, "invalid_arguments", None),
        (b'"text"', 422, "invalid_arguments", None),
        (b"{}", 422, "invalid_arguments", "name"),
        (b'{"name": "A"}', 422, "invalid_arguments", "email"),
        (b'{"name": "A", "email": "a@b", "admin": true}', 422, "invalid_arguments", "admin"),
        (b'{"name": 5, "email": "a@b"}', 422, "invalid_arguments", "name"),
        (b'{"name": "", "email": "a@b"}', 422, "invalid_arguments", "name"),
        (b'{"name": "a\\u0000", "email": "a@b"}', 422, "invalid_arguments", "name"),
        (b'{"name": "A", "email": "nobody"}', 422, "invalid_arguments", "email"),
        (b'{"name": 1e999, "email": "a@b"}', 422, "invalid_arguments", "name"),
        (b'{"name": ' + b"9" * 6000 + b"}", 422, "invalid_arguments", "name"),
        (b'{"' + b"x" * 5000 + b'": 1}', 422, "invalid_arguments", "x" * 1000),
    ],
)
async def test_a_body_at_fault(users: RunningGateway, body: bytes, status: int, code: str, field: str | None) -> None:
    response, problem = await users.call("POST", "/users", data=body, headers=JSON)
    assert (response.status, problem["code"], problem.get("field")) == (status, code, field)
    assert len(problem["detail"]) <= 1000
    assert users.writes.issued == []


async def test_a_body_that_is_not_utf_8_is_told_where(users: RunningGateway) -> None:
    """In the body, and not in the text that holds it."""
    _, problem = await users.call("POST", "/users", data=b'{"name": "\xff"}', headers=JSON)
    assert "its byte 10 (the first is 0)" in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "content_type", "body", "field"),
    [
        ("POST", "/users", "application/json", b'{"name": "A", "email": "a@b", "name": "B"}', "body"),
        ("POST", "/users", "application/json", b'{"name": "A", "email": "a@b", "nam\\u0065": "A"}', "body"),
        ("POST", "/users/7/credit", "application/json", b'{"amount": 5, "amount": 500}', "body"),
        ("PATCH", "/users/7", "application/merge-patch+json", b'{"name": "A", "name": "B"}', "body"),
        ("POST", "/commands", "application/json", b'[{"type": "users.delete", "args": {"id": 7, "id": 8}}]', "[0]"),
        ("POST", "/commands", "application/json", b'[{"type": "users.x", "args": {}, "type": "users.y"}]', "[0]"),
        (
            "POST",
            "/commands",
            "application/x-ndjson",
            b'{"type": "users.delete", "args": {"id": 7}}\n{"type": "users.delete", "args": {}, "args": {"id": 7}}',
            "[1]",
        ),
    ],
)
async def test_a_name_that_stands_twice_is_refused(
    users: RunningGateway, method: str, path: str, content_type: str, body: bytes, field: str
) -> None:
    """Some reader on the way takes the first, and another one the last."""
    response, problem = await users.call(method, path, data=body, headers={"Content-Type": content_type})
    assert (response.status, problem["code"], problem["field"]) == (400, "malformed_json", field)
    assert "twice" in problem["detail"]
    assert users.writes.issued == []


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PATCH", "/users/7", {"id": 7}, "id"),
        ("POST", "/users/7/credit", {"id": 8, "amount": 1}, "id"),
        ("PATCH", "/users/7", {"name": None}, "name"),
        ("POST", "/transfers", {"from": 0, "to": 8, "amount": 1}, "from"),
        ("POST", "/transfers", {"from_": 7, "to": 8, "amount": 1}, "from_"),
        ("POST", "/transfers", {"from": 7, "to": 8, "amount": 1.5}, "amount"),
        ("POST", "/transfers", {"from": 7, "to": 8, "amount": True}, "amount"),
        ("POST", "/users/7/credit", {"amount": 10**30}, "amount"),
        # Two letters for one, where it is kept.
        ("POST", "/users", {"name": "A", "email": "İ" * 240 + "@x"}, "email"),
        ("PATCH", "/users/7", {"email": "İ" * 240 + "@x"}, "email"),
    ],
)
async def test_an_argument_at_fault_is_named(
    users: RunningGateway, method: str, path: str, body: Any, field: str
) -> None:
    response, problem = await users.call(method, path, json=body)
    assert (response.status, problem["code"], problem["field"]) == (422, "invalid_arguments", field)


async def test_of_many_commands_the_one_whose_address_would_not_fit_is_named(users: RunningGateway) -> None:
    commands = [{"type": "users.create", "args": {"name": "A", "email": letter * 240 + "@x"}} for letter in "aİ"]
    response, problem = await users.call("POST", "/commands", json=commands)
    assert (response.status, problem["code"], problem["field"]) == (422, "invalid_arguments", "[1].args.email")
    assert users.writes.issued == []


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "", "application/jsonp", "application/json; charset=latin-1", "multipart/form-data"],
)
async def test_a_wrong_content_type_is_415(users: RunningGateway, content_type: str) -> None:
    response, problem = await users.call("POST", "/users", data=b"{}", headers={"Content-Type": content_type})
    assert (response.status, problem["code"], problem["field"]) == (
        415,
        "unsupported_content_type",
        "Content-Type",
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Content-Encoding", ("identity", "gzip")),
        ("Content-Encoding", ("identity", "identity")),
        ("Idempotency-Key", ("a", "b")),
        ("Command-Id", ("0a1b2c3d-0000-7000-8000-0000000000ab",) * 2),
    ],
)
async def test_a_header_that_says_what_a_body_is_or_names_a_write_is_given_once(
    users: RunningGateway, name: str, values: tuple[str, str]
) -> None:
    """A proxy before the gateway may have gone by the other one."""
    headers = CIMultiDict([*JSON.items(), *((name, value) for value in values)])
    response, problem = await users.call("POST", "/users", data=b'{"name": "A", "email": "a@b"}', headers=headers)
    assert (response.status, problem["code"], problem["field"]) == (400, "invalid_header", name)
    assert users.writes.issued == []


async def test_an_id_of_the_system_s_own_is_no_client_s_to_name(users: RunningGateway) -> None:
    """It may be that of a step of somebody's purchase, which is not to be taken before it."""
    for value in (SYSTEM_ID, SYSTEM_ID.upper()):
        headers = JSON | {"Command-Id": value}
        response, problem = await users.call("POST", "/users", data=b'{"name": "A", "email": "a@b"}', headers=headers)
        assert (response.status, problem["code"], problem["field"]) == (400, "invalid_header", "Command-Id")
    assert users.writes.issued == []


async def test_a_merge_patch_is_for_patch(users: RunningGateway) -> None:
    headers = {"Content-Type": "application/merge-patch+json"}
    response, _ = await users.call("POST", "/users", data=b"{}", headers=headers)
    assert response.status == 415


async def test_a_compressed_body_is_415(users: RunningGateway) -> None:
    for coding in ("gzip", "deflate", "zip", "gzip, identity"):
        response, problem = await users.call(
            "POST",
            "/users",
            data=gzip.compress(b'{"name": "A", "email": "a@b"}'),
            headers=JSON | {"Content-Encoding": coding},
        )
        assert (response.status, problem["code"]) == (415, "unsupported_content_encoding")
        assert response.headers["Accept-Encoding"] == "identity"
    body = b'{"name": "A", "email": "a@b"}'
    response, _ = await users.call("POST", "/users", data=body, headers=JSON | {"Content-Encoding": "Identity"})
    assert response.status == 201


@pytest.mark.parametrize(("coding", "status"), [("chunked", 201), ("Chunked", 201), ("gzip, chunked", 415)])
async def test_a_body_that_is_compressed_on_its_way_is_415(users: RunningGateway, coding: str, status: int) -> None:
    body = b'{"name": "A", "email": "a@b"}'
    reader, writer = await asyncio.open_connection("127.0.0.1", users.port)
    head = f"POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: {coding}\r\n\r\n"
    writer.write(head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert (await reader.readline()).split()[1] == str(status).encode()
    writer.close()


async def test_a_large_body_is_413_whether_its_length_is_told_or_not(start: Start) -> None:
    users = await start("users", GatewaySettings(body_bytes_max=1000))
    just_fits = b'{"name": "A", "email": "a@b"}'.ljust(1000)
    response, _ = await users.call("POST", "/users", data=just_fits, headers=JSON)
    assert response.status == 201

    async def pieces() -> Any:
        for _ in range(11):
            yield b" " * 100

    for body in (just_fits + b" ", pieces()):
        response, problem = await users.call("POST", "/users", data=body, headers=JSON)
        assert (response.status, problem["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=abc", "limit"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=", "limit"),
        ("limit=1.0", "limit"),
        ("limit=%2B1", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=%ff", "limit"),
        ("limit=1&limit=2", "limit"),
        ("after=-1", "after"),
        (f"after={INTEGER_MAX + 1}", "after"),
        ("after=" + "9" * 5000, "after"),
        ("sort=name", "sort"),
        ("LIMIT=1", "LIMIT"),
        ("%00=1", "\x00"),
    ],
)
async def test_a_query_at_fault_is_named(users: RunningGateway, query: str, field: str) -> None:
    response, problem = await users.call("GET", f"/users?{query}")
    assert (response.status, problem["code"], problem["field"]) == (400, "invalid_query", field)


@pytest.mark.parametrize("number", [str(INTEGER_MAX + 1), "99999999999999999999", "9" * 5000])
async def test_a_number_that_is_too_large_is_told_the_largest(users: RunningGateway, number: str) -> None:
    _, problem = await users.call("GET", f"/users?after={number}")
    assert str(INTEGER_MAX) in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/7"),
        ("POST", "/users"),
        ("PATCH", "/users/7"),
        ("DELETE", "/users/7"),
        ("POST", "/transfers"),
    ],
)
async def test_a_query_that_would_mean_nothing_is_refused(users: RunningGateway, method: str, path: str) -> None:
    response, problem = await users.call(method, f"{path}?version=3")
    assert (response.status, problem["field"]) == (400, "version")
    assert users.writes.issued == []


async def test_a_payments_user_must_be_an_id(payments: RunningGateway) -> None:
    for user_id in ("0", "null", str(INTEGER_MAX + 1)):
        response, problem = await payments.call("GET", f"/payments?user_id={user_id}")
        assert (response.status, problem["field"]) == (400, "user_id")


@pytest.mark.parametrize(
    "user_id",
    [
        "0",
        "-1",
        "007",
        "+7",
        "7.0",
        "abc",
        str(INTEGER_MAX + 1),
        "9" * 400,
        "%D9%A7",
        "%207",
        "7%0A",
        "%2F7",
        "%00",
        "%",
        "%FF",
        "%ED%A0%80",
        "{id}",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_path_that_holds_no_id_is_404(users: RunningGateway, method: str, user_id: str) -> None:
    response, problem = await users.call(method, f"/users/{user_id}")
    assert (response.status, problem["code"]) in [(404, "user_not_found"), (404, "not_found")]
    assert users.writes.issued == []


async def test_a_reservation_is_named_by_what_is_wrong(items: RunningGateway) -> None:
    _, problem = await items.call("DELETE", "/items/5/reservations/x")
    assert problem["code"] == "reservation_not_found"
    _, problem = await items.call("DELETE", "/items/x/reservations/5")
    assert problem["code"] == "item_not_found"


@pytest.mark.parametrize("path", ["/nothing", "/users/7/", "//users", "/users/7/credit/8", "/items"])
async def test_an_unknown_path_is_404(users: RunningGateway, path: str) -> None:
    response, problem = await users.call("GET", path)
    assert (response.status, problem["code"], problem["instance"]) == (404, "not_found", path)


async def test_an_unsupported_method_is_405_and_says_which_are(users: RunningGateway) -> None:
    response, problem = await users.call("PUT", "/users/7", json={})
    assert (response.status, problem["code"]) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "DELETE,GET,HEAD,PATCH"


async def test_a_body_that_does_not_arrive_is_not_waited_for(start: Start) -> None:
    users = await start("users", GatewaySettings(body_timeout_s=0.05))
    answered = asyncio.Event()

    async def stalled() -> Any:
        yield b"{"
        await answered.wait()

    response, problem = await users.call("POST", "/users", data=stalled(), headers=JSON)
    answered.set()
    assert (response.status, problem["code"]) == (408, "body_timeout")


async def test_a_body_that_came_with_its_headers_is_not_timed(
    users: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator.http.bodies, "giving_way", None)  # to time anything would call it
    body = b'{"amount": 5}'
    reader, writer = await asyncio.open_connection("127.0.0.1", users.port)
    head = f"POST /users/7/credit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_a_defect_is_500_without_its_traceback(users: RunningGateway) -> None:
    users.rows.error = ZeroDivisionError("the secret of this house")
    response, problem = await users.call("GET", "/users/7")
    assert (response.status, problem["code"]) == (500, "internal_error")
    assert "secret" not in str(problem)
    assert "Traceback" not in str(problem)
