"""What pages show of a lane: typed, and the same for all viewers."""

from datetime import datetime

from msgspec import Struct

from coordinator.operate.effects_conditions import EffectsCondition
from coordinator.operate.lane_status import LaneStatus
from coordinator.operate.processes import SeenProcess


class LaneLatency(Struct, frozen=True, kw_only=True):
    """From the time in a command's id (UUID version 7) until its lane settled it, in ms, of the last `commands`."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    commands: int


class KindOfCommand(Struct, frozen=True, kw_only=True):
    """How many of the last commands were of this type and had this outcome, and how long they took (`LaneLatency`)."""

    type: str
    status: str
    commands: int
    p50_ms: float | None
    p95_ms: float | None


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

    `state`: running, idle, paused, moved (to another database), suspended, stuck (something waits, and nothing is
    settled, or no coordinator consumes its queue), or unknown: what would tell is away, or was not asked. `why` says
    it in words. `full` says whose commands its queue does not take. `effects` are its service's calls to the outside.
    `backlog` are the messages that wait in its queue, and those that its coordinators hold, where their addresses are
    known; `is_least`: they may hold more. A gateway that is busy puts several commands into one message. `oldest_s`
    is how long the oldest of them has waited, at least: RabbitMQ does not tell it, so it is known from when the
    backlog grew that long. `processes` are those coordinators whose addresses are known. `kinds` are those of the
    last commands that were seen, the most frequent first. `move` says how far a move to another database is, in
    words; None: there is none.
    """

    state: str
    why: str | None
    status: LaneStatus
    backlog: int | None
    is_least: bool
    oldest_s: float | None
    latency: LaneLatency | None
    kinds: list[KindOfCommand]
    full: str | None
    effects: EffectsCondition | None
    processes: list[SeenProcess]
    point: LanePoint
    recent: list[RecentCommand]
    move: str | None = None
