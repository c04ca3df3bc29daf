"""Traces of requests, and their stages."""

import re

from coordinator.runtime.telemetry import begin_stages, current_stages, trace_from


def test_stages_are_those_of_the_task_from_where_they_begin() -> None:
    stages = begin_stages(trace_from(None))
    assert current_stages() is stages


def test_a_trace_is_new_or_the_callers() -> None:
    first, second = trace_from(None), trace_from(None)
    for trace in (first, second):
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace.traceparent)
    assert first.trace_id != second.trace_id
    assert first.span_id != second.span_id
    theirs = trace_from(f"00-{first.trace_id}-{first.span_id}-00")
    assert (theirs.trace_id, theirs.flags) == (first.trace_id, "00")
