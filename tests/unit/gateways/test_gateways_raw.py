"""HTTP that is no HTTP, or too clever: never a 500, never a connection that stays open unanswered, no growth."""

import asyncio
import re
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.runtime.settings import GatewaySettings
from tests.unit.gateways.conftest import RunningGateway, Start

QUICK = GatewaySettings(head_timeout_s=0.3, body_timeout_s=0.3, idle_timeout_s=0.3, send_timeout_s=0.3)
DEADLINE_S = 15.0
ADA = b'{"name": "Ada", "email": "ada@example.org"}'
JSON = b"Content-Type: application/json\r\n"


async def exchange(port: int, *parts: bytes, is_half_closed: bool = False) -> bytes:
    """Send the parts one after the other; all that comes until the gateway closes the connection, which it must."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        async with asyncio.timeout(DEADLINE_S):
            with suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
                if is_half_closed:
                    with suppress(OSError):  # "not connected", which is no ConnectionError: it was hung up on
                        writer.write_eof()
                while part := await reader.read(1 << 16):
                    answer += part
        return answer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", answer)]


def assert_harmless(answer: bytes) -> None:
    assert all(100 <= status < 500 for status in statuses(answer)), answer[:500]


@pytest.fixture
async def quick(start: Start) -> RunningGateway:
    return await start("users", QUICK)


def post(*fields: bytes, body: bytes = b"") -> bytes:
    return (
        b"POST /users HTTP/1.1\r\nHost: a\r\n" + JSON + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body
    )


CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(ADA), ADA)
SMUGGLED = b"DELETE /users/7 HTTP/1.1\r\nHost: a\r\n\r\n"

SMUGGLING = {
    "length and chunks": post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "chunks and length": post(b"Transfer-Encoding: chunked", b"Content-Length: 6", body=b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post(b"Content-Length: 43", b"Content-Length: 0", body=ADA + SMUGGLED),
    "a list of lengths": post(b"Content-Length: 43, 43", body=ADA),
    "a signed length": post(b"Content-Length: +43", body=ADA),
    "a negative length": post(b"Content-Length: -1", body=ADA),
    "a length of letters": post(b"Content-Length: 0x2b", body=ADA),
    "a length without end": post(b"Content-Length: " + b"9" * 400, body=ADA),
    "chunks twice": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=CHUNKED + SMUGGLED),
    "chunks and identity": post(b"Transfer-Encoding: chunked, identity", body=CHUNKED + SMUGGLED),
    "odd chunks": post(b"Transfer-Encoding: xchunked", body=CHUNKED + SMUGGLED),
    "spaced chunks": post(b"Transfer-Encoding : chunked", body=CHUNKED + SMUGGLED),
    "tabbed chunks": post(b"Transfer-Encoding:\x0bchunked", body=CHUNKED + SMUGGLED),
    "gzip chunks": post(b"Transfer-Encoding: gzip, chunked", body=CHUNKED + SMUGGLED),
    "a bare line feed": b"POST /users HTTP/1.1\nHost: a\nContent-Length: 0\n\n" + SMUGGLED,
    "a folded field": post(b"X: a\r\n Content-Length: 9", b"Content-Length: 43", body=ADA + SMUGGLED),
    "NUL in a field": post(b"X: a\x00b", b"Content-Length: 0") + SMUGGLED,
    "NUL in a name": post(b"X\x00Y: a", b"Content-Length: 0") + SMUGGLED,
    "carriage return in a field": post(b"X: a\rContent-Length: 0", b"Content-Length: 43", body=ADA + SMUGGLED),
    "no name": post(b": a", b"Content-Length: 0") + SMUGGLED,
    "a negative chunk": post(b"Transfer-Encoding: chunked", body=b"-1\r\n\r\n" + SMUGGLED),
    "a chunk without end": post(b"Transfer-Encoding: chunked", body=b"f" * 400 + b"\r\n" + SMUGGLED),
    "a chunk longer than it says": post(b"Transfer-Encoding: chunked", body=b"1\r\n{}\r\n0\r\n\r\n" + SMUGGLED),
    "trailers that name a length": post(
        b"Transfer-Encoding: chunked", body=CHUNKED[:-2] + b"Content-Length: 9\r\nHost: b\r\n\r\n"
    ),
}


@pytest.mark.parametrize("case", sorted(SMUGGLING))
async def test_no_second_request_is_smuggled(quick: RunningGateway, case: str) -> None:
    answer = await exchange(quick.port, SMUGGLING[case])
    assert_harmless(answer)
    issued = [message.type for _, message, _ in quick.writes.issued]
    # Whoever frames the bytes otherwise than we do must not find a request of ours in them: what is unclear is
    # refused as a whole, and what is clear ends before the second request or has it answered as one of its own.
    assert issued.count("users.delete") == 0 or len(statuses(answer)) >= 2, answer
    if case in {"length and chunks", "chunks and length", "two lengths", "chunks twice", "odd chunks"}:
        assert issued == []
        assert statuses(answer) == [400]


NEXT = b"GET /users/7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
TRAILERS = {
    "one": (b"Prefer: respond-async\r\n",),
    "several": (b"X: y\r\nIdempotency-Key: k\r\n",),
    "one in parts": (b"Pre", b"fer: respond-", b"async\r", b"\n"),
    "one that ends as a body does": (b"0: 0\r\n",),
}


async def answers_in_turn(port: int, first: tuple[bytes, ...], second: bytes) -> bytes:
    """What is answered to both requests, the second of which is sent once the first is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(DEADLINE_S):
            for part in first:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
            answer = await reader.readuntil(b"\r\n\r\n")
            with suppress(ConnectionError):
                writer.write(second)
                await writer.drain()
                answer += await reader.read()
        return answer
    finally:
        writer.close()


