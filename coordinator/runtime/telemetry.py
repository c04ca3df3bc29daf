"""Trace context, and the time that a request spends in each stage."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from coordinator.runtime.recording import recorder
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
    """How long one request spent in each stage, in milliseconds.

    `trace` is the span about the request; None: they are of something else, such as one command of several.
    """

    def __init__(self, trace: TraceContext | None = None) -> None:
        self.trace = trace
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


def begin_stages(trace: TraceContext) -> Stages:
    """Collect the stages of the current task from here on: it serves the request that this span is about."""
    stages = Stages(trace)
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
