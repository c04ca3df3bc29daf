"""What pages show of a lane: typed, and the same for all viewers."""

from datetime import datetime

from msgspec import Struct

from coordinator.operate.status import LaneStatus


class SeenProcess(Struct, frozen=True, kw_only=True):
    """A coordinator, as its health endpoint tells. `state`: active, standby, unready, or away.

    `held` messages were delivered to it and wait there. `reason` says why it does not do its work: `paused by an
    operator: …`, or what suspends or blocks it.
    """

    url: str
    lane: str | None
    state: str
    epoch: int = 0
    held: int = 0
    reason: str | None = None


class LaneLatency(Struct, frozen=True, kw_only=True):
    """From the time in a command's id (UUID version 7) until its lane settled it, in ms, of the last `commands`."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    commands: int


class RecentCommand(Struct, frozen=True, kw_only=True):
    """A command that was settled while somebody watched."""

    sequence: int
    command_id: str
    type: str
    status: str
    settled_at: datetime
    actor: str | None
    latency_ms: float | None


class LanePoint(Struct, frozen=True, array_like=True):
    """A lane at one time, for charts: seconds since 1970, backlog, commands a second, p95 in ms."""

    at_s: float
    backlog: int | None
    rate: float | None
    p95_ms: float | None


class LaneView(Struct, frozen=True, kw_only=True):
    """A lane as it is now.

    `state`: running, idle, paused, suspended, stuck (something waits, and nothing is settled), or unknown: what would
    tell is away. `why` says it in words. `backlog` are the messages that wait in its queue, and those that its
    coordinators hold, where their addresses are known; `is_least`: they may hold more. A gateway that is busy puts
    several commands into one message. `oldest_s` is how long the oldest of them has waited, at least: RabbitMQ does not
    tell it, so it is known from when the backlog grew that long. `processes` are those coordinators whose addresses
    are known. `parked` are commands that wait behind a failed one.
    """

    state: str
    why: str | None
    status: LaneStatus
    backlog: int | None
    is_least: bool
    oldest_s: float | None
    latency: LaneLatency | None
    parked: int | None
    processes: list[SeenProcess]
    point: LanePoint
    recent: list[RecentCommand]
