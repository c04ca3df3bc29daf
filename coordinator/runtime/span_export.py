"""Exports the spans of a process to a collector, by OTLP over HTTP, on a thread of its own.

Nothing of it reaches the work: the queue is bounded, a collector that is slow, gone or refuses costs spans and no time,
and the end of the process waits for it a second at most.
"""

import gzip
import http.client
import os
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from coordinator.runtime.loading import load
from coordinator.runtime.otlp import encoded_request, encoded_resource, encoded_scope
from coordinator.runtime.plain_files import is_readable_file
from coordinator.runtime.recording import Recorder, Sampler, as_the_parent, use_recorder
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.runtime.trace_settings import TraceSettings, pairs_of
from coordinator.service.errors import ConfigurationError

STOP_S: Final = 1.0
"""How long the end of a process waits for its last spans to be taken."""
_ATTEMPTS: Final = 3
_PAUSE_S: Final = 1.0
"""The first pause before spans are offered again; it doubles."""
_TRY_AGAIN: Final = frozenset({429, 502, 503, 504})
"""The answers after which OTLP has a client try again."""
_OK: Final = range(200, 300)
_ANSWER_BYTES_MAX: Final = 64 << 10
_GZIP_LEVEL: Final = 1

log = structlog.get_logger("traces")


class _NotTaken(Exception):
    """Raised where the collector has not taken spans. `may_later`: it may take them another time."""

    def __init__(self, reason: str, *, may_later: bool) -> None:
        super().__init__(reason)
        self.may_later = may_later


class CollectorConnection:
    """A connection to a collector, made when it is needed. Used by one thread."""

    def __init__(self, settings: TraceSettings) -> None:
        """Raises ConfigurationError."""
        endpoint = settings.endpoint
        self._host = endpoint.hostname or ""
        self._port = endpoint.port
        self._path = endpoint.path or "/"
        self._timeout_s = settings.exporter_otlp_timeout / 1000
        self._tls = _tls(settings) if endpoint.scheme == "https" else None
        self._is_packed = settings.exporter_otlp_compression == "gzip"
        self._headers = {"User-Agent": "write-coordinator"} | settings.headers
        self._headers |= {"Content-Type": "application/x-protobuf"}
        if self._is_packed:
            self._headers["Content-Encoding"] = "gzip"
        self._connection: http.client.HTTPConnection | None = None

    def send(self, body: bytes) -> None:
        """Raises _NotTaken."""
        packed = gzip.compress(body, _GZIP_LEVEL) if self._is_packed else body
        try:
            try:
                status = self._post(packed)
            except (ConnectionError, http.client.RemoteDisconnected):
                # Most likely it was idle for long, and the collector has closed it: a new one shows.
                self.close()
                status = self._post(packed)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _NotTaken(f"{type(error).__name__}: {error}", may_later=True) from None
        if status not in _OK:
            raise _NotTaken(f"it answers {status}", may_later=status in _TRY_AGAIN)

    def close(self) -> None:
        """Close the connection. The next spans make another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, body: bytes) -> int:
        if self._connection is None:
            self._connection = (
                http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
                if self._tls is None
                else http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)
            )
        self._connection.request("POST", self._path, body, self._headers)
        answer = self._connection.getresponse()
        answer.read(_ANSWER_BYTES_MAX)
        if not answer.isclosed():
            self.close()
        return answer.status


class SpanExporter:
    """Takes what a recorder has noted, in batches, and sends it. It starts with the first span of a process."""

    def __init__(self, settings: TraceSettings, process: str, version: str, send: Callable[[bytes], None]) -> None:
        """`process` and `version` are said of each span. `send` sends a request's body, and raises _NotTaken."""
        self._settings = settings
        self._resource = encoded_resource(resource_of(settings, process, version))
        self._scope = encoded_scope(version)
        self._send = send
        self._batch_max = min(settings.bsp_max_export_batch_size, settings.bsp_max_queue_size)
        self._delay_s = settings.bsp_schedule_delay / 1000
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._line = RepeatedLine()
        self._lost = 0
        self._told = 0
        self.recorder = Recorder(
            time.time_ns, settings.bsp_max_queue_size, self._batch_max, self._woken.set, sampler_of(settings)
        )
        self._thread: threading.Thread | None = None
        # A forked process has the queue, and no thread: it exports its own spans, and not those of its parent.
        os.register_at_fork(after_in_child=self._begin_again)

    def start(self) -> None:
        """Export from now on."""
        self._thread = threading.Thread(target=self._run, name="span export", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = STOP_S) -> None:
        """Export what waits, for so long; what is left then is lost."""
        self._stopping.set()
        self._woken.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout_s)

    def _begin_again(self) -> None:
        self._woken, self._stopping = threading.Event(), threading.Event()
        self.recorder.begin_again(self._woken.set)
        if self._thread is not None:
            self.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.wait(self._delay_s)
            self._woken.clear()
            self._export_all()
        self._export_all()

    def _export_all(self) -> None:
        """Send what waits, in full batches first; whoever woke us may have a whole queue."""
        while spans := self.recorder.take(self._batch_max):
            try:
                self._export(encoded_request(spans, self._resource, self._scope), len(spans))
            except Exception as error:  # noqa: BLE001  # the thread must go on, or all later spans were lost unsaid
                self._lost += len(spans)
                # Without its text, which may have a header's value.
                self._tell(f"they cannot be sent: {type(error).__name__}")
        self._tell()

    def _export(self, body: bytes, spans: int) -> None:
        pause_s = _PAUSE_S
        for attempt in range(_ATTEMPTS):
            try:
                self._send(body)
            except _NotTaken as error:
                is_last = attempt + 1 == _ATTEMPTS or not error.may_later or self._stopping.is_set()
                if is_last or self._stopping.wait(pause_s):
                    self._lost += spans
                    self._tell(str(error))
                    return
                pause_s *= 2
            else:
                return

    def _tell(self, reason: str = "more spans than the collector takes in time") -> None:
        """Log what was lost, once a minute."""
        lost = self._lost + self.recorder.dropped
        if lost > self._told and self._line.is_due("spans", time.monotonic()):
            log.warning("spans_lost", spans=lost - self._told, collector=self._settings.endpoint.netloc, reason=reason)
            self._told = lost


