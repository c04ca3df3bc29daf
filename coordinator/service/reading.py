"""The reading half of the unit of work."""

from datetime import datetime
from typing import Protocol

from coordinator.service.principal import Principal
from coordinator.service.rows import Key, R, Value


class Reading(Protocol):
    """The database as one command sees it: with the changes of all earlier commands, and none of later ones."""

    @property
    def now(self) -> datetime:
        """The time of the batch, UTC. Every command of a batch sees the same."""

    @property
    def command_id(self) -> str:
        """The id of the command being applied."""

    @property
    def actor(self) -> Principal | None:
        """Who asks for the command; None: nobody who is known.

        A gateway with authentication says it of its requests, RabbitMQ of its accounts, whose subjects begin `amqp:`.
        What a command leads to has its actor: commands that it emits, timers, continuations, results of effects.
        """

    def get(self, model: type[R], key: Key) -> R | None:
        """The row with this key, or None. Raises ValueError for a value that is no key of its class."""

    def find(self, model: type[R], column: str, value: Key) -> R | None:
        """The row that has this value in one of its unique columns, or None.

        Raises TypeError for a column that is neither unique nor the key, and ValueError for a value that is none of it.
        """

    def select(self, model: type[R], /, *, limit: int, after: Key | None = None, **equals: Value) -> list[R]:
        """The first `limit` rows with these values in the columns of an index, in order of their keys.

        They are as earlier commands, and this one, have left them. With `after` those with a higher key. The columns
        are the first ones of an index (`index` of the class), the key, a unique column, or none.

        Raises TypeError where no index has the columns, or for a limit that is not from 1 to `SELECTED_MAX`, and
        ValueError for a value that is none of its column.
        """

    def exists(self, model: type[R], /, **equals: Value) -> bool:
        """Whether `select` would find a row. Raises TypeError and ValueError as it does."""