async def answer_that_ends_its_connection(port: int, first: tuple[bytes, ...], *, is_pipelined: bool) -> bytes:
    """What is answered to a request and the next one, which comes with it, or behind its answer."""
    if is_pipelined:
        answer = await exchange(port, b"".join(first) + NEXT)
    else:
        answer = await answers_in_turn(port, first, NEXT)
    assert b"Connection: close" in answer
    return answer


@pytest.mark.parametrize("case", sorted(TRAILERS))
@pytest.mark.parametrize("path", [b"/users", b"/nothing"])
@pytest.mark.parametrize("is_pipelined", [False, True])
async def test_what_stands_behind_a_body_is_no_field_of_the_next_request(
    quick: RunningGateway, case: str, path: bytes, is_pipelined: bool
) -> None:
    """aiohttp would take the last trailer for one: of whoever comes next, where a proxy shares its connections."""
    head = post(b"Transfer-Encoding: chunked", body=CHUNKED[:-2]).replace(b"/users", path, 1)
    parts = (head, *TRAILERS[case], b"\r\n")
    answer = await answer_that_ends_its_connection(quick.port, parts, is_pipelined=is_pipelined)
    assert len(statuses(answer)) == 1, answer


OFFERS = {name: b"Connection: Upgrade\r\nUpgrade: %s\r\n" % name.encode() for name in ("h2c", "websocket")}


@pytest.mark.parametrize("offer", sorted(OFFERS))
@pytest.mark.parametrize("body", [b"", b"{}"])
@pytest.mark.parametrize("is_pipelined", [False, True])
async def test_no_request_behind_an_offer_of_another_protocol_stays_unanswered_on_an_open_connection(
    quick: RunningGateway, offer: str, body: bytes, is_pipelined: bool
) -> None:
    head = b"GET /users/7 HTTP/1.1\r\nHost: a\r\n" + OFFERS[offer] + b"Content-Length: %d\r\n\r\n" % len(body)
    answer = await answer_that_ends_its_connection(quick.port, (head, body), is_pipelined=is_pipelined)
    assert statuses(answer) == [200], answer


@pytest.mark.parametrize("case", ["whole", "in parts"])
async def test_a_body_in_chunks_without_trailers_keeps_its_connection(start: Start, case: str) -> None:
    users = await start("users")
    sent = post(b"Transfer-Encoding: chunked", body=CHUNKED)
    parts = (sent,) if case == "whole" else tuple(bytes([byte]) for byte in sent)
    answer = await answers_in_turn(users.port, parts, NEXT)
    assert statuses(answer) == [201, 200], answer