def start_span_export(process: str, version: str) -> SpanExporter:
    """Record the spans of this process, and export them. Raises ConfigurationError."""
    settings = load(TraceSettings)
    exporter = SpanExporter(settings, process, version, CollectorConnection(settings).send)
    if not settings.is_off:
        exporter.start()
        use_recorder(exporter.recorder)
    return exporter


def resource_of(settings: TraceSettings, process: str, version: str) -> dict[str, str | int]:
    """What is said of the process with all its spans. What an operator says wins."""
    made: dict[str, str | int] = {
        "service.name": process.replace(" ", "-"),
        "service.version": version,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "write-coordinator",
        "telemetry.sdk.version": version,
    }
    made |= pairs_of(settings.resource_attributes)
    return made | ({"service.name": settings.service_name} if settings.service_name else {})


def sampler_of(settings: TraceSettings) -> Sampler:
    """Whether a trace is sampled, by the sampler that the settings name."""
    name = settings.traces_sampler
    if name == "parentbased_always_on":
        return as_the_parent
    share = settings.traces_sampler_arg if name.endswith("traceidratio") else float(name.endswith("always_on"))
    # Texts of as many digits, in small letters, are in the order of their numbers; every digit is below `g`.
    below = f"{int(share * (1 << 64)):016x}" if share < 1 else "g"

    def decided(trace_id: str) -> bool:
        return trace_id[16:] < below

    if name.startswith("parentbased_"):
        return lambda trace_id, parent: decided(trace_id) if parent is None else parent
    return lambda trace_id, _: decided(trace_id)


def _tls(settings: TraceSettings) -> ssl.SSLContext:
    path = settings.exporter_otlp_certificate
    if path and not is_readable_file(path):
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_CERTIFICATE: {path!r} names no plain file, or one that cannot be read"
        )
    try:
        return ssl.create_default_context(cafile=path or None)
    except (OSError, ssl.SSLError) as error:
        text = f"OTEL_EXPORTER_OTLP_CERTIFICATE: {path!r} cannot be read: {error}"
        raise ConfigurationError(text) from None
