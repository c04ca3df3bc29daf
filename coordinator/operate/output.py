"""The output and the end of the operator's commands: a table or JSON on standard output, one line of error.

Exit status: 0 done; 1 not found, not possible, or the outcome is not `applied`; 2 configuration or usage; 3 the
outcome is not known yet, or nobody has said whether it is done.
"""

import functools
import getpass
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar

import click
import msgspec
import structlog

from coordinator.service.errors import InvalidCommand, OutcomeUnknown, Unavailable
from coordinator.service.ids import is_uuid
from coordinator.service.json_text import time_for_people, to_json
from coordinator.service.text import printable
from coordinator.stores.admin import ChangeUnknown

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_PENDING = 3
REASON_CHARACTERS_MAX = 500
BY_CHARACTERS_MAX = 200

_DURATION = re.compile(r"([0-9]{1,5})([smhdw])")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LINE = "\n"
_CELL_CHARACTERS_MAX = 60
_CUT_CHARACTERS_MAX = 10_000

P = ParamSpec("P")
T = TypeVar("T")


class CommandRefused(click.ClickException):
    """Raised by a command that cannot do its work; the message names the value and the way out."""

    exit_code = EXIT_REFUSED

    def show(self, file: Any = None) -> None:  # noqa: ARG002
        # It may quote a lane, and that a command of a stranger's.
        click.echo(f"coordinator: {printable(self.message, keep=_LINE)}", err=True)


class MayBeDone(CommandRefused):
    """Raised where what the operator wants may be done, or may be done yet: nobody has answered."""

    exit_code = EXIT_PENDING


class Misused(CommandRefused):
    """Raised for what the operator typed: nothing was done, and the same again would do nothing either."""

    exit_code = EXIT_USAGE


def refusing(command: Callable[P, T]) -> Callable[P, T]:
    """Turn errors that an operator can meet into one line on standard error and exit status 1, 2 for wrong usage, or 3
    where it may be done all the same.

    Nothing is logged meanwhile.
    """

    @functools.wraps(command)
    def wrapped(*arguments: P.args, **options: P.kwargs) -> T:
        quiet()
        try:
            return command(*arguments, **options)
        except InvalidCommand as error:
            raise Misused(str(error)) from error
        except (OutcomeUnknown, ChangeUnknown) as error:
            raise MayBeDone(str(error)) from error
        except Unavailable as error:
            raise CommandRefused(str(error)) from error

    return wrapped


def duration(value: str) -> timedelta:
    """A number and its unit: `30m`. Raises BadParameter, as the others do."""
    found = _DURATION.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no duration: write a number and s, m, h, d or w, such as 7d")
    return timedelta(**{_UNITS[found.group(2)]: int(found.group(1))})


def deadline(value: str) -> datetime:
    """A duration from now, or a time of ISO 8601 (UTC, if it names no zone)."""
    return now() + duration(value) if _DURATION.fullmatch(value) else _time(value, "30s (from now)")


def past(value: str) -> datetime:
    """A duration before now, or a time of ISO 8601 (UTC, if it names no zone)."""
    return now() - duration(value) if _DURATION.fullmatch(value) else _time(value, "2h (ago)")


def _time(value: str, example: str) -> datetime:
    try:
        # Of the many forms of ISO 8601 the one that is read alike everywhere (RFC 3339).
        time = datetime.fromisoformat(value if _TIME.fullmatch(value) else "")
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        # The second: a zone that takes it out of the calendar.
        raise click.BadParameter(f"{value!r} is no time: write {example} or 2030-01-31T12:00:00Z") from None


def end_orders(refused: Sequence[str], pending: int, wait_s: float) -> None:
    """Print which orders a lane refused, and how many it has not carried out yet; end with the status for it."""
    for line in refused:
        click.echo(f"coordinator: {printable(line)}", err=True)
    if pending:
        click.echo(
            f"coordinator: {pending} not done within {wait_s:g} s: the orders are confirmed, and the lane carries them "
            "out when it comes to them (is it down, or paused? `coordinator status`); repeating this is safe",
            err=True,
        )
    if refused or pending:
        sys.exit(EXIT_REFUSED if refused else EXIT_PENDING)


def command_id(value: str) -> str:
    """A command's id, as it is stored: in small letters."""
    if not is_uuid(value):
        raise click.BadParameter(f"{value!r} is no command id: it must be a UUID")
    return value.lower()


def reason(value: str) -> str:
    """A text that is kept with an operator's change."""
    text = value.strip()
    if not text or len(text) > REASON_CHARACTERS_MAX or not text.isprintable():
        raise click.BadParameter(f"a reason has 1 to {REASON_CHARACTERS_MAX} printable characters")
    return text


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def now() -> datetime:
    """The time to the millisecond, the precision that every database here keeps."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def quiet() -> None:
    """Log nothing: the error that ends the command says in one line what attempts to connect would log.

    That goes for drivers, too, of which some write a traceback where a signal ends the command in the midst of a call.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    if not logging.getLogger().handlers:
        # Without any handler Python writes warnings and errors to standard error.
        logging.getLogger().addHandler(logging.NullHandler())


def as_user() -> str:
    """The user who runs this command, and the host: an order keeps them."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return printable(f"{user}@{socket.gethostname()}")[:BY_CHARACTERS_MAX]


def json_text(value: object) -> str:
    """A value as JSON in one line."""
    # Without spaces between the parts, every escaped character is within a string.
    return printable(msgspec.json.format(to_json(value), indent=-1).decode())


def print_json(value: object) -> None:
    """One JSON value."""
    click.echo(json_text(value))


def print_fields(fields: dict[str, object]) -> None:
    """A name and a value a line; those without a value are left out."""
    shown = {name: cell(value) for name, value in fields.items() if value is not None}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        first, *more = value.splitlines() or [""]
        click.echo(f"{name:<{width}}  {first}".rstrip())
        for line in more:
            click.echo(f"{'':<{width}}  {line}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns under their names; long cells are cut (JSON has them whole)."""
    cells = [[cut(cell(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in (columns, *cells):
        click.echo("  ".join(f"{value:<{width}}" for value, width in zip(row, widths, strict=True)).rstrip())


def age(at: datetime) -> str:
    """How long ago: `5 s`, `3 min`, `7 h`, `2 d`."""
    seconds = max(0, int((now() - at).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def cell(value: object) -> str:
    """A value for eyes."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return time_for_people(value, "microseconds")
    return f"{value:.1f}" if isinstance(value, float) else printable(str(value), keep=_LINE)


def cut(text: str) -> str:
    """One line of bounded length."""
    line = " ".join(text[:_CUT_CHARACTERS_MAX].split())
    return line if len(line) <= _CELL_CHARACTERS_MAX else f"{line[: _CELL_CHARACTERS_MAX - 1]}…"
