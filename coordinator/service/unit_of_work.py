"""The unit of work, against which handlers are written, and the table of handlers.

A handler is a plain function of a unit of work and one command. It reads and changes rows in memory; the lane writes
the changes of a whole batch in one transaction. Handlers call nothing outside: no clock, no network, no randomness.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from types import NoneType
from typing import Any, Generic, Literal, Protocol, TypeVar, get_type_hints

from msgspec import Struct

from coordinator.service.allowing import CommandRule
from coordinator.service.commands import Command
from coordinator.service.continuation import Continuation, Deferred
from coordinator.service.errors import Rejected
from coordinator.service.personal import Whose
from coordinator.service.reading import Reading
from coordinator.service.rows import R, Ref, Row, RowSelection
from coordinator.service.upgrades import Upgrade

C_co = TypeVar("C_co", bound=Command, covariant=True)
C = TypeVar("C", bound=Command)


class UnitOfWork(Reading, Protocol):
    """The database as one command sees it: with the changes of all earlier commands, and none of later ones."""

    def add(self, row: R) -> R:
        """Insert a row, and return it as stored; its key must not exist.

        If the database alone has the key, or a unique value, already, the command fails when the batch is written.

        Raises ValueError for a key that earlier commands, or reads, have shown to be there, and for a value that is
        none of its column.
        """

    def save(self, row: R) -> R:
        """Replace the row of the same key; return it as stored, its version counted up if it has one.

        Raises ValueError where there is none, for a copy with another version than the row has by now, and for a value
        that is none of its column.
        """

    def remove(self, row: Row) -> None:
        """Delete the row of this key. Raises ValueError where there is none."""

    def next_id(self, of: str | type[Row]) -> int:
        """The next number of a series: 1, 2, 3 … in command order, without gaps.

        That of a class of rows begins above the largest key of the rows that are there, 1 for none. Any other series
        has a name of its own, and begins with 1. The series of a class has the name of its table. Raises TypeError for
        a class whose key is no int.
        """

    def emit(
        self,
        command: Command,
        *,
        continuation: type[Continuation] | None = None,
        after: timedelta | None = None,
        at: datetime | None = None,
        limit: timedelta | None = None,
    ) -> str:
        """Publish a command to any lane, or an effect, once this command is committed; return its id.

        With a `continuation` its outcome comes back as a command of that type. An effect has none: its handler's result
        is a command of its own.
        With `after`, counted from `now`, or `at`, with a time zone, the command is a **timer**: a row of this lane's
        database, which becomes a command at the end of its lane's queue once it is due by the lane's clock, not before,
        and once. A time that is over is due at once.
        With a `limit` the continuation comes in any case: if there is no outcome within that time (from when the
        command is due), as one with `is_unanswered`. The outcome may still come later. Whoever gets it in time should
        `cancel` the command, so that the limit does not come as well. A command whose turn comes after that time is not
        applied: it expires, by its lane's clock.

        Raises TypeError and ValueError for times that are none, TypeError for an effect with a continuation, ValueError
        for a command that no lane here takes, for a command or a continuation of this lane without a handler, and for
        an effect that no service here carries out.
        """

    def cancel(self, command_id: str) -> bool:
        """Take an emitted command back that waits for its time, and its `limit`; whether the command still waited.

        False: it is on its way, or done, or never had a time. Raises ValueError for what is no id.
        """

    def defer(self) -> Deferred | None:
        """Put the continuation of this command off, until `resume`; None: it has none.

        If the command is rejected or fails after all, the continuation goes on at once, as if it had not been put off.
        Keep its `encode()` as the whole text of a column: there `coordinator continue` sees that the answer is to come.
        """

    def resume(self, deferred: Deferred, outcome: Struct | Rejected | None) -> None:
        """Let a continuation that was put off go on, with a result or a refusal. It goes on once.

        A result is of the type that the handler of the command returns. Raises TypeError for what was not deferred.
        """


def name_of(function: Any) -> str:
    """The name of a handler's function, for messages."""
    return getattr(function, "__qualname__", None) or repr(function)[:100]


FailurePolicy = Literal["park", "park-key", "block"]

Handle = Callable[[UnitOfWork, C], Struct | None]
Reads = Callable[[C], Iterable[Ref[Row] | RowSelection[Row]]]


class Handler(Struct, Generic[C], frozen=True):
    """How one command type is applied.

    `reads` names the rows that the handler will look at, so that a batch fetches them in one query per kind, and in one
    query for each selection (`Row.where`); other rows are fetched when asked for. By default `reads` is the `target`.
    When a command that is already settled is delivered again, these rows are announced to projections again. So name
    the rows that the handler changes, and name the rows that it removes by their keys; a selection names those that
    are in it then.
    `target` names the row that `expected-version` is about; without it a command that carries an expected version is
    rejected (`expected_version_unsupported`).
    `on_failure` says how a failed command of this type affects the lane. With `park` it is dead-lettered and the lane
    goes on. With `park-key` it is dead-lettered too, and later commands with the same `target`, of any type, wait
    behind it, in order, until it is replayed or discarded. With `block` the lane stops, with nothing of that command
    recorded, until an operator cancels the command or a mended release applies it.
    `upgrades` make its command's older arguments into those of its version, the oldest first; a `Service` adds the ones
    that it declares.
    `is_internal`: the command is the system's own, such as a continuation; gateways do not take it from clients.
    `is_operators`: an operator issues the command with `coordinator send`; gateways do not take it from clients.
    `allow` is asked before the handler who may issue the command: `allow(who, command, rows)`. Whom it refuses, and
    nobody known, gets the rejection `forbidden`. None: everybody may. It is not asked of what the system itself issues:
    emitted commands, steps of sagas, timers, `coordinator send`.
    `of` names the rows of those whose personal data the command has, its arguments or its errors, so that `coordinator
    forget` finds it: `of=lambda command: User.at(email=command.email)`. By default it is the `target`, where that is of
    a class with `Personal` fields. The personal rows that a command has changed count in any case.

    Raises TypeError for `park-key` without a `target`.
    """

    command: type[C]
    handle: Handle[C]
    reads: Reads[C] | None = None
    target: Callable[[C], Ref[Row]] | None = None
    on_failure: FailurePolicy = "park"
    is_internal: bool = False
    is_operators: bool = False
    upgrades: Sequence[Upgrade] = ()
    allow: CommandRule[C] | None = None
    of: Whose[C] | None = None

    def __post_init__(self) -> None:
        if self.on_failure == "park-key" and self.target is None:
            raise TypeError(f"{self.command.type}: park-key needs a target, whose commands wait")

    @property
    def result(self) -> type[Struct] | None:
        """The type of an applied command's result, from the annotation of `handle`. Raises TypeError if it has none."""
        hints = _hints_of(self.handle)
        if "return" not in hints:
            raise TypeError(f"{self.command.type}: its handler does not say what it returns")
        result: type[Any] = hints["return"]
        return None if result is NoneType else result


@lru_cache(maxsize=1024)
def _hints_of(handle: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a handler's function, which are the same for all lanes, gateways and checks that ask."""
    return get_type_hints(handle)
