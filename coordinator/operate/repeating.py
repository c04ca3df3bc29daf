"""Showing something again and again, until Ctrl-C: on a terminal in the same place, elsewhere one below the other."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from shutil import get_terminal_size
from typing import Final

import click

from coordinator.arguments import Whole

_HOME: Final = "\x1b[H"
_END_OF_LINE: Final = "\x1b[K"
_BELOW: Final = "\x1b[J"
_CLEAR: Final = "\x1b[2J"

rounds_option = click.option("--rounds", type=Whole(1, 1_000_000), help="Stop after so many.")


class Screen:
    """Where frames are shown. `is_plain`: they are read by a program, and each is left as it is."""

    def __init__(self, *, is_plain: bool) -> None:
        self._is_plain = is_plain
        self._is_terminal = not is_plain and sys.stdout.isatty()
        self._is_first = True

    def show(self, title: str, draw: Callable[[], object]) -> None:
        """Print what `draw` prints to standard output, with the time and a title above it."""
        if self._is_plain:
            draw()
            sys.stdout.flush()
            return
        kept = io.StringIO()
        with redirect_stdout(kept):
            draw()
        head = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}  {title}"
        lines = [head, "", *kept.getvalue().rstrip("\n").split("\n")]
        if self._is_terminal:
            # Over what is there, line by line: a screen that is cleared first flickers.
            size = get_terminal_size()
            shown = "\n".join(f"{line}{_END_OF_LINE}" for line in _fitting(lines, size.columns, size.lines - 1))
            text = f"{_CLEAR if self._is_first else ''}{_HOME}{shown}\n{_BELOW}"
        else:
            text = ("" if self._is_first else "\n") + "\n".join(lines) + "\n"
        self._is_first = False
        sys.stdout.write(text)
        sys.stdout.flush()


def numbered(rounds: int | None) -> Iterator[int]:
    """0, 1 and so on, `rounds` of them, or for ever."""
    number = 0
    while rounds is None or number < rounds:
        yield number
        number += 1


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C is how one leaves: it ends what is inside, and is no failure. Another signal has its own status."""
    try:
        yield
    except KeyboardInterrupt as error:
        if hasattr(error, "status"):
            raise
        # The terminal has written ^C.
        click.echo()


def _fitting(lines: list[str], columns: int, rows: int) -> list[str]:
    """What a terminal has room for: a line that goes on below would push the first ones out."""
    if len(lines) > rows > 1:
        hidden = len(lines) - rows + 1
        lines = [*lines[: rows - 1], f"… {hidden} more lines: name fewer lanes, or make the window larger"]
    return [line if len(line) <= columns else f"{line[: columns - 1]}…" for line in lines]
