"""Lines on standard error, for structlog."""

import sys
import threading

_lock = threading.Lock()


class StandardError:
    """Writes lines, each whole and at once, to the stream of the moment: a program may put another in its place.

    Where nobody can read them, as on a full disk or behind a closed terminal, they are lost, and the process goes on.
    """

    def msg(self, line: str | bytes) -> None:
        error = sys.stderr
        if error is None:  # as it is where it was closed before the start
            return
        try:
            if isinstance(line, bytes):
                error.buffer.write(line + b"\n")
                error.buffer.flush()
            else:
                with _lock:
                    error.write(f"{line}\n")
                    error.flush()
        except (OSError, ValueError):
            pass

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg
