"""`coordinator dead`: the dead letters of the lanes and of their effects.

They are rows of the lanes' databases, and are read there. Only orders change them, which the lane carries out in its
sequence: a letter is replayed once, or discarded once, even if several operators ask for it several times.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import click
import msgspec
from msgspec import UNSET, UnsetType

from coordinator.arguments import Seconds, Whole
from coordinator.exemplified import ExemplifiedGroup
from coordinator.lane.control import DiscardLetter, Replayed, ReplayLetter
from coordinator.operate import output
from coordinator.operate.acts import reason_option
from coordinator.operate.asked_lanes import AskedLanes
from coordinator.operate.giving_orders import OrderAnswer, give
from coordinator.operate.output import (
    CommandRefused,
    Misused,
    json_option,
    json_text,
    print_json,
    print_table,
    refusing,
)
from coordinator.operate.selected_letters import (
    SOURCE,
    Letter,
    Selection,
    described,
    filtering,
    found,
    places,
    print_letter,
    selecting,
    summarized,
    whole,
)
from coordinator.protocol.wire import BODY_BYTES_MAX
from coordinator.service.commands import Command, repeated
from coordinator.service.errors import Unavailable
from coordinator.service.nesting import NESTING_MAX, is_too_deep
from coordinator.service.outcome import Outcome
from coordinator.service.repeated_names import repeated_name
from coordinator.stores.admin import LaneAdmin, LetterQuery, LetterSummary
from coordinator.stores.lane_tables import DeadLetter

ARGUMENTS_BYTES_MAX = BODY_BYTES_MAX - 4096
"""The largest arguments that an order carries, since a message has room for no more."""
_DISCARDED_AT_ONCE = 100

wait_option = click.option(
    "--wait", "wait_s", type=Seconds(0), default=30.0, show_default=True, help="Seconds to wait for the lane."
)


@click.group(cls=ExemplifiedGroup, example="dead list seats")
def dead() -> None:
    """Dead letters: commands that could not be applied, and effects that no worker understood.

    They stay until they are replayed or discarded. Each has a number in its lane's database.
    """


@dead.command("list", example="dead list seats --code handler_error --since 2h", looks=True)
@click.argument("sources", nargs=-1, metavar="[LANE]...", type=SOURCE)
@filtering
@click.option("--command", "command_id", type=output.command_id, help="Only those of this command.")
@click.option("--limit", type=Whole(1, 100_000), default=100, show_default=True, help="Letters of each LANE.")
@click.option("--after", type=Whole(0), default=0, help="Only with a higher number, of one LANE.")
@json_option
@refusing
def list_dead(
    sources: tuple[str, ...], query: LetterQuery, command_id: str | None, limit: int, after: int, *, as_json: bool
) -> None:
    """List the dead letters of LANEs (all, if none is named), oldest first.

    The lane `orders` has the letters of its effects too; `effects.orders` names these only.
    """
    if after and len(sources) != 1:
        raise click.UsageError("--after needs one LANE: numbers are of one lane's database")
    letters: list[Letter] = []
    hints: list[str] = []
    asked = AskedLanes(are_named=bool(sources))
    for lane, target in places(sources):
        wanted = msgspec.structs.replace(query, target=target, command_id=command_id)
        page = asked.ask(lane, partial(_page, wanted, after, limit + 1)) or []
        letters += [Letter(lane, summary) for summary in page[:limit]]
        if len(page) > limit:
            hints.append(f"there are more: coordinator dead list {target or lane} --after {page[limit - 1].id}")

    def table() -> None:
        columns = ("LANE", "LETTER", "COMMAND ID", "TYPE", "CODE", "COPIES", "SINCE", "REASON")
        rows = [letter.summary for letter in letters]
        print_table(
            columns,
            [
                (row.target, row.id, row.command_id, row.type, row.code, row.copies, row.dead_at, row.reason)
                for row in rows
            ],
        )

    shown = [summarized(letter) for letter in letters]
    asked.show(shown, table, hints, as_json=as_json, is_empty=not letters)


def _page(query: LetterQuery, after: int, limit: int, admin: LaneAdmin) -> list[LetterSummary]:
    return admin.letters(query, after, limit)


@dead.command(example="dead show --letter 7 --lane seats", looks=True)
@selecting
@json_option
@refusing
def show(selection: Selection, *, as_json: bool) -> None:
    """Show the dead letters of command ID whole: arguments, reason, traceback, and what came with them."""
    letters = whole(found(selection))
    if as_json:
        _print_json_list(described(letter, row) for letter, row in letters)
        return
    for letter, row in letters:
        print_letter(letter, row)


@dead.command(example="dead replay --all --lane seats --code handler_error --since 2h")
@selecting
@click.option("--args", "arguments", metavar="JSON", help="Arguments in place of what it has (`-`: standard input).")
@click.option("--without-deadline", is_flag=True, help="Apply it although its deadline is over.")
@click.option("--as-system", is_flag=True, help="Let a stranger's command do what only the system may: see above.")
@click.option("--as-sender", is_flag=True, help="Let its sender's scopes count for --args, too: see above.")
@click.option("--alone", is_flag=True, help="Apply it although what asked for it was told that it failed: see above.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@reason_option
@wait_option
@json_option
@refusing
def replay(
    selection: Selection,
    arguments: str | None,
    reason: str | None,
    wait_s: float,
    *,
    without_deadline: bool,
    as_system: bool,
    as_sender: bool,
    alone: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send the command of dead letter ID once more, behind the queued ones, and remove the letter.

    This is an order to the lane, which carries it out in one transaction: if you replay twice, or something crashes
    meanwhile, the command is applied once. It is sent under a NEW id, derived from the old one and printed: the old id
    is settled as failed, and would only return that. A command that was never logged keeps its id, and so does an
    effect, whose id is its idempotency key at the other side. If the command fails again, it becomes another letter.
    Commands that wait behind it (`parked`) go on after it, unless it fails again.

    Use --as-system only for a command that is certainly the system's own and came as a stranger's: one that the earlier
    release sent through the exchange `writes`, and that an upgrade without draining left in a queue (code
    forbidden_command_type, not_from_system). It lets any other publisher do what only the system may, so look at the
    letter with `show` first.

    With --args the command is still asked for in its sender's name, but without the scopes of his credential: a rule
    that needs one refuses it (`forbidden`). --as-sender lets them count: you vouch that he may do what you wrote.

    What asked for a command by a continuation, as a saga asks for its steps, was told at once that it failed, and has
    gone back. A replay is nobody's step any more, so it is refused (`already_told`): have it asked for anew, and
    discard the letter. --alone applies it all the same.

    Exit status 1: some cannot be replayed, and stay; 3: the lane has not done it yet, and will.
    """
    args = UNSET if arguments is None else _object(arguments)
    letters = found(selection)
    if args is not UNSET and len(letters) != 1:
        raise CommandRefused(f"--args is for one letter, and {len(letters)} are meant")
    if dry_run:
        _print_dry(letters, "replay", as_json=as_json)
        return

    def order(letter: Letter) -> Command:
        return ReplayLetter(
            letter=letter.summary.id,
            args=args,
            without_deadline=without_deadline,
            as_system=as_system,
            as_sender=as_sender,
            alone=alone,
            by=output.as_user(),
            reason=reason or "",
        )

    def words(outcome: Outcome) -> str:
        return f"replayed as {msgspec.json.decode(outcome.result, type=Replayed).replayed_as}"

    orders = _OrderResults(as_json=as_json)
    orders.give(letters, order, words, wait_s)
    orders.end(letters, wait_s)


