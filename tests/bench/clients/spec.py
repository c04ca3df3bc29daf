"""What a client process is told, and when it measures."""

from msgspec import Struct

from tests.bench.workloads import Workload


class Window(Struct, frozen=True):
    """Of the monotonic clock, which all processes of a machine share. Before `begin` is warm-up."""

    start: float
    begin: float
    end: float

    @property
    def duration_s(self) -> float:
        return self.end - self.begin


class Spec(Struct, frozen=True, kw_only=True):
    """One client process of one run.

    `concurrency` bounds what is under way: callers, connections where each has one. With `rate` (per second, of this
    process) operations begin when it is their time, and not when the one before is done. `target` is an address, or
    the name of a lane. `tokens` is a file with tokens for HTTP, one on each line.
    """

    method: str
    workload: Workload
    environment: dict[str, str]
    target: str
    concurrency: int = 32
    connections: int = 32
    rate: float | None = None
    batch: int = 500
    total: int | None = None
    seed: int = 1
    run: str = "run"
    directory: str = ""
    tokens: str | None = None
