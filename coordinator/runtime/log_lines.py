"""Lines of the log: structlog's events, in the names of OpenTelemetry's log data model, one line each.

https://opentelemetry.io/docs/specs/otel/logs/data-model/: an event's name is the `body`. What the model has as lists is
flat here, so that a line can be searched as it is: the resource (`service.name`, `process.pid`), the scope, and the
attributes stand beside `timestamp`, `severity_text`, `severity_number`, `body`, `trace_id` and `span_id`.
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from coordinator.runtime.settings import TelemetrySettings
from coordinator.runtime.standard_error import StandardError
from coordinator.service.text import printable

PERSONAL: Final = "personal"
"""The name under which an event has attributes that may be about a person. Its line has them only where a setting says
so: who asked and from where, a path, the text of an error, which may repeat what somebody sent."""
SEVERITY: Final = {"debug": ("DEBUG", 5), "info": ("INFO", 9), "warning": ("WARN", 13), "error": ("ERROR", 17)}
"""By the levels' names: the model's short names, and the first number of each range."""
_FATAL: Final = ("FATAL", 21)
_RENAMED: Final = {"exception": "exception.stacktrace", "logger": "otel.scope.name"}


def configure_logging(settings: TelemetrySettings, process: str) -> None:
    """Send structlog's and the libraries' logs to standard error; every line names the process."""
    is_json = settings.log_format == "json" or (settings.log_format == "auto" and not _is_terminal())
    form = _LineForm(process, is_personal=settings.log_personal)
    shared_processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.format_exc_info,
        form.record if is_json else form.for_eyes,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(_to_json) if is_json else structlog.dev.ConsoleRenderer(colors=_is_terminal())
    )
    lines = StandardError()
    # Our lines are written directly: through the standard library's logging each would cost twice as much.
    structlog.configure(
        processors=[*shared_processors, renderer],
        logger_factory=lambda *_: lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared_processors],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer, _as_text],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # pika reports every expected loss of a connection at length; our own line says it once, with the consequence.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # At DEBUG drivers would log statements with what is in them.
    for driver in ("pymongo", "sqlalchemy", "aiosqlite", "aiomysql", "psycopg"):
        logging.getLogger(driver).setLevel(logging.WARNING)


def _is_terminal() -> bool:
    return sys.stderr.isatty()


class _LineForm:
    """The form of one process's lines."""

    def __init__(self, process: str, *, is_personal: bool) -> None:
        # As spans have it (`resource_of`): both are joined by it.
        self._process = process.replace(" ", "-")
        self._pid = os.getpid()
        self._is_personal = is_personal

    def record(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """A record of the log data model."""
        text, number = SEVERITY.get(event.pop("level"), _FATAL)
        record: dict[str, Any] = {
            "timestamp": _now(),
            "severity_text": text,
            "severity_number": number,
            "body": event.pop("event"),
            "service.name": self._process,
            "process.pid": self._pid,
        }
        self._with_personal(event)
        for name, renamed in _RENAMED.items():
            if name in event:
                event[renamed] = event.pop(name)
        # The fields come first, and no attribute takes the place of one.
        return {**record, **event, **record}

    def for_eyes(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """The event as it is, for a person at a terminal."""
        self._with_personal(event)
        for name, value in event.items():
            # Errors quote strangers. What is no text is written as Python does, which escapes the same.
            if isinstance(value, str):
                event[name] = printable(value, keep="\n")
        event["timestamp"] = _now()
        event["process"] = self._process
        return event

    def _with_personal(self, event: structlog.typing.EventDict) -> None:
        personal = event.pop(PERSONAL, None)
        if self._is_personal and personal:
            event.update(personal)


def _now() -> str:
    # structlog's takes three times as long.
    return f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _to_json(event: object, **_: object) -> bytes:
    try:
        line = msgspec.json.encode(event, enc_hook=repr)
        # Lines quote strangers, and are read at terminals, too: escaped, it is the same JSON.
        return line if line.isascii() and b"\x7f" not in line else printable(line.decode()).encode()
    except (TypeError, ValueError):
        # A lone surrogate in somebody's text, or an integer that msgspec does not take.
        return json.dumps(event, default=repr).encode()


def _as_text(_: object, __: str, line: Any) -> str:
    return line.decode() if isinstance(line, bytes) else str(line)
