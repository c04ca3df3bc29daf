"""A row of the report: one way to write under one load."""

from msgspec import Struct

from tests.bench.workloads import Workload

TOO_SHORT = "nothing was done within the window: it is too short for this row on this machine"


class RunFailed(Exception):
    """A run has no measurement; the text says why."""


class Row(Struct, frozen=True, kw_only=True):
    """`key` is unique. `section` is what it is compared within; the repeats of a section's rows are interleaved.

    `where` is a database's kind, or the name of a lane of its own. `tier` "full" leaves it out of the short run.
    `traced_share`: its lane and its gateways export spans about such a share of the requests.
    `is_on_redis`: its lane's broker is a Redis that syncs.
    `times`: it is run so many times as often as others, where a small difference is looked for.
    """

    key: str
    section: str
    title: str
    method: str
    workload: Workload
    database: str = "postgresql"
    lane: str | None = None
    lane_settings: dict[str, str] = {}
    concurrency: int = 32
    clients: int = 1
    rate: float | None = None
    batch: int = 500
    gateways: int = 0
    gateway_mode: str | None = None
    traced_share: float | None = None
    worker: str | None = None
    is_on_redis: bool = False
    may_lose: bool = False
    is_python: bool = True
    tier: str = "short"
    note: str = ""
    repeats: int | None = None
    times: int = 1

    @property
    def slow_start_s(self) -> float:
        """How much longer it warms up: thousands of commands at once; connections of its own to be made."""
        if self.is_durable:
            return 1.5
        return 0.5 if self.method in ("lane", "http") or self.method.startswith("pgbench") else 0.0

    @property
    def is_durable(self) -> bool:
        """Whether DBOS or Restate writes."""
        return self.gateway_mode is not None and self.gateway_mode.startswith(("dbos", "restate"))

    @property
    def is_batching(self) -> bool:
        """Whether it merges writes in the memory of one process: that is faster, and another thing."""
        return "batching" in self.method

    @property
    def is_lane(self) -> bool:
        return self.lane is not None
