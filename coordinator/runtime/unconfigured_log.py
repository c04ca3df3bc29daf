"""Log lines of a program that has not configured structlog: an application with a lane in its process, say."""

import structlog

from coordinator.runtime.standard_error import StandardError


def log_to_standard_error() -> None:
    """Have lines go to standard error, and not to the program's own output, unless it has configured structlog.

    Whatever it configures later takes the place of this.
    """
    if not structlog.is_configured():
        structlog.configure(logger_factory=lambda *_: StandardError())
