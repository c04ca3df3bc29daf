"""Log lines of a program that has not configured structlog: an application with a lane in its process, say."""

import sys

import structlog


def log_to_standard_error() -> None:
    """Have lines go to standard error, and not to the program's own output, unless it has configured structlog.

    Whatever it configures later takes the place of this.
    """
    if not structlog.is_configured():
        # The stream of the moment: a program may put another in its place.
        structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
