"""A move of a lane to another database, as the lease rows of both databases say.

    the database that the lane leaves    the one that it moves to      who may write the lane's rows
    noting                               receiving                     the lane, here
    halted                               receiving                     nobody
    moved                                receiving, then nothing       the lane, there

Each step is one change of one lease row, which counts its revision up: the lane reads the lease again before its next
commit. `moved` is the only step that cannot be taken back.
"""

from datetime import datetime
from typing import Final, Literal, TypeAlias, TypeGuard

import msgspec
from msgspec import Struct

from coordinator.service.errors import ConfigurationError

MoveStep: TypeAlias = Literal["noting", "halted", "moved", "receiving"]

PAUSE_CHARACTERS_MAX: Final = 500


class LaneMove(Struct, frozen=True, kw_only=True):
    """The move that a lease row tells of. `id` is the same in both databases.

    `other` is the other database without any secret; `batches` is what the lease had counted when the lane began to
    note the keys that its transactions change. `paused` goes to a lane that was paused by an operator where it was.
    `halt` is another one each time that the lane is halted: who halted it and was away for long ends no later halt.
    `since` is when the lane began to note, and `phase` what whoever moves it has come to, in words.
    """

    id: str
    step: MoveStep
    other: str
    batches: int = 0
    paused: str | None = None
    halt: str | None = None
    since: datetime | None = None
    phase: str | None = None

    @property
    def words(self) -> str:
        """What the step means to whoever meets it."""
        match self.step:
            case "noting":
                come_to = "" if self.phase is None else f" ({self.phase})"
                return f"the lane is being copied to {self.other}{come_to}"
            case "halted":
                return (
                    f"the lane is about to move to {self.other}: nothing commits until that is done; if it does not "
                    "end by itself, run `coordinator move` again, or with --cancel"
                )
            case "moved":
                return f"the lane has moved to {self.other}: nothing may be written here any more; set its address"
            case "receiving":
                return (
                    f"a move from {self.other} to this database is not finished, or was called off: run `coordinator "
                    "move` again, or go on with the database that has the lane"
                )


class Moved(ConfigurationError):
    """Raised for a database that a lane has left for another one."""


def encode_move(move: LaneMove) -> str:
    """As the lease row has it: JSON text."""
    return msgspec.json.encode(move).decode()


def decode_move(text: str | None) -> LaneMove | None:
    """Raises ConfigurationError for what a newer release has written."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=LaneMove)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"the lease tells of a move that this release does not know: {error}") from error


def is_noting(move: LaneMove | None) -> TypeGuard[LaneMove]:
    """Whether the lane's transactions are to note the keys that they change."""
    return move is not None and move.step == "noting"


def pause_by(move: LaneMove | None) -> str | None:
    """The reason of the pause that stands beside this step, for processes of an earlier release; None: none does."""
    if move is None or move.step not in ("halted", "moved"):
        return None
    return f"a move: {move.words}"[:PAUSE_CHARACTERS_MAX]


def check_not_moved(move: LaneMove | None) -> None:
    """Raises Moved."""
    if move is not None and move.step == "moved":
        raise Moved(move.words)


def paused_by(before: LaneMove | None, after: LaneMove | None, paused: str | None) -> str | None:
    """The reason in a lease for which its lane is paused, once its move has come from one step to the next.

    A process of an earlier release reads no move, and obeys a pause. An operator's stays, whatever its reason is.
    """
    if paused is not None and paused != pause_by(before):
        return paused
    if after is None:
        return None if before is None else before.paused
    return pause_by(after)


def check_open_to_operators(move: LaneMove | None, *, removes: bool = False) -> None:
    """Raises ConfigurationError where what an operator wants to change here would not go with the lane: a row that he
    adds is copied at the end of a move, and one that he removes (`removes`) is not missed."""
    check_not_moved(move)
    if move is not None and (removes or move.step != "noting"):
        raise ConfigurationError(f"{move.words}; nothing was done: try again once the move is done or cancelled")
