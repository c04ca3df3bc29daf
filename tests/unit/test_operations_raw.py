"""What a socket can send to the operations gateway: never a 500, and never a traceback in its log."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from coordinator.http.problems import RequestRefused
from coordinator.operations.sessions import COOKIE, MARK_HEADER, Sessions, check_origin
from tests.unit.gateways.test_gateways_raw import statuses
from tests.unit.test_operations_doors import LANE, PAUSE, Door, Start, key, start

__all__ = ("start",)

JSON = b"Content-Type: application/json\r\n"
DEEP = b'{"reason":"r","letters":[1],"args":' + b"[" * 5000 + b"]" * 5000 + b"}"
ODD = (
    *(b"http://[", b"http://[::1", b"http://a]b", b"null", b"\xff\xfe", b"http://\xe2\x84\x80@x", b"//", b"a:b:c"),
    *(
        b"",
        b"\x80",
        "é".encode(),
        b"http://\xed\xa0\x80",
        b"a" * 4000,
        b"%ff",
        b'"\\777"',
        b"=;=",
        b"http://a:99999999",
    ),
)
HEADERS = (b"Origin", b"Host", b"Cookie", b"Sec-Fetch-Site", MARK_HEADER.encode(), b"Content-Type", b"Accept")
QUERIES = (
    *(b"letters?type=%ED%A0%80", b"letters?contains=%ED%A0%80", b"letters?contains=%ff", b"letters?after=1e9"),
    *(b"letters?after=" + b"9" * 5000, b"commands?until=0001-01-01T00:00:00%2B14:00", b"acts?before=Z"),
    *(b"commands?until=%F0%9F%98%80", b"letters?=1", b"letters?\xff=\xff", b"letters/9999999999999999"),
)
BODIES = (
    *(b"", b"null", b"[]", b"\xff", b'{"reason":"\xff"}', b'{"reason":"\\ud800"}', b'{"reason":"a\\u0000b"}'),
    *(DEEP, b'{"reason":"x","letters":[1e999]}', b'{"reason":"x","letters":[' + b"9" * 5000 + b"]}", b"[" * 9999),
    *(b'{"reason":"r","command_id":"\xc4\xb0"}', b'{"reason":"r","letters":[1],"args":{"a":' + b"9" * 5000 + b"}}"),
)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def exchange(door: Door, head: bytes, body: bytes = b"") -> bytes:
    port = int(door.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    host = b"" if b"\r\nHost:" in head else b"Host: 127.0.0.1:%d\r\n" % port
    try:
        async with asyncio.timeout(10):
            writer.write(head + host + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return await reader.read()
    finally:
        writer.close()


async def assert_harmless(door: Door, said: list[Any], head: bytes, body: bytes = b"") -> None:
    answer = await exchange(door, head, body)
    assert all(200 <= status < 500 for status in statuses(answer)), (head, answer[:300])
    assert [line for line in said if line["log_level"] == "error"] == [], head


async def signed_in(start: Start, tmp_path: Path) -> tuple[Door, bytes]:
    text = key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys")
    _, _, answer = await door.ask("POST", "/api/session", {"key": text})
    (cookie,) = answer.cookies.values()
    assert await door.sign_in(text) == 204
    assert cookie.key.startswith(COOKIE)
    return door, f"Cookie: {cookie.key}={cookie.value}\r\n{MARK_HEADER}: {door.mark}\r\n".encode()


async def test_no_header_is_too_odd_for_whoever_has_no_session(start: Start, said: list[Any]) -> None:
    door = await start(ACCESS_METHODS="keys")
    for name in HEADERS:
        for value in ODD:
            field = name + b": " + value + b"\r\n"
            await assert_harmless(door, said, b"POST /api/session HTTP/1.1\r\n" + JSON + field, b'{"key":"x"}')
            await assert_harmless(door, said, b"DELETE /api/session HTTP/1.1\r\n" + field)
            await assert_harmless(door, said, b"GET /api/session HTTP/1.1\r\n" + field)


async def test_no_header_query_or_body_is_too_odd_for_an_operator(
    start: Start, tmp_path: Path, said: list[Any]
) -> None:
    door, session = await signed_in(start, tmp_path)
    post = b"POST " + PAUSE.encode() + b" HTTP/1.1\r\n" + JSON
    cookie, mark = session.split(b"\r\n")[:2]
    for value in ODD:
        await assert_harmless(door, said, post + session + b"Origin: " + value + b"\r\n", b'{"reason":"r"}')
        await assert_harmless(door, said, post + cookie + b"\r\n" + mark.partition(b":")[0] + b": " + value + b"\r\n")
    for query in QUERIES:
        await assert_harmless(door, said, b"GET /api/lanes/%s/%s HTTP/1.1\r\n" % (LANE.encode(), query) + session)
    for act in (b"pause", b"cancel", b"letters/replay", b"letters/discard"):
        for body in BODIES:
            head = b"POST /api/lanes/%s/%s HTTP/1.1\r\n" % (LANE.encode(), act)
            await assert_harmless(door, said, head + JSON + session, body)


VALUES = st.binary(max_size=30) | st.sampled_from(ODD)


@settings(max_examples=60)
@given(fields=st.lists(st.tuples(st.sampled_from(HEADERS), VALUES), max_size=4))
def test_each_check_of_a_header_refuses_or_passes(fields: list[tuple[bytes, bytes]]) -> None:
    headers = CIMultiDict((name.decode(), value.decode("utf-8", "surrogateescape")) for name, value in fields)
    request: Any = SimpleNamespace(headers=CIMultiDictProxy(headers), raw_path="/")
    sessions = Sessions(None, (LANE,), 60)
    for check in (check_origin, sessions.check_host, lambda each: sessions.check_mark(each, "mark")):
        with suppress(RequestRefused):
            check(request)
