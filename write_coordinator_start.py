"""The command `coordinator`, from its first line on: Ctrl-C and SIGTERM end it in a word, whatever it is at.

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
_ENDING = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
"""The signals that end a command, and how they are where nobody has changed it."""
_STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGHUP)
"""Statuses with which a command ends by one of them, and by nothing else."""


class Stopped(KeyboardInterrupt):
    """Raised by a signal that ends a command: as Ctrl-C does, so that it leaves nothing half done that it can undo."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


def main(command: str | None = None, program: str | None = None) -> None:
    """Run what the command line says, or one of its commands as a program of its own, called `program`; and exit.

    While it imports, each of these signals ends it with status 128 and its number. While the command runs they are the
    command's affair. Once that is over, its own words and its own status count. Who has one ignored, as `nohup` and `&`
    do, has it so.
    """
    ending = [number for number, before in _ENDING.items() if signal.getsignal(number) is before]
    for number in ending:
        signal.signal(number, partial(_end, 128 + number, _NOTHING_DONE))
        # First to be registered, and so the last to be called: what follows takes none of Python's handlers.
        atexit.register(signal.signal, number, signal.SIG_IGN)
    status: object = 0
    try:
        _run(command, program, ending)
    except SystemExit as error:
        status = error.code
        if status in _STOPPED:
            # Python would wait for a thread that asks a database, also for one that never gets an answer.
            with suppress(Exception):
                sys.stdout.flush()
            _end(status, b"")
        raise
    except KeyboardInterrupt as error:
        _end(error.status if isinstance(error, Stopped) else INTERRUPTED, _MAYBE_DONE)
    except BaseException:
        status = 1
        raise
    finally:
        ended = partial(_end, status if isinstance(status, int) else int(status is not None), b"")
        for number in ending:
            signal.signal(number, ended)


def _run(command: str | None, program: str | None, ending: list[signal.Signals]) -> None:
    from coordinator.cli import main as run  # noqa: PLC0415  # it takes time

    for number in ending:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else _stop)
    run(command, program)


def _stop(number: int, _frame: FrameType | None) -> None:
    # Another one ends what does not stop.
    signal.signal(number, signal.SIG_DFL)
    raise Stopped(number)


def _end(status: int, words: bytes, _number: int = 0, _frame: FrameType | None = None) -> None:
    if words and sys.stderr is not None:
        with suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), words)
    if status in _STOPPED:
        # By the signal itself, where that ends it: a supervisor tells from that a process that it has stopped from one
        # that has failed. A shell shows the same status.
        signal.signal(status - 128, signal.SIG_DFL)
        os.kill(os.getpid(), status - 128)
    os._exit(status)
