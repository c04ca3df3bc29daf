"""Which faults strike, where and when: decided by the seed alone, before anything runs."""

import random
from collections.abc import Collection
from enum import StrEnum

from msgspec import Struct

LANES = ("users", "items", "payments")


class Kind(StrEnum):
    """Everything that is done to the system."""

    KILL_ACTIVE = "SIGKILL of the active coordinator"
    KILL_STANDBY = "SIGKILL of the standby"
    TERM_ACTIVE = "SIGTERM of the active coordinator"
    ROLLING_RESTART = "rolling restart of both coordinators"
    STOP_ACTIVE = "SIGSTOP of the active coordinator until a takeover, SIGCONT"
    KILL_DATABASE = "SIGKILL of a database"
    CUT_DATABASE = "connections to a database cut"
    STALL_DATABASE = "connections to a database stalled"
    LOSE_COMMIT = "connection cut at COMMIT: request lost"
    LOSE_COMMITTED = "connection cut at COMMIT: answer lost"
    LATE_COMMIT = "COMMIT held back, connection cut, COMMIT delivered late"
    KILL_BROKER = "SIGKILL of the broker"
    CUT_BROKER = "connections to the broker cut"
    STALL_BROKER = "the active coordinator's connections to the broker stalled"
    KILL_STALLED = "the active coordinator's connections to the broker stalled, then SIGKILL"
    ALARM = "memory alarm of the broker"
    DISK_ALARM = "disk alarm of the broker"
    FILL_DISK = "the broker's filesystem filled until its disk alarm"
    FREEZE_DISK = "the broker's filesystem frozen: it cannot write or sync"
    PAUSE_BROKER = "broker stalled: pulses of SIGSTOP and SIGCONT"
    PAUSE_DATABASE = "database stalled: SIGSTOP, SIGCONT"
    KILL_CACHE = "SIGKILL of the cache"
    PAUSE_CACHE = "cache stalled: SIGSTOP, SIGCONT"
    STALL_CACHE = "the active coordinator's connections to the cache stalled"
    KILL_GATEWAY = "SIGKILL of a gateway with requests in flight"
    KILL_LEADER_NODE = "SIGKILL of the node that leads a lane's queue"
    KILL_FOLLOWER_NODE = "SIGKILL of a node that follows"
    KILL_REPLY_NODE = "SIGKILL of the node of a queue of outcomes"
    KILL_TWO_NODES = "SIGKILL of two nodes of three"
    RESTART_NODE = "orderly stop and start of a node"
    RESTART_NODES = "rolling restart of all nodes"
    STOP_NODE = "SIGSTOP of a node for longer than net_ticktime, SIGCONT"
    CUT_NODE = "a node's links to both others cut"
    CUT_LINK = "the link between two nodes cut"
    FAIL_OVER = "SIGKILL of the primary, its standby promoted"
    FAIL_OVER_BEHIND = "SIGKILL of the standby and the primary, the former promoted"
    FAIL_OVER_ASYNCHRONOUS = "SIGKILL of a primary that waited for no standby, promoted"
    KILL_REPLICA = "SIGKILL of the standby of the primary"


