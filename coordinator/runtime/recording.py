"""Spans: what a process notes of its work, for tracing systems (OpenTelemetry).

A process has one recorder or, most often, none: then nothing is noted, and nothing is imported for it. To note a span
is to append it to a bounded queue; its exporter (span_export.py) takes it from there on a thread of its own.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from msgspec import Struct

from coordinator.service.draws import Draws
from coordinator.service.trace_context import TraceContext

SpanKind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = tuple[tuple[str, str | int], ...]
"""Names of OpenTelemetry's semantic conventions, and `coordinator.…` for what has none there, with their values.

No payload, no token, and nothing about a person.
"""


class CommonAttributes(Struct, frozen=True, eq=False):
    """What many spans have alike. Whoever notes them keeps this object, which is known by itself and encoded once."""

    attributes: Attributes = ()


NOTHING_COMMON: Final = CommonAttributes()

_span_draws: Final = Draws(8)
_trace_draws: Final = Draws(16)


class TraceSpan(Struct, frozen=True, gc=False):
    """One finished piece of work. Times are in nanoseconds since the Unix epoch.

    `parent_id` is the span that caused it, or empty. `links` are spans of other causes, or of other traces. `error` is
    the kind of its failure, such as `timeout`: low in number, and without details; None: it is none. `common` are
    attributes that many spans have.
    """

    context: TraceContext
    parent_id: str
    name: str
    kind: SpanKind
    began_ns: int
    ended_ns: int
    attributes: Attributes = ()
    links: tuple[TraceContext, ...] = ()
    error: str | None = None
    common: CommonAttributes = NOTHING_COMMON


Sampler = Callable[[str, bool | None], bool]
"""Whether a trace of this id is sampled here, whose parent is sampled, or is not, or is none."""


def as_the_parent(_trace_id: str, is_parent_sampled: bool | None) -> bool:
    """What began the trace has decided; what begins here is sampled."""
    return is_parent_sampled is not False


class Recorder:
    """Notes spans. Used by any thread; none of its methods waits, or raises."""

    def __init__(
        self,
        clock_ns: Callable[[], int],
        queue_max: int,
        batch_max: int,
        wake: Callable[[], object],
        samples: Sampler = as_the_parent,
    ) -> None:
        """`clock_ns` gives the time since the Unix epoch. `wake` is called once a batch of spans waits."""
        self.samples = samples
        self.clock_ns = clock_ns
        self.dropped = 0
        """How many spans found the queue full. Threads may count a few of them as one."""
        self._queue: deque[TraceSpan] = deque()
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._wake = wake

    def note(self, span: TraceSpan) -> None:
        """Keep the span, if there is room."""
        waiting = len(self._queue)
        if waiting >= self._queue_max:
            self.dropped += 1
            return
        self._queue.append(span)
        if waiting + 1 == self._batch_max:
            self._wake()

    def take(self, spans_max: int) -> list[TraceSpan]:
        """The spans that have waited longest."""
        # Others only add meanwhile.
        queue = self._queue
        return [queue.popleft() for _ in range(min(spans_max, len(queue)))]

    def begin_again(self, wake: Callable[[], object]) -> None:
        """In a forked process, what waits is its parent's."""
        self._queue.clear()
        self.dropped = 0
        self._wake = wake


def new_context(within: TraceContext) -> TraceContext:
    """The context of a new span in the same trace."""
    return TraceContext(within.trace_id, _span_draws.next().hex(), within.flags, within.tracestate)


def new_trace() -> TraceContext:
    """The context of a span that begins a trace, which is sampled."""
    return TraceContext(_trace_draws.next().hex(), _span_draws.next().hex(), "01")


_recorder: Recorder | None = None


def recorder() -> Recorder | None:
    """This process's; None: it records no spans."""
    return _recorder


def use_recorder(chosen: Recorder | None) -> None:
    """Have this process record spans from now on, or record none."""
    global _recorder  # noqa: PLW0603  # as logs and metrics, it is one of the whole process
    _recorder = chosen
