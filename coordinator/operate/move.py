"""`coordinator move`: a lane goes on in another database, with its rows, ids, versions, log and sequence."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import click
from msgspec import Struct
from msgspec.structs import asdict

from coordinator.arguments import LANE, TEXT
from coordinator.exemplified import Exemplified
from coordinator.operate.acts import act_of, reason_option
from coordinator.operate.move_copy import TableComparison
from coordinator.operate.move_left import Keys, in_words
from coordinator.operate.move_steps import (
    STOPPED,
    MovedLane,
    MoveRefused,
    MoveSide,
    behind_the_switch,
    cancel_at,
    forget_notes,
)
from coordinator.operate.moving import Mover
from coordinator.operate.output import (
    EXIT_REFUSED,
    CommandRefused,
    Misused,
    json_option,
    now,
    print_json,
    print_table,
    refusing,
)
from coordinator.registry import registry
from coordinator.runtime.addresses import WITHOUT_SERVER, Address, address_of, parse_address
from coordinator.runtime.settings import DatabaseSettings, LaneSettings, load
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.service.service import Service
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.idempotency import NEW_LANE_COUNTS_S
from coordinator.stores.kinds import kind_of
from coordinator.stores.moves import LaneMove
from coordinator.stores.port import NotAdmitted, StoreError, UnfitTables
from coordinator.stores.sqlite.file import HeldFile, file_of
from coordinator.worker.accepted_check import check_nothing_waits
from coordinator.worker.holder import holder_name

GATEWAYS_LOOK_S: Final = NEW_LANE_COUNTS_S + 5.0


class _MoveAsked(Struct, frozen=True):
    """What an operator asks for. `to`: the other database; None: it is not named, to call a move off."""

    service: Service
    here: Address
    to: Address | None
    setting: str
    reason: str | None
    as_json: bool

    @property
    def lane(self) -> str:
        return self.service.lane

    def act(self, step: str) -> OperatorAct:
        """One step of a move, as it is kept."""
        return act_of(self.lane, "move", self.reason, step=step, to=None if self.to is None else name_of(self.to))


@click.command("move", cls=Exemplified, example="move seats --to postgresql://seats@db/seats")
@click.argument("lane", type=LANE)
@click.option(
    "--to",
    type=TEXT,
    metavar="URL",
    help="The other database, as the lane's role.  [default: <LANE>_MOVE_URL, which `ps` hides]",
)
@click.option("--prepare", "prepares", is_flag=True, help="Copy and compare; run it again without, to switch.")
@click.option("--check", "checks", is_flag=True, help="Only compare the two databases, table by table.")
@click.option("--cancel", "cancels", is_flag=True, help="Call off a move that has not switched, and empty the copy.")
@reason_option
@json_option
@refusing
def move(  # click gives each option by its name
    lane: str,
    to: str | None,
    reason: str | None,
    *,
    prepares: bool,
    checks: bool,
    cancels: bool,
    as_json: bool,
) -> None:
    """Move LANE to another database while it runs: rows, ids, versions, log and sequence.

    The other database is empty, and migrated with `coordinator migrate`. All rows are copied and compared while the
    lane goes on; then nothing commits for a moment, and the lane goes on there. Coordinators of the old database end
    with exit status 2 and say where it went. Killed at any point it can be run again, or called off with --cancel.

    Exit status 1: nothing has moved; of --check: rows differ; 3: nobody has said whether it has: run it again.
    """
    if prepares + checks + cancels > 1:
        raise Misused("--prepare, --check and --cancel exclude each other")
    asked = _asked(lane, to, reason, needs_target=not cancels, as_json=as_json)
    try:
        with ExitStack() as stack:
            if cancels:
                _cancel(stack, asked)
            elif checks:
                _check(stack, asked)
            else:
                _move(stack, asked, prepares=prepares)
    except MoveRefused as error:
        raise CommandRefused(f"{lane}: {error}") from error
    except (NotAdmitted, ConfigurationError) as error:
        raise Misused(f"{lane}: {error}") from error
    except StoreError as error:
        raise CommandRefused(f"{lane}: {error}; run it again, or with --cancel") from error


def _asked(lane: str, to: str | None, reason: str | None, *, needs_target: bool, as_json: bool) -> _MoveAsked:
    settings = load(DatabaseSettings, prefix=settings_prefix(lane))
    with address_of(f"{settings_prefix(lane)}DATABASE_URL"):
        here = parse_address(settings.database_url)
    url, setting = (to, "--to") if to else (settings.move_url, f"{settings_prefix(lane)}MOVE_URL")
    if url is None and needs_target:
        raise Misused(f"{lane}: name the other database with --to, or in {setting}")
    there = None
    if url is not None:
        with address_of(setting):
            there = parse_address(url)
            kind_of(there).check_address(there)
    return _MoveAsked(registry().service(lane), here, there, setting, reason, as_json)


def _move(stack: ExitStack, asked: _MoveAsked, *, prepares: bool) -> None:
    # Before any connection to it.
    stack.enter_context(_kept_by_no_process(asked))
    here = _side(stack, asked, asked.here)
    if asked.here.scheme in WITHOUT_SERVER:
        try:
            check_nothing_waits(Path(file_of(asked.here.database)), here.admin)
        except ConfigurationError as error:
            raise CommandRefused(f"{asked.lane}: {error}") from error
    mover = _mover(stack, asked, here)
    found = mover.move_of_source()
    if found is not None and found.step == "moved":
        # An earlier run may have died before it could let the lane go on there.
        with behind_the_switch(found):
            mover.open_target(found)
            done = mover.finished(found)
        _say_moved(asked, done)
        return
    prepared = mover.prepare(asked.act("begin"))
    if not prepares:
        _let_gateways_look(prepared)
        _say_moved(asked, mover.switch(prepared, asked.act("switch")))
    elif asked.as_json:
        print_json({"lane": asked.lane, "step": prepared.step, "to": prepared.other})
    else:
        click.echo(f"{asked.lane} is copied to {prepared.other}; run the same without --prepare to switch")


def _let_gateways_look(prepared: LaneMove) -> None:
    """Wait until each gateway that was started at the other database has seen that the lane is yet to come: until then
    it may make ids with the secret that the migration has made there."""
    left_s = GATEWAYS_LOOK_S - (0.0 if prepared.since is None else (now() - prepared.since).total_seconds())
    if left_s > 0:
        click.echo(f"the switch comes in {left_s:.0f} s, when gateways of the other database wait for it", err=True)
        time.sleep(min(left_s, GATEWAYS_LOOK_S))


def _cancel(stack: ExitStack, asked: _MoveAsked) -> None:
    here = _side(stack, asked, asked.here)
    if asked.to is None:
        is_cancelled = cancel_at(here, now(), asked.act("cancel"))
    else:
        # What their rows are like is no matter any more.
        is_cancelled = _mover(stack, asked, here, must_fit=False).cancel(asked.act("cancel"))
    # Also those that an earlier run has left.
    forget_notes(here)
    if asked.as_json:
        print_json({"lane": asked.lane, "cancelled": is_cancelled})
        return
    done = "the move is called off, and the lane goes on where it is" if is_cancelled else "no move is under way"
    left = "; the copy stays as it is: --to empties it" if is_cancelled and asked.to is None else ""
    click.echo(f"{asked.lane}: {done}{left}")


def _check(stack: ExitStack, asked: _MoveAsked) -> None:
    mover = _mover(stack, asked, _side(stack, asked, asked.here))
    compared = mover.compare()
    if asked.as_json:
        shown = [
            {"table": each.table, "here": each.here, "there": each.there, "different": len(each.different)}
            for each in compared
        ]
        print_json({"lane": asked.lane, "tables": shown})
    else:
        print_table(
            ("TABLE", "ROWS HERE", "ROWS THERE", "DIFFERENT", "DIGEST HERE", "DIGEST THERE"), [*map(_cells, compared)]
        )
    if any(each.different for each in compared):
        found = mover.move_of_source()
        if found is not None and found.step != "moved":
            click.echo(_said_of(found, mover.unnoted(compared)), err=True)
        sys.exit(EXIT_REFUSED)


def _said_of(move: LaneMove, unnoted: Keys) -> str:
    """Of rows that differ, where these among them are none that were changed since the copy began."""
    if move.phase is not None and move.phase.startswith(STOPPED):
        return f"Of the move the lane's database says: {move.phase}."
    if unnoted:
        return (
            f"Rows of {in_words(unnoted)} differ though nobody has changed them since the copy began: run it with "
            "--prepare, which brings them, or says why they stay away."
        )
    return "Rows that the lane has changed since the copy differ: the switch brings them."


def _cells(each: TableComparison) -> Sequence[object]:
    here, there = each.here, each.there
    return each.table, here.rows, there.rows, len(each.different), here.digest[:12], there.digest[:12]


def _say_moved(asked: _MoveAsked, moved: MovedLane) -> None:
    if asked.as_json:
        print_json({"lane": asked.lane, "step": "moved", **asdict(moved)})
        return
    paused = "" if moved.paused_s is None else f" (the switch took {moved.paused_s:.2f} s)"
    click.echo(
        f"{asked.lane} has moved to {moved.to}, at sequence {moved.sequence}{paused}, and goes on once a "
        "coordinator there has its queue (one that was paused is paused there, too). Start its coordinators and "
        "gateways with that address"
    )


def _mover(stack: ExitStack, asked: _MoveAsked, here: MoveSide, *, must_fit: bool = True) -> Mover:
    if asked.to is None:
        raise Misused(f"{asked.lane}: name the other database with --to")
    there = _side(stack, asked, asked.to)
    ignored = () if must_fit else (UnfitTables,)
    with suppress(*ignored):
        here.store.check(asked.service.models, must_sync=False)
    try:
        with suppress(*ignored):
            for warning in there.store.check(asked.service.models, must_sync=not load(LaneSettings).allow_unsynced):
                click.echo(f"the database of {asked.setting}: {warning}", err=True)
    except ConfigurationError as error:
        # It knows its database by the setting that it will have.
        text = str(error).replace(f"{settings_prefix(asked.lane)}DATABASE_URL", asked.setting)
        raise ConfigurationError(text) from None
    return Mover(
        asked.service, here, there, now, lambda text: click.echo(text, err=True), holder_name("move", asked.lane)
    )


def _side(stack: ExitStack, asked: _MoveAsked, address: Address) -> MoveSide:
    kind = kind_of(address)
    store = stack.enter_context(closing(kind.open_store(address, asked.service)))
    return MoveSide(name_of(address), store, stack.enter_context(closing(kind.open_admin(address, asked.lane))))


def name_of(address: Address) -> str:
    """An address without whoever logs in, and without any secret."""
    return f"{address.scheme}://{','.join(map(str, address.hosts))}/{address.database}"


@contextmanager
def _kept_by_no_process(asked: _MoveAsked) -> Iterator[None]:
    """Nobody runs the lane without a broker meanwhile: such a process takes commands that are in no database.

    Raises CommandRefused.
    """
    if asked.here.scheme not in WITHOUT_SERVER:
        yield
        return
    path = Path(file_of(asked.here.database))
    try:
        held = HeldFile(path)
    except ConfigurationError as error:
        raise CommandRefused(
            f"{asked.lane}: {error}. Stop it first, or run the lane behind a broker (`coordinator run`): a process "
            "without one keeps what it has accepted beside its database"
        ) from None
    with closing(held):
        yield
