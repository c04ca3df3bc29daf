"""A service's declaration of itself to the coordinator."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from coordinator.service.commands import Command
from coordinator.service.outside_calls import Effects
from coordinator.service.rows import Ref, Row
from coordinator.service.unit_of_work import Handler

if TYPE_CHECKING:
    from sqlalchemy import MetaData
else:
    # A module that declares tables loads SQLAlchemy, and the command line alone does not.
    MetaData = Any


class LeaseProof(Protocol):
    """The proof that this lane may change the database, and how old it is."""

    @property
    def epoch(self) -> int:
        """The lane's epoch. Under a new one there may be commits that no projection of this process was told of."""

    @property
    def sequence(self) -> int:
        """The last settled one. All commits up to it are announced to the projection, or about to be."""

    @property
    def proved_at_s(self) -> float:
        """A moment of the monotonic clock after which the epoch was certainly still current.

        Rows committed under this epoch before that moment, and announced, have not been changed by anyone else.
        """

    def prove(self) -> bool:
        """Ask the database, and move `proved_at_s` up if the epoch is still current; False: it may not be."""


class Projection(Protocol):
    """A copy of committed rows elsewhere, such as a cache.

    Every batch is announced to it after its commit and before its outcomes, by the lane's thread. It must not raise: it
    makes up for its own failures. If it raises nevertheless, the error is logged (`projection_failed`) and counted, and
    the outcomes are sent without it.
    """

    beat_s: float
    """The longest time between two calls of `beat`, while the lane has its lease and is idle."""

    def committed(self, proof: LeaseProof, saved: Sequence[Row], removed: Sequence[Ref[Row]]) -> float:
        """Take in the rows as they are now, and the keys of the rows that are gone.

        Returns 0 when their outcomes may be sent. Otherwise the outcomes must wait, and this is to be called again,
        with the same rows, after the returned number of seconds. The sum of such waits is bounded.
        """

    def beat(self, proof: LeaseProof) -> None:
        """The lane is idle: every commit was announced."""

    def close(self) -> None:
        """Release connections."""


class Service(Struct, frozen=True, kw_only=True):
    """One service: its lane is `writes.<name>`, its settings are `<NAME>_DATABASE_URL` and so on.

    `metadata` holds its tables if its database is an SQL one; `migrations` is a folder of Alembic revisions.
    `effects` opens the object that makes its calls to the outside, in the processes of `coordinator effects`.
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
        """The handlers of commands that anybody may issue."""
        return tuple(handler for handler in self.operator_handlers if not handler.is_operators)

    @property
    def operator_handlers(self) -> tuple[Handler[Any], ...]:
        """The public handlers, and those of commands that only an operator may issue."""
        return tuple(handler for handler in self.handlers if not handler.is_internal)

    @property
    def commands(self) -> tuple[type[Command], ...]:
        """The commands that its lane applies for anybody."""
        return tuple(handler.command for handler in self.public_handlers)
