"""What a service tells the coordinator about itself."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct
from sqlalchemy import MetaData

from coordinator.service.commands import Command
from coordinator.service.outside_calls import Effects
from coordinator.service.rows import Ref, Row
from coordinator.service.unit_of_work import Handler


class LeaseProof(Protocol):
    """That the database is the lane's to change, and how that is known."""

    @property
    def epoch(self) -> int:
        """The lane's. With a new one there may be commits that were announced to no projection of this process."""

    @property
    def sequence(self) -> int:
        """The last that is settled. What was committed up to it is announced to the projection, or about to be."""

    @property
    def proved_at_s(self) -> float:
        """A moment of the monotonic clock after which the epoch was certainly still current.

        Rows committed under this epoch before that moment, and announced, have not been changed by anyone else.
        """

    def prove(self) -> bool:
        """Ask the database, and move `proved_at_s` up if the epoch is still current; False: it is not, or who knows."""


class Projection(Protocol):
    """A copy of committed rows elsewhere, such as a cache. Told of every batch after its commit, before its outcomes.

    Used by the lane's thread. It must not raise: what it cannot do it makes up for itself. What it raises nevertheless
    is logged (`projection_failed`) and counted, and the outcomes are sent without it.
    """

    beat_s: float
    """How often it wants to be called at least, while the lane has its lease and is idle."""

    def committed(self, proof: LeaseProof, saved: Sequence[Row], removed: Sequence[Ref[Row]]) -> float:
        """Take in the rows as they are now, and the keys of those that are no more.

        Returns 0 when their outcomes may be sent. Otherwise they must wait, and this is to be called again, with the
        same rows, after so many seconds. The sum of such waits is bounded.
        """

    def beat(self, proof: LeaseProof) -> None:
        """The lane is idle: nothing is committed that was not announced."""

    def close(self) -> None:
        """Release what it holds."""


class Service(Struct, frozen=True, kw_only=True):
    """One service: its lane is `writes.<name>`, its settings are `<NAME>_DATABASE_URL` and so on.

    `metadata` holds its tables where its database is an SQL one; `migrations` is a folder of Alembic revisions.
    `effects` opens what makes its calls to the outside, in the processes of `coordinator effects`.
    """

    name: str
    models: tuple[type[Row], ...]
    handlers: tuple[Handler[Any], ...]
    metadata: MetaData | None = None
    migrations: Path | None = None
    projection: Callable[[], Projection] | None = None
    effects: Callable[[], Effects] | None = None

    @property
    def public_handlers(self) -> tuple[Handler[Any], ...]:
        """Those of commands that anybody may issue."""
        return tuple(handler for handler in self.operator_handlers if not handler.is_operators)

    @property
    def operator_handlers(self) -> tuple[Handler[Any], ...]:
        """Those, and the ones of commands that only an operator may issue."""
        return tuple(handler for handler in self.handlers if not handler.is_internal)

    @property
    def commands(self) -> tuple[type[Command], ...]:
        """The commands that its lane applies for anybody."""
        return tuple(handler.command for handler in self.public_handlers)