@dead.command(example='dead discard --letter 7 --lane seats --reason "a test"')
@selecting
@click.option("--dry-run", is_flag=True, help="Only say which.")
@reason_option
@wait_option
@json_option
@refusing
def discard(selection: Selection, reason: str | None, wait_s: float, *, dry_run: bool, as_json: bool) -> None:
    """Remove the dead letters of command ID for good, and print them (whole: --json).

    Commands that wait behind them go on.

    Exit status 3: the lane has not done it yet, and will.
    """
    letters = found(selection)
    if dry_run:
        _print_dry(letters, "discard", as_json=as_json)
        return
    orders = _OrderResults(as_json=as_json)
    for start in range(0, len(letters), _DISCARDED_AT_ONCE):
        rows = {(letter.lane, row.id): row for letter, row in whole(letters[start : start + _DISCARDED_AT_ONCE])}
        there = [each for each in letters[start : start + _DISCARDED_AT_ONCE] if (each.lane, each.summary.id) in rows]
        if not as_json:
            # Printed first, so that a letter stays if it cannot be printed.
            for letter in there:
                print_letter(letter, rows[letter.lane, letter.summary.id])
        orders.give(
            there,
            lambda letter: DiscardLetter(letter=letter.summary.id, by=output.as_user(), reason=reason or ""),
            lambda _: "discarded",
            wait_s,
            rows,
        )
    orders.end(letters, wait_s)


