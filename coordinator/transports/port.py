"""The port for transports: a transport carries commands to their lanes, and outcomes and effects back.

A transport makes each lane the promises of docs/ARCHITECTURE.md ("The transport"), which
`tests/support/transport_contract.py` checks on each of them. A delivery's tag is opaque and ordered within its channel.
How a settled delivery is acknowledged is the transport's affair.
"""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self

from msgspec import Struct

from coordinator.client.writes import Writes
from coordinator.lane.control import DeadEffect
from coordinator.lane.delivery import Settlement
from coordinator.lane.high_water import Mark
from coordinator.protocol.attempted import Attempted
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.awaited import Late
from coordinator.runtime.settings import LaneSettings
from coordinator.service.commands import Command
from coordinator.service.principal import Principal
from coordinator.service.trace_context import TraceContext
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.inbox import Inbox

if TYPE_CHECKING:
    from coordinator.client.command_log import CommandLog

Confirmed = Callable[[Sequence[OutboxEntry]], None]
"""Takes the emitted commands that the transport has made safe. May be called from any thread."""


class Carrier(Protocol):
    """Carries out a lane's decisions. Called by the lane's thread."""

    def settle(self, channel: int, settlement: Settlement) -> None:
        """Send the outcomes, publish the emitted commands, and acknowledge: in the order of the calls.

        A channel that is gone acknowledges nothing, and its emitted commands are sent no more: the next channel's
        process reads in the outbox what is still to be sent, in its order.
        """

    def keep(self, channel: int, mark: Mark) -> None:
        """Keep how far the lane has come, for its next process: apart from its database, and on disk if there is one.

        If that cannot be done at once, it is tried until it is done: an idle lane has nothing newer to keep.
        A process gets it through its inbox, before the first delivery of a channel.
        """

    def stand_by(self, channel: int) -> None:
        """Give the lane up, and queue up behind its other consumers."""

    def begin_again(self, channel: int) -> bool:
        """Have the deliveries come again on another channel, with the mark as it is by then.

        False: there will be no other channel, since no other process can have kept a mark.
        """

    def hand_over(self, channel: int) -> bool:
        """Give the lane up once the mark is kept that was told last, and queue up behind its other consumers.

        Whoever is next must not know less of the lane. The deliveries come again on another channel. False: there is no
        other consumer to whom it could be given up.
        """


class LaneTransport(Carrier, Protocol):
    """Delivers one lane's commands to one consumer at a time, in order, into an `Inbox`.

    Deliveries that were unacknowledged when a channel ended come again, in their order, on the next one.
    """

    failure: Exception | None
    """The error that ended it: a ConfigurationError, or a defect."""

    @property
    def unready_reason(self) -> str | None:
        """Why the lane's commands do not arrive, or their outcomes do not leave; None: they do."""

    @property
    def late(self) -> Late | None:
        """Something sent to be made safe, or a sign of a connection's life, if it takes too long. For any thread."""

    def start(self, on_emitted_confirmed: Confirmed) -> None:
        """Deliver, and go on whenever a connection is lost, until `stop`."""

    def wake(self, command_id: str) -> None:
        """Have a marker of this id delivered to the active consumer of the lane."""

    def stop(self, timeout_s: float) -> bool:
        """Carry out the decisions that were given, and stop delivering. False: that took longer than the timeout."""


class BrokerTransport(LaneTransport, Protocol):
    """One that also serves a lane without a channel: one that runs in this process, and emits for lanes elsewhere."""

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """Publish what it has emitted, whatever becomes of the channel. `settle` withdraws it, with any channel."""


