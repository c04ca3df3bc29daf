"""A service's declaration of itself to the coordinator."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import msgspec
from msgspec import Struct

from coordinator.service.allowing import CommandRule, RowsRule, ServiceRule, rule_for_commands
from coordinator.service.commands import C, Command
from coordinator.service.continuation import is_continuation
from coordinator.service.lane_names import lane_of
from coordinator.service.outside_calls import Effects
from coordinator.service.personal import Whose
from coordinator.service.rows import R, Ref, Row
from coordinator.service.unit_of_work import FailurePolicy, Handler, Reads, UnitOfWork
from coordinator.service.upgrades import Arguments, Upgrade, by_type

if TYPE_CHECKING:
    from sqlalchemy import MetaData
else:
    # A module that declares tables loads SQLAlchemy, and the command line alone does not.
    MetaData = Any


T = TypeVar("T", bound=Struct | None)


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
        """Take in the keys of the rows that are gone, and then the rows as they are now.

        A key may be in both: another row is under it now, which began anew, with version 1 if rows have versions.
        Returns 0 when their outcomes may be sent. Otherwise the outcomes must wait, and this is to be called again,
        with the same rows, after the returned number of seconds. The sum of such waits is bounded.
        """

    def beat(self, proof: LeaseProof) -> None:
        """The lane is idle: every commit was announced."""

    def close(self) -> None:
        """Release connections."""


class Service:
    """One service: its lane is `writes.<name>`, its settings are `<NAME>_DATABASE_URL` and so on.

        seats = Service("seats")

        @seats.row
        class Seat(VersionedRow, table="seats", key="id"):
            id: int
            holder: str | None = None

        @seats.handles(BookSeat, target=lambda command: Seat.at(command.id))
        def book(work: UnitOfWork, command: BookSeat) -> Seat: ...

    Rows, handlers and upgrades are declared with `row`, `handles` and `upgrades`, or given here, as `models`,
    `public_models` (those of them that are public), `handlers` and `upgrades`.

    A row's class says how its table is made. `metadata` has the tables of those that have one already (SQLAlchemy), and
    `migrations` is a folder of Alembic revisions. `projection` opens a copy of committed rows, such as a cache.
    `effects` opens the object that makes its calls to the outside, in the processes of `coordinator effects`.

    `allow` says who may issue those public commands, and read those public rows, that have no rule of their own
    (`handles`, `row`; `row_rules` are those of classes of rows): `any_principal`, `has_scope("staff")`, `anybody`, or a
    function of the principal. A gateway that asks its callers who they are does not start while one has no rule.

    `tenant` is the one whose data is meant, where each tenant's is in a database of its own: `for_tenant`.

    Whatever is declared wrongly is found when the service is started, all of it at once (`defects_of`).
    """

    def __init__(
        self,
        name: str,
        *,
        tenant: str | None = None,
        models: Sequence[type[Row]] = (),
        public_models: Sequence[type[Row]] = (),
        handlers: Sequence[Handler[Any]] = (),
        upgrades: Sequence[Upgrade] = (),
        metadata: MetaData | None = None,
        migrations: Path | None = None,
        projection: Callable[[], Projection] | None = None,
        effects: Callable[[], Effects] | None = None,
        allow: ServiceRule | None = None,
        row_rules: Mapping[type[Row], RowsRule] | None = None,
    ) -> None:
        self.name = name
        self.tenant = tenant
        self.lane = lane_of(name, tenant)
        """The name of its lane: that of the service, or as `seats-acme` with a tenant's behind it."""
        self.allow = allow
        self.metadata = metadata
        self.migrations = migrations
        self.projection = projection
        self.effects = effects
        self._models = list(models)
        self._public_models = list(public_models)
        self._handlers = list(handlers)
        self._upgrades = list(upgrades)
        self._row_rules = dict(row_rules or {})

    def __repr__(self) -> str:
        return f"Service({self.lane!r})"

    @overload
    def row(self, model: type[R], /) -> type[R]: ...

    @overload
    def row(
        self, model: None = None, /, *, is_public: bool, allow: RowsRule | None = None
    ) -> Callable[[type[R]], type[R]]: ...

    def row(
        self, model: type[R] | None = None, /, *, is_public: bool = False, allow: RowsRule | None = None
    ) -> type[R] | Callable[[type[R]], type[R]]:
        """Declare a class of rows of this service's database. A decorator: `@seats.row`, `@seats.row(is_public=True)`.

        `is_public`: the gateway that is made from the service shows these rows, with all their fields, to those whom
        `allow` names: `allow=lambda who: {"holder": who.subject}` shows everyone the rows with these values, in the
        columns of an index; True all rows, False none. The rule holds for rows in what commands return, too, also where
        they are not public. A gateway that does not ask who asks shows all to everybody.
        """

        def declare(declared: type[R]) -> type[R]:
            self._models.append(declared)
            if is_public:
                self._public_models.append(declared)
            if allow is not None:
                self._row_rules[declared] = allow
            return declared

        return declare if model is None else declare(model)

    def handles(
        self,
        command: type[C],
        *,
        reads: Reads[C] | None = None,
        target: Callable[[C], Ref[Row]] | None = None,
        on_failure: FailurePolicy = "park",
        is_internal: bool = False,
        is_operators: bool = False,
        allow: CommandRule[C] | None = None,
        of: Whose[C] | None = None,
    ) -> Callable[[Callable[[UnitOfWork, C], T]], Callable[[UnitOfWork, C], T]]:
        """Declare the function that applies a type of command. A decorator; its arguments are those of `Handler`.

        Raises TypeError for `park-key` without a `target`, and where it stands without the class of the command.
        """
        if isinstance(command, FunctionType):
            raise TypeError(
                f"handles is given the function {command.__name__} instead of a class: write "
                f"@{self.name}.handles(…) above it, with the class of the commands that it applies"
            )

        def declare(handle: Callable[[UnitOfWork, C], T]) -> Callable[[UnitOfWork, C], T]:
            self._handlers.append(
                Handler(
                    command,
                    handle,
                    reads=reads,
                    target=target,
                    on_failure=on_failure,
                    is_internal=is_internal,
                    is_operators=is_operators,
                    allow=allow,
                    of=of,
                )
            )
            return handle

        return declare

    def upgrades(
        self, command: type[Command], *, from_version: int, arguments: Any = None
    ) -> Callable[[Callable[[Arguments], Arguments]], Callable[[Arguments], Arguments]]:
        """Declare how older arguments of a command, or of an effect, become those of the next version. A decorator.

            class BookSeat(Command, type="seats.book", version=2):
                seat: Id
                holder: Name

            @seats.upgrades(BookSeat, from_version=1)
            def seat_was_id(arguments: dict[str, Any]) -> dict[str, Any]:
                return {"seat": arguments["id"], "holder": arguments["holder"]}

        A pure function, of one JSON object to another. The upgrades of a command follow one another up to its version.
        Arguments of which a function can make nothing, or nothing that fits, fail their command (`invalid_arguments`).
        `arguments` is the type that they had, such as the fields of the older class in a Struct or a TypedDict:
        gateways show clients its JSON Schema (`/schemas`). Nothing is checked against it: the function decides.
        """

        def declare(change: Callable[[Arguments], Arguments]) -> Callable[[Arguments], Arguments]:
            self._upgrades.append(Upgrade(command, from_version, change, arguments))
            return change

        return declare

    def replace(self, **changes: Any) -> "Service":
        """This service with another name, other handlers and so on; the arguments are those of the constructor."""
        own = {
            "name": self.name,
            "tenant": self.tenant,
            "models": self.models,
            "public_models": self.public_models,
            "handlers": self._handlers,
            "upgrades": self._upgrades,
            "metadata": self.metadata,
            "migrations": self.migrations,
            "projection": self.projection,
            "effects": self.effects,
            "allow": self.allow,
            "row_rules": self._row_rules,
        }
        return Service(**(own | changes))

    def for_tenant(self, tenant: str) -> "Service":
        """This service for one of its tenants: with a lane, a database and settings of its own, `SEATS_ACME_…`.

        What is declared is the same, and so is what a command's type begins with. Declare all of it before.
        """
        return self.replace(tenant=tenant)

    @property
    def models(self) -> tuple[type[Row], ...]:
        """The classes of its rows."""
        return tuple(self._models)

    @property
    def public_models(self) -> tuple[type[Row], ...]:
        """Those of them that anybody may read."""
        return tuple(self._public_models)

    @property
    def row_rules(self) -> Mapping[type[Row], RowsRule]:
        """Who may read which rows, of the classes that have a rule: their own, or the service's."""
        common = {} if self.allow is None else dict.fromkeys(self._public_models, self.allow)
        return {**common, **self._row_rules}

    @property
    def handlers(self) -> tuple[Handler[Any], ...]:
        """How its lane applies commands, each with the upgrades of its command, and with the service's rule."""
        upgrades = by_type(self._upgrades)
        common = None if self.allow is None else rule_for_commands(self.allow)
        return tuple(_whole(handler, upgrades, common) for handler in self._handlers)

    @property
    def versions(self) -> dict[str, int]:
        """The version of each command that its lane applies, by type."""
        return {handler.command.type: handler.command.command_version for handler in self._handlers}

    @property
    def declared_upgrades(self) -> tuple[Upgrade, ...]:
        """How older arguments of its commands and effects become newer ones."""
        return tuple(self._upgrades)

    @property
    def public_handlers(self) -> tuple[Handler[Any], ...]:
        """The handlers of commands that anybody may issue. Continuations are none: lanes make them, of outcomes."""
        return tuple(
            each for each in self.operator_handlers if not (each.is_operators or is_continuation(each.command))
        )

    @property
    def operator_handlers(self) -> tuple[Handler[Any], ...]:
        """The public handlers, and those of commands that only an operator may issue."""
        return tuple(handler for handler in self.handlers if not handler.is_internal)

    @property
    def commands(self) -> tuple[type[Command], ...]:
        """The commands that its lane applies for anybody."""
        return tuple(handler.command for handler in self.public_handlers)


def _whole(
    handler: Handler[Any], upgrades: Mapping[str, Sequence[Upgrade]], common: CommandRule[Any] | None
) -> Handler[Any]:
    """A handler with what the service declares for its command beside it."""
    changes: dict[str, Any] = {}
    if its := upgrades.get(getattr(handler.command, "type", "")):
        changes["upgrades"] = its
    if common is not None and handler.allow is None and not (handler.is_internal or handler.is_operators):
        changes["allow"] = common
    return msgspec.structs.replace(handler, **changes) if changes else handler