ODD = {
    "absolute form": b"GET http://a/healthz HTTP/1.1\r\nHost: b\r\n\r\n",
    "absolute form with a user": b"GET http://u:p@a:99999/healthz HTTP/1.1\r\nHost: b\r\n\r\n",
    "absolute form of another scheme": b"GET gopher://a/1 HTTP/1.1\r\nHost: b\r\n\r\n",
    "absolute form of brackets": b"GET http://[::1/healthz HTTP/1.1\r\nHost: b\r\n\r\n",
    "authority form": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n\x16\x03\x01",
    "trace": b"TRACE /users HTTP/1.1\r\nHost: a\r\nCookie: secret\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "an old version": b"GET /healthz\r\n\r\n",
    "version 1.0": b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "version 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version 9.9": b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n",
    "a method of its own": b"BREW /users HTTP/1.1\r\nHost: a\r\n\r\n",
    "a long method": b"X" * 9000 + b" / HTTP/1.1\r\n\r\n",
    "an upgrade": b"GET /users/7 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + b"\x81\x05hello" * 20_000,
    "an upgrade to version 2": b"GET /users/7 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + SMUGGLED,
    "an expectation": post(b"Expect: 100-continue", b"Content-Length: 43"),
    "an expectation that is met": post(b"Expect: 100-continue", b"Content-Length: 43", body=ADA),
    "an expectation of nothing": post(b"Expect: 100-continue", b"Content-Length: 0"),
    "another expectation": post(b"Expect: a-miracle", b"Content-Length: 43", body=ADA),
    "an expectation of old": b"POST /users HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 43\r\n\r\n",
    "chunk extensions": post(
        b"Transfer-Encoding: chunked", body=b"2b;" + b"x=y;" * 4000 + b"\r\n" + ADA + b"\r\n0\r\n\r\n"
    ),
    "trailers": post(b"Transfer-Encoding: chunked", body=CHUNKED[:-2] + b"X: y\r\n" * 10_000 + b"\r\n"),
    "a trailer without end": post(b"Transfer-Encoding: chunked", body=CHUNKED[:-2] + b"X: " + b"y" * 100_000),
    "one byte chunks": post(
        b"Transfer-Encoding: chunked", body=b"".join(b"1\r\n%c\r\n" % byte for byte in ADA) + b"0\r\n\r\n"
    ),
    "chunks that end nowhere": post(b"Transfer-Encoding: chunked", body=b"2b\r\n" + ADA),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300,
    "nothing": b"",
    "line feeds": b"\r\n" * 5000,
    "a dot": b".",
}


@pytest.mark.parametrize("case", sorted(ODD))
@pytest.mark.parametrize("is_half_closed", [False, True])
async def test_odd_requests_are_answered_or_hung_up_on(quick: RunningGateway, case: str, is_half_closed: bool) -> None:
    assert_harmless(await exchange(quick.port, ODD[case], is_half_closed=is_half_closed))
    response, _ = await quick.call("GET", "/healthz")
    assert response.status == 200


async def test_what_is_expected_is_asked_for_and_answered(quick: RunningGateway) -> None:
    answer = await exchange(quick.port, ODD["an expectation that is met"])
    assert statuses(answer) == [100, 201]
    answer = await exchange(quick.port, ODD["another expectation"])
    assert statuses(answer)[0] == 417
    assert b'"code":"expectation_failed"' in answer


