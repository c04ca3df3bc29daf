"""Lines of the log, as they come out: in the names of OpenTelemetry's log data model."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from coordinator.runtime.log_lines import _LineForm, configure_logging
from coordinator.runtime.settings import TelemetrySettings
from coordinator.runtime.span_export import resource_of
from coordinator.runtime.trace_settings import TraceSettings


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, configuration = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    yield
    structlog.configure(**configuration)
    structlog.contextvars.clear_contextvars()
    root.handlers = handlers
    root.setLevel(level)


def lines_of(
    action: Callable[[], object], capture: pytest.CaptureFixture[str], **settings: object
) -> list[dict[str, object]]:
    """What is logged meanwhile."""
    configure_logging(TelemetrySettings(**settings), "gateway-users")  # type: ignore[arg-type]
    action()
    return [json.loads(line) for line in capture.readouterr().err.splitlines()]


def test_a_line_is_one_json_object_with_its_process_level_and_time(capfd: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        structlog.contextvars.bind_contextvars(trace_id="t")
        log = structlog.get_logger("gateway")
        log.info("request", status=200, stages={"validate": 0.1})
        log.debug("not shown")

    (line,) = lines_of(act, capfd)
    fields = ["timestamp", "severity_text", "severity_number", "body", "service.name", "process.pid"]
    assert list(line)[: len(fields)] == fields
    assert set(line) == {*fields, "trace_id", "status", "stages"}
    assert (line["body"], line["status"], line["stages"]) == ("request", 200, {"validate": 0.1})
    assert (line["service.name"], line["process.pid"], line["trace_id"]) == ("gateway-users", os.getpid(), "t")
    assert (line["severity_text"], line["severity_number"]) == ("INFO", 9)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", str(line["timestamp"]))


def test_an_exception_is_in_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        try:
            _ = 7 / 0
        except ZeroDivisionError:
            structlog.get_logger("gateway").exception("internal_error")

    (line,) = lines_of(act, capfd)
    assert (line["severity_text"], line["severity_number"]) == ("ERROR", 17)
    assert "ZeroDivisionError: division by zero" in str(line["exception.stacktrace"])


def test_what_libraries_log_looks_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    (line,) = lines_of(lambda: logging.getLogger("somebody").warning("beware of %s", "dogs"), capfd)
    assert (line["body"], line["severity_text"], line["otel.scope.name"]) == ("beware of dogs", "WARN", "somebody")
    assert line["service.name"] == "gateway-users"
    assert str(line["timestamp"]).endswith("Z")


@pytest.mark.parametrize("form", ["json", "console", "unconfigured"])
@pytest.mark.parametrize("is_closed", [True, False])
def test_a_log_that_nobody_reads_ends_nothing(form: str, *, is_closed: bool) -> None:
    """Its reader is gone, or its disk is full."""
    program = (
        "import sys, structlog\n"
        "from coordinator.runtime.log_lines import configure_logging\n"
        "from coordinator.runtime.settings import TelemetrySettings\n"
        "from coordinator.runtime.unconfigured_log import log_to_standard_error\n"
        "log_to_standard_error()\n"
        f"if {form!r} != 'unconfigured':\n"
        f"    configure_logging(TelemetrySettings(log_format={form!r}), 'gateway-users')\n"
        f"if {is_closed}:\n"
        "    sys.stderr.close()\n"
        "    structlog.get_logger('x').warning('lane_suspended', lane='users')\n"
        "    sys.stderr = None\n"
        "structlog.get_logger('x').warning('lane_suspended', lane='users')\n"
        "print('it goes on')\n"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, text=True, check=False, timeout=60
        )
    assert done.stdout == "it goes on\n"


def test_the_severities_are_those_of_the_model(capfd: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        log = structlog.get_logger("gateway")
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(log, level)("x")

    lines = lines_of(act, capfd, log_level="DEBUG")
    said = [(line["severity_text"], line["severity_number"]) for line in lines]
    assert said == [("DEBUG", 5), ("INFO", 9), ("WARN", 13), ("ERROR", 17), ("FATAL", 21)]


def test_no_attribute_takes_the_place_of_a_field(capfd: pytest.CaptureFixture[str]) -> None:
    (line,) = lines_of(lambda: structlog.get_logger("x").info("request", body="theirs", timestamp="theirs"), capfd)
    assert line["body"] == "request"
    assert line["timestamp"] != "theirs"


@pytest.mark.parametrize("is_wanted", [False, True])
def test_what_may_be_about_a_person_is_there_only_where_it_is_wanted(
    capfd: pytest.CaptureFixture[str], *, is_wanted: bool
) -> None:
    def act() -> None:
        structlog.get_logger("x").info("request", status=200, personal={"user.id": "ada@example.org"})

    (line,) = lines_of(act, capfd, log_personal=is_wanted)
    assert line.get("user.id") == ("ada@example.org" if is_wanted else None)
    assert "personal" not in line
    configure_logging(TelemetrySettings(log_format="console", log_personal=is_wanted), "gateway-users")
    act()
    assert ("ada@example.org" in capfd.readouterr().err) is is_wanted


def test_lines_for_eyes_give_a_terminal_no_orders(capfd: pytest.CaptureFixture[str]) -> None:
    """They quote strangers: in errors, and in what libraries say."""
    hostile = "a\x1b[2J\x9b31m\u202e\x07"
    configure_logging(TelemetrySettings(log_format="console", log_personal=True), "gateway-users")
    log, error = structlog.get_logger("x"), ValueError(hostile)
    log.error(hostile, reason=hostile, many=[hostile], personal={"error": hostile}, exc_info=error)
    logging.getLogger("a library").error("it says %s", hostile)
    shown = capfd.readouterr().err
    assert [line for line in shown.split("\n") if not line.isprintable()] == []
    assert shown.count("\\u009b31m") == 5  # the event, two attributes, the traceback, the library


def test_lines_for_machines_give_a_terminal_no_orders_either(capfd: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2J\x9b31m\u202e\x07\x7f\u200b\U000e0041\n"
    configure_logging(TelemetrySettings(log_format="json"), "gateway-users")
    structlog.get_logger("x").error("said", reply_to=hostile, many=[hostile], name="Zoë")
    logging.getLogger("a library").error("it says %s", hostile)
    shown = capfd.readouterr().err
    assert [line for line in shown.split("\n") if not line.isprintable()] == []
    ours, library = map(json.loads, shown.splitlines())
    assert (ours["reply_to"], ours["many"], library["body"]) == (hostile, [hostile], f"it says {hostile}")
    assert "Zoë" in shown


def test_drivers_do_not_log_statements_with_what_is_in_them(capfd: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        for name in ("pymongo.command", "sqlalchemy.engine", "aiosqlite"):
            logging.getLogger(name).debug("insert Ada")

    assert lines_of(act, capfd, log_level="DEBUG") == []


def test_lines_are_for_eyes_at_a_terminal_and_json_elsewhere() -> None:
    program = (
        "import structlog\n"
        "from coordinator.runtime.log_lines import configure_logging\n"
        "from coordinator.runtime.settings import TelemetrySettings\n"
        "configure_logging(TelemetrySettings(), 'gateway-users')\n"
        "structlog.get_logger('x').warning('lane_lost', lane='users')\n"
    )
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(piped.stderr)["body"] == "lane_lost"
    assert piped.stdout == ""
    terminal, end = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", program], stderr=end, close_fds=True) as process:
        assert process.wait(60) == 0
    os.close(end)
    shown = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert "lane_lost" in shown
    assert not shown.lstrip().startswith("{")


def test_the_name_of_a_process_is_that_of_its_spans() -> None:
    """A log and a trace of one process are joined by it."""
    name = "coordinator users"
    record = _LineForm(name, is_personal=False).record(None, "", {"level": "info", "event": "batch"})
    assert record["service.name"] == resource_of(TraceSettings(), name, "1")["service.name"] == "coordinator-users"
