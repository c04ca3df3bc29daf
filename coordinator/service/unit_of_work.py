"""The unit of work, against which handlers are written, and the table of handlers.

A handler is a plain function of a unit of work and one command. It reads and changes rows in memory; the lane writes
the changes of a whole batch in one transaction. Handlers call nothing outside: no clock, no network, no randomness.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from types import NoneType
from typing import Any, Generic, Literal, Protocol, TypeVar, get_type_hints

from msgspec import Struct

from coordinator.service.commands import Command
from coordinator.service.continuation import Continuation, Deferred
from coordinator.service.errors import Rejected
from coordinator.service.rows import Key, R, Ref, Row

C_co = TypeVar("C_co", bound=Command, covariant=True)
C = TypeVar("C", bound=Command)


class UnitOfWork(Protocol):
    """The database as one command sees it: with the changes of all earlier commands, and none of later ones."""

    @property
    def now(self) -> datetime:
        """The time of the batch, UTC. Every command of a batch sees the same."""

    @property
    def command_id(self) -> str:
        """The id of the command being applied."""

    def get(self, model: type[R], key: Key) -> R | None:
        """The row with this key, or None."""

    def find(self, model: type[R], column: str, value: Key) -> R | None:
        """The row that has this value in one of its unique columns, or None."""

    def add(self, row: R) -> R:
        """Insert a row; its key must not exist: if the database has it already, the command is refused and fails."""

    def save(self, row: R) -> R:
        """Replace the row of the same key; return it as stored, its version counted up if it has one."""

    def remove(self, row: Row) -> None:
        """Delete the row of this key."""

    def next_id(self, of: str | type[Row]) -> int:
        """The next number of a series: 1, 2, 3 … in command order, without gaps.

        That of a class of rows begins above the largest key of the rows that are there, 1 for none. Any other series
        has a name of its own, and begins with 1. The series of a class has the name of its table. Raises TypeError for
        a class whose key is no int.
        """

    def emit(self, command: Command, *, continuation: type[Continuation] | None = None) -> str:
        """Publish a command to another lane, or an effect, once this command is committed; return its id.

        With a `continuation` its outcome comes back as a command of that type.
        """

    def defer(self) -> Deferred | None:
        """Put the continuation of this command off, until `resume`; None: it has none.

        If the command is rejected or fails after all, the continuation goes on at once, as if it had not been put off.
        Keep its `encode()` as the whole text of a column: there `coordinator continue` sees that the answer is to come.
        """

    def resume(self, deferred: Deferred, outcome: Struct | Rejected | None) -> None:
        """Let a continuation that was put off go on, with a result or a refusal. It goes on once.

        A result is of the type that the handler of the command returns.
        """


FailurePolicy = Literal["park", "park-key", "block"]

Handle = Callable[[UnitOfWork, C], Struct | None]


class Handler(Struct, Generic[C], frozen=True):
    """How one command type is applied.

    `reads` names the rows that the handler will look at, so that a batch fetches them in one query per kind; other rows
    are fetched when asked for. By default `reads` is the `target`. When a command that is already settled is delivered
    again, these rows are announced to projections again. So name the rows that the handler changes, and name the rows
    that it removes by their keys.
    `target` names the row that `expected-version` is about; without it a command that carries an expected version is
    rejected (`expected_version_unsupported`).
    `on_failure` says how a failed command of this type affects the lane. With `park` it is dead-lettered and the lane
    goes on. With `park-key` it is dead-lettered too, and later commands with the same `target`, of any type, wait
    behind it, in order, until it is replayed or discarded. With `block` the lane stops, with nothing of that command
    recorded, until an operator cancels the command or a mended release applies it.
    `is_internal`: the command is the system's own, such as a continuation; gateways do not take it from clients.
    `is_operators`: an operator issues the command with `coordinator send`; gateways do not take it from clients.

    Raises TypeError for `park-key` without a `target`.
    """

    command: type[C]
    handle: Handle[C]
    reads: Callable[[C], Iterable[Ref[Row]]] | None = None
    target: Callable[[C], Ref[Row]] | None = None
    on_failure: FailurePolicy = "park"
    is_internal: bool = False
    is_operators: bool = False

    def __post_init__(self) -> None:
        if self.on_failure == "park-key" and self.target is None:
            raise TypeError(f"{self.command.type}: park-key needs a target, whose commands wait")

    @property
    def result(self) -> type[Struct] | None:
        """The type of an applied command's result, from the annotation of `handle`. Raises TypeError if it has none."""
        hints = get_type_hints(self.handle)
        if "return" not in hints:
            raise TypeError(f"{self.command.type}: its handler does not say what it returns")
        result: type[Any] = hints["return"]
        return None if result is NoneType else result
