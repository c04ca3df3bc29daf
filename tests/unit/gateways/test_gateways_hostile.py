"""Whatever a client sends, the answer is not a 500: random bytes in every place of a request."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.http.runner import FIELD_BYTES_MAX, FIELDS_MAX, LINE_BYTES_MAX
from coordinator.runtime.settings import GatewaySettings
from shared.users.commands import CreateUser
from tests.support import hostile
from tests.unit.gateways.conftest import RunningGateway, Start

PATHS = ["/users", "/users/7", "/users/7/credit", "/transfers", "/commands", "/commands/x", "/healthz"]
METHODS = ["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"]

TEXTS = (*hostile.UNICODE.values(), *hostile.LONE_SURROGATES.values(), *hostile.ODD_JSON, *hostile.NUMBERS[::4])

quickly = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
line_bytes = st.binary(max_size=60).map(lambda text: text.replace(b"\r", b"").replace(b"\n", b""))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
arguments = st.dictionaries(
    st.sampled_from([*CreateUser.__struct_fields__, "id", "amount", "from", "to", "\x00"]),
    json_values,
    max_size=5,
)
# So near to a command that some are one.
elements = st.fixed_dictionaries(
    {"type": st.sampled_from(["users.create", "users.credit", "users.delete", "items.create", "lane.marker", ""])},
    optional={
        "args": arguments | st.just({"id": 7}) | st.just({"id": 7, "amount": 1}) | json_values,
        "id": st.uuids().map(str) | json_values,
        "deadline": st.integers() | json_values,
        "expected_version": st.integers() | json_values,
        "publisher": json_values,
        "\x00": json_values,
    },
)
header_names = st.sampled_from(
    [
        "Content-Type",
        "Content-Encoding",
        "If-Match",
        "If-None-Match",
        "Idempotency-Key",
        "Prefer",
        "traceparent",
        "Accept",
        "Cookie",
        "Host",
        "X-Odd",
        "Range",
        "Authorization",
        "Connection",
    ]
)


async def raw(port: int, request: bytes) -> tuple[int, bytes]:
    """Send bytes; return the first answer's status and head. 0: the server hung up without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0, b""
    finally:
        writer.close()
    return int(head.split(b" ", 2)[1]), head


def request_of(method: str, target: bytes, headers: list[tuple[str, bytes]], body: bytes) -> bytes:
    lines = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: localhost", b"Connection: close"]
    lines += [name.encode() + b": " + value for name, value in headers]
    lines += [b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@quickly
@given(
    method=st.sampled_from(METHODS),
    path=st.sampled_from(PATHS),
    headers=st.lists(st.tuples(header_names, line_bytes), max_size=4),
    body=st.binary(max_size=200),
)
async def test_odd_headers_are_never_a_500(
    users: RunningGateway, method: str, path: str, headers: list[tuple[str, bytes]], body: bytes
) -> None:
    status, answer = await raw(users.port, request_of(method, path.encode(), headers, body))
    assert 0 < status < 500, answer


@quickly
@given(method=st.sampled_from(METHODS), tail=line_bytes, query=line_bytes)
async def test_odd_paths_and_queries_are_never_a_500(
    users: RunningGateway, method: str, tail: bytes, query: bytes
) -> None:
    for target in (b"/" + tail, b"/users/" + tail, b"/users?" + query, b"/commands/" + tail, tail):
        status, answer = await raw(users.port, request_of(method, target, [], b""))
        assert 0 < status < 500, answer


@quickly
@given(
    method=st.sampled_from(["POST", "PATCH"]),
    path=st.sampled_from(PATHS),
    body=st.one_of(arguments.map(lambda value: json.dumps(value).encode()), st.binary(max_size=300)),
)
async def test_odd_bodies_are_never_a_500(users: RunningGateway, method: str, path: str, body: bytes) -> None:
    headers = [("Content-Type", b"application/json")]
    status, answer = await raw(users.port, request_of(method, path.encode(), headers, body))
    assert 0 < status < 500, answer


@quickly
@given(
    found=st.lists(elements | json_values, max_size=4),
    separator=st.sampled_from([b"\n", b"\r\n", b"\n\n", b"", b","]),
    content_type=st.sampled_from([b"application/json", b"application/x-ndjson"]),
    noise=st.binary(max_size=4),
    at=st.integers(0, 200),
)
async def test_odd_bodies_of_several_commands_are_never_a_500(
    users: RunningGateway, found: list[Any], separator: bytes, content_type: bytes, noise: bytes, at: int
) -> None:
    array = json.dumps(found).encode()
    lines = separator.join(json.dumps(each).encode() for each in found)
    users.writes.issued.clear()
    for body in (array, lines, array[:at] + noise + array[at:], lines[:at] + noise + lines[at:]):
        request = request_of("POST", b"/commands", [("Content-Type", content_type)], body)
        status, answer = await raw(users.port, request)
        assert 0 < status < 500, answer
        # What is refused is refused as a whole.
        assert (status == 200) == bool(users.writes.issued)
        users.writes.issued.clear()


@quickly
@given(request=st.binary(min_size=1, max_size=300))
async def test_bytes_that_are_not_http_are_never_a_500(users: RunningGateway, request: bytes) -> None:
    # A request follows, so that there is an answer even where the bytes mean nothing.
    status, answer = await raw(users.port, request + request_of("GET", b"/healthz", [], b""))
    assert status < 500, answer


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /users HTTP/1.1|Host: a|Transfer-Encoding: chunked|Content-Type: application/json||zz|", 400),
        (b"POST /users HTTP/1.1|Host: a|Content-Length: -1||", 400),
        (
            b"POST /users HTTP/1.1|Host: a|Content-Length: 9999999999999|Content-Type: application/json||{}",
            413,
        ),
        (b"POST /users HTTP/1.1|Host: a|Transfer-Encoding: chunked|Content-Length: 2||{}", 400),
        (b"GET /users/7 HTTP/1.1|Host: a|Expect: miracles||", 417),
        (b"GET /users/7 HTTP/1.1|Host: a|Upgrade: websocket|Connection: upgrade||", 200),
        (b"GET /users/7 HTTP/1.0||", 200),
        (b"GET http://elsewhere/users/7 HTTP/1.1|Host: a||", 200),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1|Host: a||", 400),
        (b"GET /users/7 HTTP/1.1|Host: a|X-Long: " + b"x" * 20_000 + b"||", 400),
        (b"GET /users/7 HTTP/1.1|Host: a|" + b"X: y|" * 1000 + b"|", 400),
        (b"GET /users/\xff\xfe HTTP/1.1|Host: a||", 400),
        (b"OPTIONS * HTTP/1.1|Host: a||", 404),
        (b"CONNECT a:80 HTTP/1.1|Host: a||", 404),
    ],
)
async def test_malformed_http_has_a_status_of_its_own(users: RunningGateway, head: bytes, status: int) -> None:
    assert (await raw(users.port, head.replace(b"|", b"\r\n")))[0] == status


