"""What the lease rows of a move's two databases are told, and what is asked of these (`coordinator.stores.moves`)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.service.errors import Unavailable
from coordinator.service.ids import new_command_id
from coordinator.service.service import Service
from coordinator.stores.admin import ChangeUnknown, LaneAdmin, LeaseState
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.moves import LaneMove
from coordinator.stores.port import Fenced, Store, StoreError

NOTES_AT_ONCE: Final = 500
"""How many notes of a move that is over one transaction deletes. It has the lease's lock at its end only."""

STOPPED: Final = "it has stopped"
"""How the phase of a move begins that cannot go on."""


class MoveRefused(Exception):
    """Raised where a move cannot begin or go on, with the way out. The lane goes on where it is.

    `phase`: what the lease is to say of it; None: the same.
    """

    def __init__(self, text: str, phase: str | None = None) -> None:
        super().__init__(text)
        self.phase = text if phase is None else phase


def never_run(table: str | None) -> MoveRefused:
    """The error for a lane without a commit, and for the rows of this table of its, if there are any."""
    if table is None:
        return MoveRefused("the lane has never run, and has nothing to move: just set the other database's address")
    return MoveRefused(f"the lane has never run, and table {table} has rows: have it apply a command here first")


class MovedOn(MoveRefused):
    """Raised where the move is not this process's any more."""

    def __init__(self) -> None:
        super().__init__("the move was cancelled, or somebody else goes on with it")


class MovedLane(Struct, frozen=True, kw_only=True):
    """What a move has done: where the lane is, the last sequence settled, and an epoch there that is above all here.

    `paused_s`: for how long nothing was committed, in seconds; None: an earlier run made the switch.
    """

    to: str
    sequence: int
    epoch: int
    paused_s: float | None


@contextmanager
def telling_its_end(tell: Callable[[str], object]) -> Iterator[None]:
    """Tell the lease of whatever ends who moves the lane, so that nobody waits for him; nothing of a death.

    Of who is fenced it tells nothing: somebody else goes on, or has called the move off.
    """
    try:
        yield
    except (MovedOn, Fenced):
        raise
    except (MoveRefused, StoreError, Unavailable, KeyboardInterrupt) as error:
        phase = error.phase if isinstance(error, MoveRefused) else "whoever moved it has ended before it was done"
        with suppress(MoveRefused, StoreError, Unavailable):
            tell(f"{STOPPED}: {phase}")
        raise


@contextmanager
def behind_the_switch(moved: LaneMove) -> Iterator[None]:
    """What fails now takes nothing back. Raises ChangeUnknown in place of errors that say that nothing is done."""
    try:
        yield
    except (StoreError, Unavailable) as error:
        text = f"the lane has moved to {moved.other}, and may not go on there until this is run again: {error}"
        raise ChangeUnknown(text) from error


class MoveSide(Struct, frozen=True):
    """One of the two databases. `name` is its address without any secret."""

    name: str
    store: Store
    admin: LaneAdmin


def cancel_at(source: MoveSide, now: datetime, act: OperatorAct | None) -> bool:
    """Have the lane go on in its database, and note nothing any more; False: it does already. Raises MoveRefused.

    Its notes stay: `forget_notes`.
    """
    move = move_of(source)
    if move is None:
        return False
    if move.step not in ("noting", "halted"):
        raise MoveRefused(f"nothing can be called off here: {move.words}")
    if not source.admin.set_move(move, None, now, act):
        raise MoveRefused("the move has come to its next step meanwhile: look again")
    return True


def forget_notes(source: MoveSide) -> None:
    """Remove what the lane has noted for a move that is over. It takes a while, and the lane goes on meanwhile."""
    for _ in source.admin.forget_move_notes(NOTES_AT_ONCE):
        pass


def check_tables(service: Service, source: MoveSide, target: MoveSide) -> None:
    """Raises MoveRefused where a column would not be copied, or rows refer to what is not."""
    if lost := source.admin.unread_columns(service.models):
        raise MoveRefused(
            f"no class of {service.name} has the columns {', '.join(lost)}, so they would not be copied: add them to "
            "the classes, or drop them"
        )
    # A table that is empty here, too, has nobody who refers to it.
    here = source.admin.unfilled_references(service.models)
    unfilled = [each for each in target.admin.unfilled_references(service.models) if each not in here]
    if unfilled:
        raise MoveRefused(
            "the database of --to would refuse rows: foreign keys there refer to tables that have no rows there and no "
            f"class in {service.name}, so that no move copies them ({'; '.join(unfilled)}). Add a class for each, fill "
            "these tables there first, or drop the keys there"
        )


def check_above_its_loss(lease: LeaseState) -> None:
    """Raises MoveRefused while a loss is accepted above which the lane has yet to go: the lease of the other database
    would not know of it, and the lane would be blocked there."""
    if lease.lost_up_to is not None:
        raise MoveRefused(
            f"the loss of sequences up to {lease.lost_up_to} is accepted, and the lane has yet to go above it: try "
            "again once it has committed"
        )


def check_has_all_of(source: MoveSide, there: LeaseState) -> None:
    """Raises MoveRefused where the other database may be the only one with some commands of the lane: the lane has
    moved there from a database of which `source` is an older copy."""
    here = source.admin.state().lease
    reached = 0 if here is None else here.sequence
    if reached < there.sequence:
        raise MoveRefused(
            f"the database of --to has the lane up to sequence {there.sequence}, this one up to {reached} only: name "
            "the database from which the lane was moving"
        )


def check_receiving(target: MoveSide, move_id: str) -> None:
    """Raises MoveRefused unless it is this move for which the other database waits."""
    there = move_of(target)
    if there is None or there.id != move_id or there.step != "receiving":
        raise MoveRefused(
            "somebody else has begun a move to the same database, or ended this one: --cancel this one if it is still "
            "under way, and begin again"
        )


def left_whole(source: MoveSide, target: MoveSide) -> LeaseState:
    """The lease with which the lane has left `source`. Raises MoveRefused where the other database has not all of it:
    an older copy was put back there since the switch."""
    here, there = source.admin.state().lease, target.admin.state().lease
    if here is None:
        raise MoveRefused("the lease of the lane is gone")
    reached = 0 if there is None else there.sequence
    if reached < here.sequence:
        raise MoveRefused(
            f"the lane has left this database at sequence {here.sequence}, and the database of --to has it up to "
            f"{reached} only: a copy of before the switch was put back there. Put a later one back, or have the lane "
            "go on here (docs/OPERATING.md, Backups)"
        )
    return here


def newly_halted(noting: LaneMove) -> LaneMove:
    """The step in which nothing commits; no other halt is equal to it."""
    return msgspec.structs.replace(noting, step="halted", halt=new_command_id())


def noting_again(halted: LaneMove) -> LaneMove:
    """The step to which a halt goes back."""
    return msgspec.structs.replace(halted, step="noting", halt=None)


def move_of(side: MoveSide) -> LaneMove | None:
    """The move of which the database tells."""
    lease = side.admin.state().lease
    return None if lease is None else lease.move
