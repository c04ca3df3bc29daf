"""Running a command of the command line, and ending with a status that is true, whatever becomes of its output.

click by itself ends with 1 where nobody reads standard output any more, with 0 where it was closed before the start, or
with a traceback where its disk is full. But 1 says that nothing was done, and 0 that what there is to know was told.
"""

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

import click

from coordinator.exemplified import Exemplified

EXIT_UNKNOWN: Final = 3
EXIT_INTERRUPTED: Final = 130
_LOOKING: Final = frozenset({"--help", "--version", "--check", "--dry-run"})
"""With any of them a command changes nothing."""


class OutputLost(Exception):
    """Raised where standard output takes nothing. No OSError: click would take it for its own affair."""

    def __init__(self, error: OSError) -> None:
        super().__init__("it is closed" if error.errno == errno.EBADF else error.strerror)
        self.is_reader_gone = isinstance(error, BrokenPipeError)


class _Output(io.TextIOWrapper):
    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputLost(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputLost(error) from None


def run(command: click.Command, program: str | None, arguments: Sequence[str] | None = None) -> None:
    """Run it, and exit. Errors that are no click's pass through."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stdout is None:  # as it is where it was closed before the start, and click would say nothing there
        # Only for reading: whatever is written is lost, and that is an error.
        nothing = io.FileIO(os.open(os.devnull, os.O_RDONLY), "w")
        sys.stdout = _Output(io.BufferedWriter(nothing), encoding="utf-8", errors="replace", line_buffering=True)
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _Output(
            sys.stdout.buffer,
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            line_buffering=sys.stdout.line_buffering,
        )
    try:
        status = command.main(given, prog_name=program, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        try:
            error.show()
        except OSError:
            _write_nowhere(sys.stderr)
        except OutputLost:  # click shows it there where there is no standard error
            _write_nowhere(sys.stdout)
        sys.exit(error.exit_code)
    except click.Abort as error:
        say_on_error("interrupted: what was sent is not taken back")
        # click's own error hides by which signal.
        sys.exit(getattr(error.__cause__, "status", EXIT_INTERRUPTED))
    except OutputLost as error:
        _write_nowhere(sys.stdout)
        _end_without_output(error, _is_looking(command, given))
    sys.exit(status if isinstance(status, int) else 0)


def _is_looking(command: click.Command, given: Sequence[str]) -> bool:
    """Whether it changes nothing. A word that is an option's value, or an argument, says nothing of that."""
    for word in given:
        if not isinstance(command, click.Group):
            break
        # Those of operators are loaded when they are asked for.
        if (found := command.get_command(click.Context(command), word)) is not None:
            command = found
    # What follows another option may be its value.
    says_so = any(
        word in _LOOKING and not before.startswith("-") for before, word in zip(("", *given), given, strict=False)
    )
    is_known = isinstance(command, Exemplified) and (
        command.looks or (command.acts_by is not None and command.acts_by not in given)
    )
    return says_so or is_known or isinstance(command, click.Group)


def _end_without_output(error: OutputLost, is_looking: bool) -> None:
    """What a pager or `head` does not want any more is no fault."""
    if error.is_reader_gone and is_looking:
        sys.exit(0)
    text = f"standard output cannot be written: {error}"
    if is_looking:
        say_on_error(text)
        sys.exit(1)
    say_on_error(f"{text}. What the command was to do may be done: look (`coordinator status`) before it is repeated")
    sys.exit(EXIT_UNKNOWN)


def _write_nowhere(stream: TextIO) -> None:
    """What is still to be written, at the exit: an error there would change the status."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


def say_on_error(text: str) -> None:
    """One line on standard error. With nobody to tell, the status has to do."""
    try:
        click.echo(f"coordinator: {text}", err=True)
    except OSError:
        _write_nowhere(sys.stderr)
