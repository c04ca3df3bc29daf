"""What there is of an id that a person has: typed, for pages and for the command line."""

from datetime import datetime

from msgspec import Struct

from coordinator.operate.places import Stop
from coordinator.service.saga_timeline import SagaStep


class FoundSaga(Struct, frozen=True, kw_only=True):
    """A saga, its steps so far, the names of those that are declared, and where it stands: the last of `stops`."""

    lane: str
    saga: str
    id: int
    status: str
    reason: str | None
    began_at: datetime | None
    ended_at: datetime | None
    declared: tuple[str, ...]
    steps: list[SagaStep]
    stops: list[Stop]
    is_stuck: bool
    where: str
    why: str | None
    todo: str | None


class FoundCommand(Struct, frozen=True, kw_only=True):
    """A command, in one lane, and where it is."""

    lane: str
    command_id: str
    stops: list[Stop]
    is_stuck: bool
    where: str
    why: str | None
    todo: str | None


def command_found(lane: str, command_id: str, stops: list[Stop]) -> FoundCommand:
    """A command by its places, of which it is at the last."""
    last = stops[-1]
    return FoundCommand(
        lane=lane,
        command_id=command_id,
        stops=stops,
        is_stuck=last.why is not None,
        where=last.text,
        why=last.why or last.said,
        todo=last.todo,
    )


class FoundRow(Struct, frozen=True, kw_only=True):
    """A row, by the key that somebody has, and what waits for it.

    `row` is JSON text; None: whoever asks may not see it, or it cannot be read.
    """

    lane: str
    table: str
    key: str
    row: str | None
    is_stuck: bool
    where: str
    why: str | None
    todo: str | None


class Found(Struct, frozen=True, kw_only=True):
    """What there is of an id, and which lanes could not be asked. `nothing` says what that means where nothing is."""

    asked: str
    sagas: list[FoundSaga] = []
    commands: list[FoundCommand] = []
    rows: list[FoundRow] = []
    away: list[str] = []
    nothing: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found."""
        return not (self.sagas or self.commands or self.rows)