async def test_whoever_leaves_while_he_is_asked_for_more_leaves_no_traceback(
    quick: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", quick.port)
        writer.write(ODD["an expectation of nothing"] * 20)
        writer.close()
    assert (await quick.call("GET", "/healthz"))[0].status == 200
    assert [record for record in caplog.records if record.exc_info] == []


FIELDS = (
    *(b"Accept", b"Accept-Encoding", b"Authorization", b"Connection", b"Content-Encoding", b"Content-Type", b"Cookie"),
    *(b"Expect", b"Forwarded", b"Idempotency-Key", b"If-Match", b"If-Modified-Since", b"Prefer", b"Range", b"Referer"),
    *(b"Host", b"Sec-WebSocket-Key", b"Upgrade", b"User-Agent", b"X-Forwarded-For", b"traceparent", b"tracestate"),
    *(b"Command-Id", b"Transfer-Encoding", b"Content-Length", b"Stripe-Signature", b"Accept-Charset", b"Date"),
)
VALUES = {
    "no value": b"",
    "bytes that are no UTF-8": b"\xe9\xe9\xff",
    "half a surrogate pair": b"\xed\xa0\x80",
    "signs": b"\";,=\\'%00%ff\t",
    "long": b"a" * 8000,
}


@pytest.mark.parametrize("value", sorted(VALUES))
@pytest.mark.parametrize("field", FIELDS, ids=bytes.decode)
async def test_whatever_a_field_holds_is_no_fault_of_the_gateway(
    quick: RunningGateway, field: bytes, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    line = b"%s: %s\r\n" % (field, VALUES[value])
    for start, body in ((b"POST /users", ADA), (b"GET /users/7", b""), (b"GET /nothing", b""), (b"PUT /users/7", b"")):
        sent = b"%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%sContent-Length: %d\r\n%s\r\n%s"
        answer = await exchange(quick.port, sent % (start, JSON, len(body), line, body))
        assert_harmless(answer)
        assert statuses(answer), "no answer"
        # What cannot be read is 400 in a line of text; whatever is HTTP has a problem.
        is_refused = statuses(answer)[0] > 400
        assert not is_refused or b"Content-Type: application/problem+json" in answer, answer
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize(
    "field",
    [
        b"Authorization: Bearer hunter2\x01",
        b"Authorization: Bearer hunter2" + b"x" * 9000,
        b"Authorization Bearer hunter2",
        b"Authorization : Bearer hunter2",
        b"Content-Length: hunter2",
    ],
    ids=["a control character", "too long", "no colon", "a space before the colon", "no number"],
)
async def test_the_answer_to_a_head_that_cannot_be_read_repeats_nothing_of_it(
    quick: RunningGateway, field: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = await exchange(quick.port, b"GET /users/7 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n" % field)
    assert statuses(answer) == [400]
    assert b"hunter2" not in answer
    assert "hunter2" not in "".join(capfd.readouterr())


async def test_a_thousand_requests_at_once_are_answered_in_order(quick: RunningGateway) -> None:
    one = b"GET /users/%d HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = await exchange(quick.port, b"".join(one % (7 if number % 3 else 8) for number in range(1000)))
    assert statuses(answer) == [200 if number % 3 else 404 for number in range(1000)]


async def test_a_thousand_writes_at_once_wait_for_each_other(quick: RunningGateway) -> None:
    request = post(b"Content-Length: 43", body=ADA)
    assert statuses(await exchange(quick.port, request * 1000)) == [201] * 1000
    assert len(quick.writes.issued) == 1000


async def test_what_comes_behind_a_request_that_is_served_does_not_pile_up(start: Start) -> None:
    """Nor does what comes behind an upgrade, or a body that nobody reads: a client sends as much as it likes."""
    users = await start("users", QUICK)
    users.writes.gate.clear()
    floods = {
        post(b"Content-Length: 43", body=ADA): b"GET /users/7 HTTP/1.1\r\nHost: a\r\n\r\n" * 1000,
        ODD["an upgrade"]: b"x" * 40_000,
        b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n": b"x" * 40_000,
        b"POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n" + JSON + b"\r\n": b"x" * 40_000,
    }

    async def flood(first: bytes, more: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", users.port)
        writer.transport.set_write_buffer_limits(high=0)
        with suppress(ConnectionError, TimeoutError):
            writer.write(first)
            async with asyncio.timeout(1):
                for _ in range(1000):
                    writer.write(more)
                    await writer.drain()
        writer.transport.abort()
        del reader

    tracemalloc.start()
    try:
        await asyncio.gather(*(flood(first, more) for first, more in floods.items()))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    users.writes.gate.set()
    assert peak_bytes < 10 << 20
    assert (await users.call("GET", "/healthz"))[0].status == 200


pieces = st.sampled_from(
    [
        *(b"GET /users/7 HTTP/1.1\r\n", b"POST /users HTTP/1.1\r\n", b"GET /users\r\n", b"HTTP/1.1", SMUGGLED),
        *(b"Host: a\r\n", b"\r\n", b"\n", b"\r", b"\x00", b" ", b"X: y\r\n", b"%", b"\xff", JSON, ADA),
        *(b"Content-Length: 43\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", CHUNKED),
        *(b"0\r\n\r\n", b"2b;a=b\r\n", b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n"),
        *(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Connection: close\r\n"),
    ]
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(sent=st.lists(st.lists(pieces, max_size=8).map(b"".join), max_size=4), is_half_closed=st.booleans())
async def test_whatever_is_put_together_of_http_is_answered_or_hung_up_on(
    hasty: RunningGateway, sent: list[bytes], is_half_closed: bool
) -> None:
    assert_harmless(await exchange(hasty.port, *sent, is_half_closed=is_half_closed))


@pytest.fixture
async def hasty(start: Start) -> RunningGateway:
    """It gives nobody more than a moment."""
    moment_s = 0.04
    return await start(
        "users",
        GatewaySettings(
            head_timeout_s=moment_s, body_timeout_s=moment_s, idle_timeout_s=moment_s, send_timeout_s=moment_s
        ),
    )
