"""Logs, trace context and the time that a request spends in each stage.

Logs are structlog's, one line an event, on standard error. Metrics are prometheus-client's, defined beside the code
that they measure.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import structlog

from coordinator.runtime.recording import recorder
from coordinator.runtime.settings import TelemetrySettings
from coordinator.service.draws import Draws
from coordinator.service.trace_context import TraceContext, flags_of, parsed

Stage = Literal["validate", "publish", "apply", "reply"]
"""`validate`: from arrival to a checked command; `publish`: until the broker confirmed it; `apply`: until its outcome
arrived (the queue and the lane); `reply`: until the response is written."""

_trace_draws, _span_draws = Draws(24), Draws(8)


def trace_from(traceparent: str | None, tracestate: str | None = None) -> TraceContext:
    """A span of ours in the caller's trace, or in a new one when the header is missing or malformed."""
    return span_within(parsed(traceparent, tracestate))


def span_within(caller: TraceContext | None) -> TraceContext:
    """A span of ours, in the caller's trace or in a new one.

    A process that records no spans has none: what it causes belongs to the caller's.
    """
    recording = recorder()
    if caller is None:
        drawn = _trace_draws.next().hex()
        is_sampled = recording is None or recording.samples(drawn[:32], None)
        return TraceContext(drawn[:32], drawn[32:], flags_of(is_sampled=is_sampled))
    if recording is None:
        return caller
    is_sampled = recording.samples(caller.trace_id, caller.is_sampled)
    return TraceContext(
        caller.trace_id, _span_draws.next().hex(), caller.with_sampled(is_sampled=is_sampled), caller.tracestate
    )


def whole_us(ms: float) -> float:
    """Milliseconds without the part below a microsecond. `round` takes three times as long."""
    return int(ms * 1000) / 1000


class Stages:
    """How long one request spent in each stage, in milliseconds."""

    def __init__(self) -> None:
        self.began_s = self._since = time.perf_counter()
        self.spent_ms: dict[Stage, float] = {}
        self.command_id: str | None = None
        self.sequence: int | None = None

    def end(self, stage: Stage, at: float | None = None) -> None:
        """The stage ends now, or ended at a time of `time.perf_counter`; it began where the one before it ended."""
        now = time.perf_counter() if at is None else at
        self.spent_ms[stage] = whole_us(self.spent_ms.get(stage, 0.0) + (now - self._since) * 1000)
        self._since = now

    def end_issued(self, commands: Iterable["Stages"]) -> None:
        """Note the stages of commands that were issued together, each measured by itself.

        `publish` ends with the last confirm, and the rest is `apply`. If none was confirmed, neither is noted, as for
        a single command.
        """
        publishes_ms = [command.spent_ms["publish"] for command in commands if "publish" in command.spent_ms]
        if publishes_ms:
            now = time.perf_counter()
            passed_ms = (now - self._since) * 1000
            publish_ms = min(max(publishes_ms), passed_ms)
            self.spent_ms["publish"] = whole_us(publish_ms)
            self.spent_ms["apply"] = whole_us(passed_ms - publish_ms)
            self._since = now


_current: ContextVar[Stages | None] = ContextVar("stages", default=None)


@contextmanager
def measured() -> Iterator[Stages]:
    """Collect the stages of what runs inside."""
    stages = Stages()
    token = _current.set(stages)
    try:
        yield stages
    finally:
        _current.reset(token)


def begin_stages() -> Stages:
    """Collect the stages of the current task from here on."""
    stages = Stages()
    _current.set(stages)
    return stages


def current_stages() -> Stages | None:
    """The stages of the request that is being served, or None."""
    return _current.get()


def end_stage(stage: Stage) -> None:
    """Note the end of a stage of the current request, if there is one."""
    stages = _current.get()
    if stages is not None:
        stages.end(stage)


def _to_json(event: object, **_: object) -> bytes:
    try:
        return msgspec.json.encode(event, enc_hook=repr)
    except (TypeError, ValueError):
        # A lone surrogate in somebody's text, or an integer that msgspec does not take.
        return json.dumps(event, default=repr).encode()


def _as_text(_: object, __: str, line: Any) -> str:
    return line.decode() if isinstance(line, bytes) else str(line)


class _StandardError:
    """Writes lines of bytes, each whole and at once. If their reader is gone, the process goes on."""

    def msg(self, line: bytes) -> None:
        try:
            error = sys.stderr.buffer
            error.write(line + b"\n")
            error.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = exception = msg


def _add_timestamp(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    # structlog's takes three times as long.
    event["timestamp"] = f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    return event


def configure_logging(settings: TelemetrySettings, process: str) -> None:
    """Send structlog's and the libraries' logs to standard error; every line names the process."""
    is_json = settings.log_format == "json"
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(_to_json)
        if is_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    pid = os.getpid()
    lines = _StandardError()

    def name_process(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.update(process=process, pid=pid)
        return event

    shared_processors: list[structlog.typing.Processor] = [
        name_process,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _add_timestamp,
        structlog.processors.format_exc_info,
    ]
    # Our lines are written directly: through the standard library's logging each would cost twice as much.
    structlog.configure(
        processors=[*shared_processors, renderer],
        logger_factory=(lambda *_: lines) if is_json else structlog.WriteLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared_processors, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer, _as_text],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # pika reports every expected loss of a connection at length; our own line says it once, with the consequence.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
