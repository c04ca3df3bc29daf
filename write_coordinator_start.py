"""The command `coordinator`, from its first line on: Ctrl-C ends it in a word, whatever it is at.

It is a module beside the package, since importing that takes most of the time in which nobody takes a Ctrl-C.
"""

import atexit
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
_NOTHING_DONE = b"\ncoordinator: interrupted: nothing was done\n"
_MAYBE_DONE = b"\ncoordinator: interrupted: what was sent is not taken back\n"


def main(command: str | None = None, program: str | None = None) -> None:
    """Run what the command line says, or one of its commands as a program of its own, called `program`; and exit.

    While it imports, Ctrl-C ends it with status 130. While the command runs it is the command's affair. Once that is
    over, its own words and its own status count. Who has SIGINT ignored, as `nohup` and `&` do, has it so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        _run(command, program)
        return
    signal.signal(signal.SIGINT, partial(_end, INTERRUPTED, _NOTHING_DONE))
    # First to be registered, and so the last to be called: what follows takes none of Python's handlers.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    status: object = 0
    try:
        _run(command, program, is_interruptible=True)
    except SystemExit as error:
        status = error.code
        raise
    except KeyboardInterrupt:
        _end(INTERRUPTED, _MAYBE_DONE)
    except BaseException:
        status = 1
        raise
    finally:
        signal.signal(signal.SIGINT, partial(_end, status if isinstance(status, int) else int(status is not None), b""))


def _run(command: str | None, program: str | None, *, is_interruptible: bool = False) -> None:
    from coordinator.cli import main as run  # noqa: PLC0415  # it takes time

    if is_interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run(command, program)


def _end(status: int, words: bytes, _number: int = 0, _frame: FrameType | None = None) -> None:
    if words and sys.stderr is not None:
        with suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), words)
    os._exit(status)
