"""A collector of spans: it takes OTLP over HTTP, as OpenTelemetry's own does, and keeps what it gets."""

import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any

from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}


class Collected(Struct):
    """One span, decoded."""

    service: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, str | int]
    links: list[tuple[str, str]]
    is_error: bool
    tracestate: str
    flags: int


class Received(Struct):
    """One request."""

    path: str
    headers: dict[str, str]
    spans: int


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Its clients may end as they like."""


class Collector:
    """`status` is what it answers; while `frozen` is set it answers nothing."""

    def __init__(self) -> None:
        self.status = 200
        self.frozen = threading.Event()
        self.spans: list[Collected] = []
        self.resources: list[dict[str, str | int]] = []
        self.received: list[Received] = []
        self._changed = threading.Condition()
        self.released = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                collector._connections.append(self.connection)

            def do_POST(self) -> None:  # it is the library's
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.frozen.is_set():
                    collector.released.wait(60)
                collector._take(self.path, dict(self.headers), body)
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._handler = Handler
        self._connections: list[Any] = []
        self._listen(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def wait_for(self, done: Any, timeout_s: float = 30.0) -> None:
        """Return once the spans are such that `done()` is true."""
        until_s = monotonic() + timeout_s
        with self._changed:
            while not done():
                left_s = until_s - monotonic()
                assert left_s > 0, [(span.service, span.name) for span in self.spans]
                self._changed.wait(left_s)

    def restart(self) -> None:
        """On the same port. Its connections are gone."""
        port = int(self.url.rpartition(":")[2])
        self._stop()
        self._listen(port)

    def close(self) -> None:
        self.released.set()
        self._stop()

    def _listen(self, port: int) -> None:
        self._server = _Server(("127.0.0.1", port), self._handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        found = list(_spans(request))
        with self._changed:
            self.received.append(Received(path, headers, len(found)))
            if self.status == 200:
                self.spans += found
            self.resources += [_attributes(each.resource.attributes) for each in request.resource_spans]
            self._changed.notify_all()


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


def _attributes(pairs: Any) -> dict[str, str | int]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> str | int:
    kind = pair.value.WhichOneof("value")
    assert kind in {"string_value", "int_value"}, pair
    return pair.value.int_value if kind == "int_value" else pair.value.string_value


def _spans(request: ExportTraceServiceRequest) -> Iterator[Collected]:
    for of_process in request.resource_spans:
        service = str(_attributes(of_process.resource.attributes).get("service.name", ""))
        for of_scope in of_process.scope_spans:
            for span in of_scope.spans:
                yield _collected(service, span)


def _collected(service: str, span: ProtoSpan) -> Collected:
    return Collected(
        service=service,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=KINDS[span.kind],
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        is_error=span.status.code == 2,
        tracestate=span.trace_state,
        flags=span.flags,
    )
