"""How far a move of a lane is, for those who look from elsewhere."""

from datetime import datetime
from typing import Final

from msgspec import Struct

from coordinator.operate.output import age
from coordinator.service.text import counted
from coordinator.stores.admin import LeaseState
from coordinator.stores.moves import MoveStep

_UNDER_WAY: Final[dict[MoveStep, str]] = {
    "noting": "being copied to",
    "halted": "halted for the switch to",
    "receiving": "a copy, not finished or called off, of",
}


class MoveStatus(Struct, frozen=True, kw_only=True):
    """A move of the lane to another database, or to this one, as its lease tells of it (`coordinator.stores.moves`).

    `phase` is what whoever moves it has come to, in words; `noted` counts the transactions of the lane since it began.
    """

    step: MoveStep
    other: str
    since: datetime | None
    phase: str | None
    noted: int | None


def move_in(lease: LeaseState) -> MoveStatus | None:
    """What the lease tells of a move; None: of none."""
    move = lease.move
    if move is None:
        return None
    noted = lease.batches - move.batches if move.step in ("noting", "halted") else None
    return MoveStatus(step=move.step, other=move.other, since=move.since, phase=move.phase, noted=noted)


def in_words(move: MoveStatus) -> str:
    """For the line of a lane's status, and its page."""
    if move.step == "moved":
        return f"has moved to {move.other}: nothing is written here any more; set its address"
    since = "" if move.since is None else f", for {age(move.since)}"
    phase = "" if move.phase is None else f": {move.phase}"
    noted = "" if move.noted is None else f"; {counted(move.noted, 'transaction')} of the lane since it began"
    return f"{_UNDER_WAY[move.step]} {move.other}{since}{phase}{noted}"