_WEIGHTS = {
    Kind.KILL_ACTIVE: 30,
    Kind.KILL_STANDBY: 3,
    Kind.TERM_ACTIVE: 8,
    Kind.ROLLING_RESTART: 4,
    Kind.STOP_ACTIVE: 6,
    Kind.KILL_DATABASE: 7,
    Kind.CUT_DATABASE: 6,
    Kind.STALL_DATABASE: 5,
    Kind.LOSE_COMMIT: 5,
    Kind.LOSE_COMMITTED: 6,
    Kind.LATE_COMMIT: 5,
    Kind.KILL_BROKER: 4,
    Kind.CUT_BROKER: 5,
    Kind.STALL_BROKER: 4,
    Kind.KILL_STALLED: 3,
    Kind.ALARM: 3,
    Kind.DISK_ALARM: 2,
    Kind.FILL_DISK: 2,
    Kind.FREEZE_DISK: 4,
    Kind.PAUSE_BROKER: 4,
    Kind.PAUSE_DATABASE: 6,
    Kind.KILL_CACHE: 4,
    Kind.PAUSE_CACHE: 4,
    Kind.STALL_CACHE: 6,
    Kind.KILL_GATEWAY: 6,
    Kind.KILL_LEADER_NODE: 14,
    Kind.KILL_FOLLOWER_NODE: 7,
    Kind.KILL_REPLY_NODE: 10,
    Kind.KILL_TWO_NODES: 4,
    Kind.RESTART_NODE: 4,  # RabbitMQ takes half a minute to stop
    Kind.RESTART_NODES: 1,
    Kind.STOP_NODE: 3,
    Kind.CUT_NODE: 4,
    Kind.CUT_LINK: 4,
    Kind.FAIL_OVER: 10,
    Kind.FAIL_OVER_BEHIND: 5,
    Kind.FAIL_OVER_ASYNCHRONOUS: 5,
    Kind.KILL_REPLICA: 7,
}
OF_THE_FILESYSTEM = frozenset({Kind.FILL_DISK, Kind.FREEZE_DISK})
"""They need a filesystem that is mounted for the run."""
OF_NODES = frozenset(
    {
        *(Kind.KILL_LEADER_NODE, Kind.KILL_FOLLOWER_NODE, Kind.KILL_REPLY_NODE, Kind.KILL_TWO_NODES),
        *(Kind.RESTART_NODE, Kind.RESTART_NODES, Kind.STOP_NODE, Kind.CUT_NODE, Kind.CUT_LINK),
    }
)
"""They strike nodes of a broker that is a cluster."""
OF_REPLICAS = frozenset({Kind.FAIL_OVER, Kind.FAIL_OVER_BEHIND, Kind.FAIL_OVER_ASYNCHRONOUS, Kind.KILL_REPLICA})
"""They strike the primary of a database, or its standby."""
REPLICATED = "users"
"""The lane whose database has a standby where there are clusters."""
OF_THE_CACHE = frozenset({Kind.KILL_CACHE, Kind.PAUSE_CACHE, Kind.STALL_CACHE})
CACHED = "items"
"""The lane that has a cache."""
OF_CLUSTERS = OF_NODES | OF_REPLICAS
"""They need more than one server for one purpose."""
OF_THE_BROKER = OF_THE_FILESYSTEM | OF_NODES | {Kind.KILL_BROKER, Kind.ALARM, Kind.DISK_ALARM, Kind.PAUSE_BROKER}
"""They strike the broker, and so every lane."""
OF_RABBITMQ = OF_THE_FILESYSTEM | {Kind.ALARM, Kind.DISK_ALARM}
"""Another broker has nothing like them."""
_PILED_UP = 0.2


class Fault(Struct, frozen=True, kw_only=True):
    """One fault. `after_s`: since the one before began. `lane` None: all of them.

    `is_alone`: it waits until its lane has recovered from the one before. The others strike into whatever there is.
    """

    number: int
    kind: Kind
    lane: str | None
    after_s: float
    lasts_s: float
    is_alone: bool
    pick: int


class Choice(Struct, frozen=True, kw_only=True):
    """What may strike: only these kinds, or all; only this lane, or any.

    `piled_up`: the share of the faults that strike into whatever there is.
    """

    only: frozenset[Kind] = frozenset()
    lane: str | None = None
    piled_up: float = _PILED_UP


ANYTHING = Choice()


def kind_named(name: str) -> Kind:
    """As the command line has it, such as `kill-active`. Raises KeyError."""
    return Kind[name.upper().replace("-", "_")]


def name_of(kind: Kind) -> str:
    """Its name on the command line."""
    return kind.name.lower().replace("_", "-")


def plan(seed: int, count: int, without: Collection[Kind] = (), choice: Choice = ANYTHING) -> list[Fault]:
    """Every kind once, if there are enough, and the rest by chance; in random order.

    `without`: what cannot be done on this machine. Others take its place, so the same seed is another plan there.
    """
    chance = random.Random(seed)
    chosen = (choice.only or frozenset(Kind)) - frozenset(without)
    weights = {kind: weight for kind, weight in _WEIGHTS.items() if kind in chosen}
    kinds = [*weights] if count >= len(weights) else []
    kinds += chance.choices([*weights], [*weights.values()], k=count - len(kinds))
    chance.shuffle(kinds)
    return [
        Fault(
            number=number,
            kind=kind,
            lane=_lane_of(kind, choice, chance),
            after_s=chance.uniform(0.05, 1.5),
            lasts_s=chance.uniform(0.2, 4.0),
            is_alone=chance.random() >= choice.piled_up,
            pick=chance.randrange(1 << 16),
        )
        for number, kind in enumerate(kinds, 1)
    ]


def _lane_of(kind: Kind, choice: Choice, chance: random.Random) -> str | None:
    if kind in OF_THE_BROKER:
        return None
    if kind in OF_THE_CACHE:
        return CACHED
    return REPLICATED if kind in OF_REPLICAS else choice.lane or chance.choice(LANES)
