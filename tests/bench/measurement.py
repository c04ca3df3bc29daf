"""Numbers: percentiles, one run's measurement, and several runs of one row taken together."""

from array import array
from collections.abc import Sequence
from math import ceil
from statistics import median

from msgspec import Struct, field

GROUPS = ("clients", "broker", "database", "coordinator", "gateway")
"""Process groups whose CPU time is counted. A worker of an alternative stands in the coordinator's place."""

PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of them do not exceed (nearest rank); None of nothing."""
    if not ordered:
        return None
    # A product such as 0.999 * 1000 may be a little above the integer that it is.
    rank = ceil(share * len(ordered) - 1e-9)
    return ordered[max(rank, 1) - 1]


class ClientResult(Struct):
    """What one client process saw. `offered` to `errors` are of the window; the totals are of the whole run."""

    offered: int = 0
    rejected: int = 0
    errors: int = 0
    retries: int = 0
    applied_total: int = 0
    unknown_total: int = 0
    latencies_s: "array[float]" = field(default_factory=lambda: array("d"))
    error_texts: list[str] = []
    applied: int | None = None
    """Operations applied in the window, where there is not one latency for each."""
    percentiles_s: dict[str, float] = {}
    """Latencies as PERCENTILES names them, of a client that is alone and keeps no latency of each."""


class Measurement(Struct, frozen=True, kw_only=True):
    """One run of one row. Rates are per second of the window."""

    offered: float
    achieved: float
    rejected: float
    errors: int
    retries: int
    latency_ms: dict[str, float | None]
    cpu_s_per_1000: dict[str, float]
    applied_total: int
    unknown_total: int
    invariant: str
    lost: int
    violated: bool
    counted: int
    """Writes that were carried out or refused within the window: what all of its figures stand on."""
    error_texts: list[str] = []
    extra: dict[str, float] = {}


def measured(
    results: Sequence[ClientResult],
    duration_s: float,
    cpu_s: dict[str, float],
    verdict: tuple[str, int, bool],
    extra: dict[str, float] | None = None,
) -> Measurement:
    """Put the clients of one run together."""
    latencies = sorted(latency for result in results for latency in result.latencies_s)
    applied = sum(len(result.latencies_s) if result.applied is None else result.applied for result in results)
    # Refusing is doing: a rejection goes the same way.
    counted = applied + sum(result.rejected for result in results)
    invariant, lost, violated = verdict
    texts = [text for result in results for text in result.error_texts]
    latency = {name: percentile(latencies, share) for name, share in PERCENTILES.items()}
    for result in results:
        latency.update(result.percentiles_s)
    return Measurement(
        offered=sum(result.offered for result in results) / duration_s,
        achieved=applied / duration_s,
        rejected=sum(result.rejected for result in results) / duration_s,
        errors=sum(result.errors for result in results),
        retries=sum(result.retries for result in results),
        latency_ms={name: None if value is None else value * 1000 for name, value in latency.items()},
        cpu_s_per_1000=per_1000(cpu_s, counted),
        applied_total=sum(result.applied_total for result in results),
        unknown_total=sum(result.unknown_total for result in results),
        invariant=invariant,
        lost=lost,
        violated=violated,
        counted=counted,
        error_texts=list(dict.fromkeys(texts))[:5],
        extra=extra or {},
    )


def per_1000(cpu_s: dict[str, float], writes: int) -> dict[str, float]:
    return {group: value * 1000 / writes for group, value in cpu_s.items()} if writes else {}


class Spread(Struct, frozen=True):
    """Several measurements of the same thing."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread(median(known), min(known), max(known)) if known else None