class CommandTransport(Writes, Protocol):
    """Issues commands. Used within one event loop.

    As an asynchronous context manager it starts, waits until it is connected, and closes.
    """

    @property
    def connected(self) -> bool:
        """Whether commands are taken, and outcomes arrive."""

    @property
    def problem(self) -> str | None:
        """Why it is not connected, in words for anybody, without hosts; None: it is connected."""

    @property
    def unready_reason(self) -> str:
        """Why it is not connected, for the log: it may name hosts."""

    @property
    def account(self) -> str | None:
        """The broker's account that publishes; None: there is none. Lanes that do not believe it note it instead."""

    def pending(self, command_id: str) -> bool | None:
        """Whether this process issued the command and has not seen its outcome yet; None: it does not know."""

    def settled_place(self, command_id: str) -> tuple[str, int] | None:
        """The lane and the sequence of a command whose outcome this process has seen lately; None: it knows of none.
        A database that has not come so far does not have the command yet."""

    async def waiting(self, lane: str) -> int | None:
        """How many messages wait in a lane's queue, as of a moment ago, and no consumer holds; None: it cannot be seen.
        Never raises for that."""

    async def start(self) -> None:
        """Connect in the background, and again whenever a connection is lost."""

    async def wait_connected(self, timeout_s: float) -> None:
        """Return once commands can be issued. Raises BrokerUnavailable after that time, and what `failed` does."""

    async def failed(self) -> NoReturn:
        """Raise the error that ended it for good: a ConfigurationError, or a defect. The process is to end then."""

    async def close(self) -> None:
        """Disconnect. Accepted commands are settled all the same; this process does not learn of it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class EffectDelivery(Struct, frozen=True):
    """One effect as it was delivered, with the record of the attempts at it.

    `emitted_at_s`: when its lane emitted it, in whole seconds since the Unix epoch; None: unknown. `copy` tells its
    dead letter from that of a later replay. `receipt` is the transport's, for the acknowledgement.
    """

    message: CommandMessage
    attempted: Attempted
    copy: str
    emitted_at_s: int | None = None
    receipt: Any = None


class EffectTransport(Protocol):
    """Delivers a service's effects to its workers, each to one of them, and brings the results to its lane.

    Used within one event loop. Unacknowledged effects are delivered again, to any worker. A result waits, however long,
    for a queue that takes it.
    """

    @property
    def unready_reason(self) -> str | None:
        """Why effects do not arrive, or their results do not leave; None: they do."""

    @property
    def late(self) -> Late | None:
        """Something sent to be made safe, or a sign of a connection's life, if it takes too long."""

    def start(
        self, take: Callable[[EffectDelivery], None], on_defect: Callable[[BaseException], None]
    ) -> Sequence["asyncio.Future[Any]"]:
        """Deliver, and go on whenever a connection is lost. The returned task ends only by a failure, for good."""

    async def bring(
        self,
        command: Command,
        command_id: str,
        lane: str,
        actor: Principal | None,
        trace: TraceContext | None = None,
        result_of: str | None = None,
    ) -> None:
        """Bring a result to its lane; return once it is safe. Raises InvalidCommand if no lane could read it.

        `actor` is the effect's, and so the result's. `trace` is that of the effect. `result_of` names the effect, as
        `TYPE ID`.
        """

    async def bury(
        self, dead: DeadEffect, copy: str, actor: Principal | None, trace: TraceContext | None = None
    ) -> None:
        """Bring an unreadable effect to the lane; return once it is safe. `actor` and `trace` are the effect's."""

    async def put_back(self, delivery: EffectDelivery, delay_s: float) -> bool:
        """Have the effect come again after about this delay, to any worker. False: that is impossible now."""

    def has(self, delivery: EffectDelivery) -> bool:
        """Whether an effect is still with this worker: with a lost connection it went, and comes again to any."""

    def acknowledge(self, deliveries: Sequence[EffectDelivery]) -> None:
        """These effects need not come again. Those of a connection that is gone come again all the same."""

    def stop(self) -> None:
        """Leave the effects that wait here for their next attempt to other workers."""

    async def close(self) -> None:
        """Disconnect."""


class Transport(Protocol):
    """Everything that the processes of an application need of one. `open_transport` makes it from an address."""

    def lane(
        self,
        lane: str,
        inbox: Inbox,
        settings: LaneSettings,
        *,
        holder: str,
        has_effects: bool = False,
        last_place: Callable[[], str | None] | None = None,
    ) -> BrokerTransport:
        """For the consumer of a lane. `holder` names its process; `has_effects`: its service makes calls outside.

        `last_place` asks the lane's database for the `place` of the last arrival that it has settled, with which a
        transport may see whether the broker still has what it had; it blocks, and raises Unavailable.
        """

    def commands(
        self,
        name: str,
        *,
        confirm_timeout_s: float,
        wait_s: float,
        in_flight_max: int,
        log: "CommandLog | None",
        is_system: bool = False,
        as_account: bool = False,
    ) -> CommandTransport:
        """For issuers of commands. `name` names the process where the transport shows its clients.

        `issue` waits `wait_s` for an outcome by default, and `confirm_timeout_s` until a command is safe.
        At most `in_flight_max` commands are under way. A lost outcome is read from `log`. With `is_system` the system's
        own commands may be issued too. With `as_account` the broker's account asks for those for which nobody is named.
        """

    def effects(self, service: str, prefetch: int) -> EffectTransport:
        """For the workers of a service's effects, each of which has at most `prefetch` at a time."""
