"""What a service tells the coordinator about itself."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct
from sqlalchemy import MetaData

from shared.commands import Command
from shared.effects import Effects
from shared.rows import Ref, Row
from shared.unit_of_work import Handler


class Projection(Protocol):
    """A copy of committed rows elsewhere, such as a cache. Told of every batch after its commit, before its outcomes.

    It must not raise: what it cannot do it makes up for itself.
    """

    def committed(self, saved: Sequence[Row], removed: Sequence[Ref[Row]]) -> None:
        """The rows as they are now, and the keys of those that are no more."""

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
        return tuple(handler for handler in self.handlers if not handler.is_internal)

    @property
    def commands(self) -> tuple[type[Command], ...]:
        """The commands that its lane applies for anybody."""
        return tuple(handler.command for handler in self.public_handlers)
