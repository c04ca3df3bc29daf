"""What a transport is: it carries commands to their lanes, and outcomes and effects back.

A transport makes each lane the promises of docs/ARCHITECTURE.md ("The transport"), which
`tests/support/transport_contract.py` checks on each of them. A delivery's tag is opaque and ordered within its channel.
How a settled delivery is acknowledged is the transport's affair.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from coordinator.lane.delivery import Settlement
from coordinator.stores.lane_tables import OutboxEntry

Confirmed = Callable[[Sequence[OutboxEntry]], None]
"""Is told of emitted commands that the transport has safe. May be called from any thread."""


class Carrier(Protocol):
    """Carries out what a lane decided. Called by the lane's thread."""

    def settle(self, channel: int, settlement: Settlement) -> None:
        """Send the outcomes, publish what was emitted, and acknowledge: in the order of the calls."""

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        """Publish emitted commands."""

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
