"""What a transport is: it carries commands to their lanes, and outcomes and effects back.

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
from coordinator.runtime.settings import LaneSettings
from coordinator.service.commands import Command
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.inbox import Inbox

if TYPE_CHECKING:
    from coordinator.client.command_log import CommandLog

Confirmed = Callable[[Sequence[OutboxEntry]], None]
"""Is told of emitted commands that the transport has safe. May be called from any thread."""


class Carrier(Protocol):
    """Carries out what a lane decided. Called by the lane's thread."""

    def settle(self, channel: int, settlement: Settlement) -> None:
        """Send the outcomes, publish what was emitted, and acknowledge: in the order of the calls."""

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """Publish emitted commands."""

    def keep(self, channel: int, mark: Mark) -> None:
        """Keep how far the lane has come, for its next process: apart from its database, and on disk if there is one.

        A process gets it, by its inbox, before the first delivery of a channel.
        """

    def stand_by(self, channel: int) -> None:
        """Give the lane up, and queue up behind its other consumers."""


class LaneTransport(Carrier, Protocol):
    """Delivers one lane's commands to one consumer at a time, in order, into an `Inbox`.

    What was not acknowledged on a channel that ended is delivered again, in its order, on the next one.
    """

    failure: Exception | None
    """What ended it: a ConfigurationError, or a defect."""

    @property
    def unready_reason(self) -> str | None:
        """Why the lane's commands do not come, or their outcomes do not go; None: they do."""

    def start(self, on_emitted_confirmed: Confirmed) -> None:
        """Deliver, and go on whenever a connection is lost, until `stop`."""

    def wake(self, command_id: str) -> None:
        """Have a marker of this id delivered to whichever consumer of the lane is the active one."""

    def stop(self, timeout_s: float) -> bool:
        """Carry out what was given, and deliver no more. False: that took longer than the timeout."""


class CommandTransport(Writes, Protocol):
    """Issues commands. Used within one event loop.

    As an asynchronous context manager it starts, waits until it is connected, and closes.
    """

    @property
    def connected(self) -> bool:
        """Whether commands are taken, and outcomes come."""

    @property
    def unready_reason(self) -> str:
        """Why it is not connected."""

    def pending(self, command_id: str) -> bool | None:
        """Whether this process issued the command and has not seen its outcome yet; None: it does not know."""

    async def start(self) -> None:
        """Connect in the background, and again whenever a connection is lost."""

    async def wait_connected(self, timeout_s: float) -> None:
        """Return once commands can be issued. Raises BrokerUnavailable after that time, and what `failed` does."""

    async def failed(self) -> NoReturn:
        """Raise what ended it for good: a ConfigurationError, or a defect. The process is to end then."""

    async def close(self) -> None:
        """Disconnect. What was accepted is settled all the same; nobody here learns of it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class EffectDelivery(Struct, frozen=True):
    """One effect as it was delivered, with what is known of the attempts at it.

    `emitted_at_s`: when its lane emitted it, in whole seconds since the Unix epoch; None: that is not known. `copy`
    tells its dead letter from that of a later replay. `receipt` is the transport's, for the acknowledgement.
    """

    message: CommandMessage
    attempted: Attempted
    copy: str
    emitted_at_s: int | None = None
    receipt: Any = None


class EffectTransport(Protocol):
    """Delivers a service's effects to its workers, each to one of them, and brings what came of them to its lane.

    Used within one event loop. What was not acknowledged is delivered again, to any worker. All that it brings waits,
    however long, for a queue that takes it.
    """

    @property
    def unready_reason(self) -> str | None:
        """Why effects do not come, or their results do not go; None: they do."""

    def start(
        self, take: Callable[[EffectDelivery], None], on_defect: Callable[[BaseException], None]
    ) -> Sequence["asyncio.Future[Any]"]:
        """Deliver, and go on whenever a connection is lost. What it returns never ends but by a failure, for good."""

    async def bring(self, command: Command, command_id: str, lane: str) -> None:
        """Bring a result to its lane; return once it is safe. Raises InvalidCommand if no lane could read it."""

    async def bury(self, dead: DeadEffect, copy: str) -> None:
        """Bring to the lane what nothing could be made of; return once it is safe."""

    async def put_back(self, delivery: EffectDelivery, delay_s: float) -> bool:
        """Have the effect come again, about so much later, and to any worker. False: that cannot be now."""

    def acknowledge(self, deliveries: Sequence[EffectDelivery]) -> None:
        """They need not come again. Those of a connection that is gone do all the same."""

    def stop(self) -> None:
        """Leave to other workers what waits here for its next attempt."""

    async def close(self) -> None:
        """Disconnect."""


class Transport(Protocol):
    """Everything that the processes of an application need of one. `open_transport` makes it of an address."""

    def lane(
        self, lane: str, inbox: Inbox, settings: LaneSettings, *, holder: str, has_effects: bool = False
    ) -> LaneTransport:
        """For the consumer of a lane. `holder` names its process; `has_effects`: its service makes calls outside."""

    def commands(
        self,
        name: str,
        *,
        confirm_timeout_s: float,
        wait_s: float,
        in_flight_max: int,
        log: "CommandLog | None",
        is_system: bool = False,
    ) -> CommandTransport:
        """For whoever issues commands. `name` names the process where the transport shows its clients.

        `wait_s`: how long `issue` waits for an outcome by default; `confirm_timeout_s`: until a command is safe.
        At most `in_flight_max` are under way. An outcome that is lost is read from `log`. With `is_system` also what
        only the system says may be issued.
        """

    def effects(self, service: str, prefetch: int) -> EffectTransport:
        """For the workers of a service's effects, each of which has at most `prefetch` at a time."""