class _OrderResults:
    """The results of the orders for letters, each printed as soon as it is known."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._results: list[dict[str, object]] = []
        self._refused: list[str] = []
        self._pending = 0

    def give(
        self,
        letters: Sequence[Letter],
        order: Callable[[Letter], Command],
        words: Callable[[Outcome], str],
        wait_s: float,
        rows: Mapping[tuple[str, int], DeadLetter] | None = None,
    ) -> None:
        """`words` describe the result; `rows` are the whole letters, for output as JSON."""
        for lane, its in itertools.groupby(letters, lambda letter: letter.lane):
            here = list(its)

            def on_answer(answer: OrderAnswer, here: list[Letter] = here) -> None:
                letter, outcome = here[answer.position], answer.outcome
                if self._as_json:
                    row = None if rows is None else rows[letter.lane, letter.summary.id]
                    self._results.append(_answered(letter, row, outcome))
                if outcome is None:
                    self._pending += 1
                elif outcome.status != "applied":
                    error = outcome.error
                    why = f"{error.code}: {error.message}" if error is not None else outcome.status
                    self._refused.append(f"{letter.lane}: {letter.name} stays: {why}")
                elif not self._as_json:
                    click.echo(f"{letter.lane}: {letter.name} {words(outcome)}")

            try:
                give(lane, [order(letter) for letter in here], wait_s, on_answer)
            except Unavailable:
                # The results so far are printed, even if an error ends the command.
                self._print()
                raise

    def end(self, letters: Sequence[Letter], wait_s: float) -> None:
        """Print what is not done, and end with the exit status for it."""
        if not letters:
            click.echo("no dead letter is meant", err=True)
        self._print()
        output.end_orders(self._refused, self._pending, wait_s)

    def _print(self) -> None:
        if self._as_json:
            print_json(self._results)


def _answered(letter: Letter, row: DeadLetter | None, outcome: Outcome | None) -> dict[str, object]:
    summary = letter.summary
    fields: dict[str, object] = {"lane": letter.lane, "letter": summary.id, "target": summary.target}
    fields["command_id"] = summary.command_id
    if row is not None:
        fields = described(letter, row)
    if outcome is None:
        return fields | {"status": "pending"}
    if outcome.status != "applied":
        return fields | {"status": outcome.status, "error": outcome.error}
    return fields | msgspec.json.decode(outcome.result, type=dict[str, object]) | {"status": "applied"}


def _object(text: str) -> msgspec.Raw | UnsetType:
    raw = (sys.stdin.buffer.read() if text == "-" else text.encode(errors="surrogateescape")).strip()
    if len(raw) > ARGUMENTS_BYTES_MAX:
        raise Misused(f"--args has {len(raw)} bytes; an order carries {ARGUMENTS_BYTES_MAX} at most")
    if is_too_deep(raw):
        raise Misused(f"--args is nested deeper than {NESTING_MAX} levels")
    try:
        raw.decode()
        msgspec.json.decode(raw, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Misused(f"--args must be a JSON object: {error}") from None
    if (name := repeated_name(raw)) is not None:
        raise Misused(f"--args: {repeated(name)}")
    return msgspec.Raw(raw)


def _print_dry(letters: list[Letter], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json([summarized(letter) for letter in letters])
        return
    for letter in letters:
        click.echo(
            f"{letter.lane}: {letter.name} of type {letter.summary.type} is meant: its lane would be told to {what} it"
        )


def _print_json_list(values: Iterable[object]) -> None:
    """Print a JSON array, one element after the other, since all of them together may be large."""
    parts: Iterator[str] = map(json_text, values)
    click.echo("[", nl=False)
    for number, part in enumerate(parts):
        click.echo(part if number == 0 else f",{part}", nl=False)
    click.echo("]")