PLENTY = GatewaySettings(head_bytes_max=1 << 20)
USERS = [("Content-Type", b"application/json")]
SIZED: dict[str, tuple[int, Callable[[int], bytes], int]] = {
    "LINE_BYTES_MAX": (LINE_BYTES_MAX, lambda n: request_of("GET", b"/healthz?" + b"a" * (n - 9), [], b""), 400),
    "FIELD_BYTES_MAX": (FIELD_BYTES_MAX, lambda n: request_of("GET", b"/users/7", [("X-Odd", b"a" * n)], b""), 400),
    # Host, Connection and Content-Length are there anyway.
    "FIELDS_MAX": (FIELDS_MAX, lambda n: request_of("GET", b"/users/7", [("X-Odd", b"a")] * (n - 3), b""), 400),
    "GATEWAY_BODY_BYTES_MAX": (
        PLENTY.body_bytes_max,
        lambda n: request_of("POST", b"/users", USERS, b'{"name":"Ada","email":"a@b"}'.ljust(n)),
        413,
    ),
    "GATEWAY_COMMANDS_MAX": (
        PLENTY.commands_max,
        lambda n: request_of(
            "POST", b"/commands", USERS, b"[" + b",".join([b'{"type":"users.delete","args":{"id":7}}'] * n) + b"]"
        ),
        413,
    ),
}
"""The limits of a request: how much, a request that has so much, and what is said of more."""


@pytest.mark.parametrize("limit", SIZED)
async def test_a_request_may_reach_each_limit_and_not_pass_it(start: Start, limit: str) -> None:
    users = await start("users", PLENTY)
    most, sized, refusal = SIZED[limit]
    statuses = [(await raw(users.port, sized(size)))[0] for size in (most - 1, most, most + 1)]
    assert max(statuses[:2]) < 400, statuses
    assert statuses[2] == refusal


def places_of(text: bytes) -> Iterator[bytes]:
    """Requests that have a text in each of the places where a client may put one."""
    json_type = ("Content-Type", b"application/json")
    in_head = text.replace(b"\r", b"").replace(b"\n", b"")[:8000]
    user = b'{"name":"%s","email":"%s"}' % (text, text)
    for body in (text, user, user.replace(b"name", text), b'{"type":"%s","args":{}}' % text):
        yield request_of("POST", b"/users", [json_type], body)
        yield request_of("POST", b"/commands", [json_type], body)
    for name in ("Content-Type", "Idempotency-Key", "If-Match", "Prefer", "traceparent", "X-Odd"):
        yield request_of("PATCH", b"/users/7", [json_type, (name, in_head)], b'{"name":"Ada"}')
    quoted = b"".join(b"%%%02X" % byte for byte in text[:2000])
    for target in (b"/users/" + quoted, b"/users?after=" + quoted, b"/users?" + quoted + b"=1", b"/commands/" + quoted):
        yield request_of("GET", target, [], b"")


@pytest.mark.parametrize(
    "texts",
    [[text.encode("utf-8", "surrogatepass") for text in TEXTS], [*hostile.NO_UTF8.values()]],
    ids=["texts", "bytes that are no UTF-8"],
)
async def test_the_corpus_is_taken_or_refused_wherever_it_stands(users: RunningGateway, texts: list[bytes]) -> None:
    for text in texts:
        for request in places_of(text):
            status, answer = await raw(users.port, request)
            assert 0 < status < 500, (text[:80], answer)
    for _, message, _ in users.writes.issued:
        message.arguments.decode()
    assert (await users.call("GET", "/users/7"))[0].status == 200


async def test_a_body_that_ends_early_harms_nobody(users: RunningGateway) -> None:
    head = b"POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    _, writer = await asyncio.open_connection("127.0.0.1", users.port)
    writer.write(head)
    writer.write_eof()
    writer.close()
    response, _ = await users.call("GET", "/users/7")
    assert response.status == 200
