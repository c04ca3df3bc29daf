"""Every error that the library raises on purpose.

    CoordinatorError
    ├── ConfigurationError     a setting, argument or server is unfit; the process cannot start
    ├── InvalidCommand         a command's type, arguments or options are malformed; nothing was issued
    ├── Rejected               raised in a handler, to refuse a command for a reason of the business
    ├── NotFound               a read names a row that does not exist
    ├── UnreadableRow          a row of the database is none of its class
    ├── CommandRejected        the command's outcome is `rejected`: the caller's side of Rejected
    ├── CommandFailed          the command's outcome is `failed` (dead-lettered) or `expired`
    ├── CommandPending         the outcome has not arrived in time; the command is accepted and will be settled
    │   └── OutcomeUnreadable      the outcome is there, but this release cannot read it
    └── Unavailable            try again later; except for OutcomeUnknown, nothing was done
        ├── BrokerUnavailable      the broker is away, blocked, or refuses the command
        │   └── OutcomeUnknown         the broker may have the command: it may be applied
        ├── Overloaded             this process has as many commands under way as it may
        └── DatabaseUnavailable    a read found no database

EffectRetry has the same root and is in `outside_calls.py`: it asks for a call to the outside to be made again. The
lane's own errors, which never leave it, are in coordinator/stores/port.py.
"""

from typing import Any

from coordinator.service.descriptions import described


class CoordinatorError(Exception):
    """The root of the tree.

    An error is the same in another process, as where a worker of a pool has raised it.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own calls the class with `args`, the message, and a class may take other arguments: who waits for
        # a pool would wait for ever.
        reduced: Any = super().__reduce__()
        kept: Any = object.__getstate__(self)
        of_slots = kept[1] if isinstance(kept, tuple) else {}
        _, args, *state = reduced
        return _without_init, (type(self), args), dict(*state) | of_slots


def _without_init(kind: type[CoordinatorError], args: tuple[Any, ...]) -> CoordinatorError:
    """Without that of the class itself: Python's own errors, such as OSError, take in `args` by theirs."""
    error = kind.__new__(kind, *args)
    of_python: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    of_python.__init__(error, *args)
    return error


class ConfigurationError(CoordinatorError):
    """Raised when a process starts; it names the setting and says what to do."""


class InvalidCommand(CoordinatorError):
    """Raised before anything is issued. `field` names the argument at fault, if there is one."""

    def __init__(self, message: str, *, code: str = "invalid_command", field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


class Rejected(CoordinatorError):
    """Raised by a handler to refuse a command; becomes the outcome `rejected` with this code and message.

    The handler's changes are undone. The code is stable: clients branch on it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotFound(CoordinatorError):
    """Raised by a service's read."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnreadableRow(CoordinatorError):
    """Raised by reads for a row that is none of its class: another release, or another program, has written it.

    It names the table, the row's key and the column, as far as they can be read, and never shows a value. `before` has
    the rows that a read of several found before it, in its order. `next` is the `after` of what a list has behind it.
    """

    def __init__(self, table: str, key: Any = None, column: str | None = None, why: str = "") -> None:
        of = "a row" if key is None else f"the row {described(key, with_type=False)}"
        where = "" if column is None else f": column {column}"
        super().__init__(f"{of} of {table} cannot be read as its class{where}{why and f' {why}'}")
        self.code = "row_unreadable"
        self.table = table
        self.key = key
        self.column = column
        self.before: list[Any] = []
        self.next: Any = None


class CommandRejected(CoordinatorError):
    """Raised when a command's outcome is `rejected`: it was well-formed, but the state did not allow it.

    `replayed`: the outcome is that of an earlier delivery of the same command. `sequence` is its place in its lane's
    order; None where it has none, or it is not known.
    """

    def __init__(
        self, command_id: str, code: str, message: str, *, replayed: bool = False, sequence: int | None = None
    ) -> None:
        super().__init__(message)
        self.command_id = command_id
        self.code = code
        self.replayed = replayed
        self.sequence = sequence


class CommandFailed(CoordinatorError):
    """Raised when a command's outcome is `failed` or `expired`: it had no effect and will have none.

    `replayed` and `sequence` are what they are of a rejected one.
    """

    def __init__(
        self, command_id: str, code: str, message: str, *, replayed: bool = False, sequence: int | None = None
    ) -> None:
        super().__init__(message)
        self.command_id = command_id
        self.code = code
        self.replayed = replayed
        self.sequence = sequence


class CommandPending(CoordinatorError):
    """Raised when the outcome does not arrive within the wait. The command is confirmed: it will be settled."""

    def __init__(self, command_id: str) -> None:
        super().__init__(f"command {command_id} is accepted; its outcome is not known yet")
        self.command_id = command_id


class OutcomeUnreadable(CommandPending):
    """Raised when the command is applied, but its result is of another release and cannot be read here."""

    def __init__(self, command_id: str, reason: str) -> None:
        super().__init__(command_id)
        self.args = (f"command {command_id} is applied; its result cannot be read by this release: {reason}",)


class Unavailable(CoordinatorError):
    """Raised when a part of the system is away."""

    code = "unavailable"


class BrokerUnavailable(Unavailable):
    """Raised when a command could not be handed over: it may be repeated with the same id."""

    code = "broker_unavailable"


class OutcomeUnknown(BrokerUnavailable):
    """Raised when a command was sent but not confirmed: it may be applied now, later or never.

    Repeated with the same id it is applied once at most; with another id it may be applied twice.
    """

    code = "outcome_unknown"


class NotRecent(Unavailable):
    """Raised where no server that may be asked has the place that a read needs."""

    code = "read_not_recent"


class Overloaded(Unavailable):
    """Raised when a limit is reached: commands under way, or the length of the lane's queue."""

    code = "overloaded"


class DatabaseUnavailable(Unavailable):
    """Raised by reads."""

    code = "database_unavailable"
