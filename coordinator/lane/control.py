"""The commands that every lane has: they act on the lane itself, in their turn."""

from typing import Annotated, ClassVar

from msgspec import Meta

from shared.commands import Command
from shared.lane_tables import ORDERING_KEY_CHARACTERS_MAX
from shared.unit_of_work import Handler, UnitOfWork


class Marker(Command, frozen=True, kw_only=True):
    """Does nothing: its outcome proves that everything before it in the queue is settled."""

    type: ClassVar[str] = "lane.marker"


class Release(Command, frozen=True, kw_only=True):
    """Let the commands go on that wait behind a failed one with their key. Rejected: `not_parked`."""

    type: ClassVar[str] = "lane.release"

    ordering_key: Annotated[str, Meta(min_length=1, max_length=ORDERING_KEY_CHARACTERS_MAX)]
    command_id: str


def _nothing(work: UnitOfWork, command: Command) -> None:  # noqa: ARG001  # the lane itself does what there is to do
    return None


CONTROL_HANDLERS = (Handler(Marker, _nothing), Handler(Release, _nothing))
