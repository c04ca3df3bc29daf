"""An HTTP client that costs little: keep-alive connections, one request at a time on each, no parsing but the status.

What the gateways are asked is always the same, so the requests are made once.
"""

import asyncio
from array import array
from collections.abc import Callable
from time import monotonic
from typing import Any

import uvloop

from tests.bench.clients.spec import Spec, Window
from tests.bench.measurement import ClientResult

BODY = b'{"amount":1}'
ANSWER_TIMEOUT_S = 15.0
_CREATED_OR_OK = (b"200", b"201")


def run(spec: Spec, go: Callable[[], Window]) -> ClientResult:
    """Load the gateways, each with an equal share of the connections."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(spec, go))


async def _run(spec: Spec, go: Callable[[], Window]) -> ClientResult:
    loop = asyncio.get_running_loop()
    result = ClientResult(latencies_s=array("d"))
    addresses = spec.target.split(",")
    connections: list[_Connection] = []
    for number in range(spec.concurrency):
        host, _, port = addresses[number % len(addresses)].partition(":")
        _, connection = await loop.create_connection(lambda host=host: _Connection(host, result), host, int(port))
        connections.append(connection)
    window = await asyncio.to_thread(go)
    await asyncio.sleep(window.start - monotonic())
    for connection in connections:
        connection.begin(window)
    await asyncio.wait(
        {connection.done for connection in connections}, timeout=window.end + ANSWER_TIMEOUT_S - monotonic()
    )
    for connection in connections:
        connection.end()
    return result


class _Connection(asyncio.Protocol):
    """Asks, waits for the whole answer, asks again."""

    def __init__(self, host: str, result: ClientResult) -> None:
        head = (
            f"POST /accounts/1/credit HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n"
        )
        self._request = head.encode() + BODY
        self._result = result
        self._transport: Any = None
        self._window = Window(0.0, 0.0, 0.0)
        self._received = bytearray()
        self._began = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def begin(self, window: Window) -> None:
        self._window = window
        self._ask()

    def end(self) -> None:
        """An answer that has not come is an operation of which nobody knows."""
        if not self.done.done():
            self._result.unknown_total += 1
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._received[:head_end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._received) < head_end + 4 + length:
            return
        self._answered(head, bytes(self._received[head_end + 4 :]))
        self._received.clear()
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._result.errors += 1
            self._result.unknown_total += 1
            self._result.error_texts.append(f"the gateway closed the connection: {error}")
            self.done.set_result(None)

    def _ask(self) -> None:
        self._began = monotonic()
        if self._began >= self._window.end or self._transport is None:
            if not self.done.done():
                self.done.set_result(None)
            return
        self._result.offered += self._began >= self._window.begin
        self._transport.write(self._request)

    def _answered(self, head: bytes, body: bytes) -> None:
        ended = monotonic()
        is_inside = self._window.begin <= ended < self._window.end
        status = head[9:12]
        if status in _CREATED_OR_OK:
            self._result.applied_total += 1
            if is_inside:
                self._result.latencies_s.append(ended - self._began)
        elif status in (b"409", b"503"):
            # 503: it was not taken; but whether a command was, the gateway may not know.
            self._result.unknown_total += status == b"503"
            self._result.rejected += is_inside
        else:
            # 202: accepted, and not settled in time.
            self._result.unknown_total += 1
            self._result.errors += status != b"202"
            self._result.error_texts.append(f"HTTP {status.decode()}: {body[:150].decode(errors='replace')}")
