"""Lines of the log, as they come out."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog

from coordinator.runtime.settings import TelemetrySettings
from coordinator.runtime.telemetry import begin_stages, configure_logging, current_stages, trace_from


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, configuration = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    yield
    structlog.configure(**configuration)
    structlog.contextvars.clear_contextvars()
    root.handlers = handlers
    root.setLevel(level)


def lines_of(action: Callable[[], object], capture: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """What is logged meanwhile."""
    configure_logging(TelemetrySettings(), "gateway-users")
    action()
    return [json.loads(line) for line in capture.readouterr().err.splitlines()]


def test_a_line_is_one_json_object_with_its_process_level_and_time(capfd: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        structlog.contextvars.bind_contextvars(trace_id="t")
        log = structlog.get_logger("gateway")
        log.info("request", status=200, stages={"validate": 0.1})
        log.debug("not shown")

    (line,) = lines_of(act, capfd)
    assert list(line) == ["status", "stages", "event", "process", "pid", "trace_id", "level", "timestamp"]
    assert (line["event"], line["status"], line["stages"]) == ("request", 200, {"validate": 0.1})
    assert (line["process"], line["level"], line["trace_id"]) == ("gateway-users", "info", "t")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", str(line["timestamp"]))


def test_an_exception_is_in_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        try:
            _ = 7 / 0
        except ZeroDivisionError:
            structlog.get_logger("gateway").exception("internal_error")

    (line,) = lines_of(act, capfd)
    assert line["level"] == "error"
    assert "ZeroDivisionError: division by zero" in str(line["exception"])


def test_what_libraries_log_looks_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    (line,) = lines_of(lambda: logging.getLogger("somebody").warning("beware of %s", "dogs"), capfd)
    assert (line["event"], line["level"], line["logger"]) == ("beware of dogs", "warning", "somebody")
    assert str(line["timestamp"]).endswith("Z")


def test_a_log_that_nobody_reads_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging(TelemetrySettings(), "gateway-users")
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    structlog.get_logger("gateway").info("request")


def test_stages_are_those_of_the_task_from_where_they_begin() -> None:
    stages = begin_stages()
    assert current_stages() is stages


def test_a_trace_is_new_or_the_callers() -> None:
    first, second = trace_from(None), trace_from(None)
    for trace in (first, second):
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace.traceparent)
    assert first.trace_id != second.trace_id
    assert first.span_id != second.span_id
    theirs = trace_from(f"00-{first.trace_id}-{first.span_id}-00")
    assert (theirs.trace_id, theirs.flags) == (first.trace_id, "00")
