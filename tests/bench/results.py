"""All that one benchmark has found: measurements by row, what failed, and on what machine."""

from datetime import datetime

from msgspec import Struct, field

from tests.bench.measurement import GROUPS, PERCENTILES, Measurement, Spread, spread
from tests.bench.rows import Row


class RowResult(Struct):
    """The repeats of one row; `failures` are runs without a measurement."""

    row: Row
    measurements: list[Measurement] = []
    failures: list[str] = []

    def rate(self) -> Spread | None:
        return spread([measurement.achieved for measurement in self.measurements])

    def offered(self) -> Spread | None:
        return spread([measurement.offered for measurement in self.measurements])

    def rejected(self) -> Spread | None:
        return spread([measurement.rejected for measurement in self.measurements])

    def latency_ms(self, name: str) -> Spread | None:
        return spread([measurement.latency_ms.get(name) for measurement in self.measurements])

    def cpu_us(self, group: str) -> Spread | None:
        """CPU time of these processes a write, in microseconds."""
        found = [measurement.cpu_s_per_1000.get(group) for measurement in self.measurements]
        return spread([None if value is None else value * 1000 for value in found])

    def extra(self, name: str) -> Spread | None:
        return spread([measurement.extra.get(name) for measurement in self.measurements])

    @property
    def errors(self) -> int:
        return sum(measurement.errors for measurement in self.measurements) + len(self.failures)

    @property
    def counted(self) -> int:
        """The writes that were counted in the run that has the fewest of them; 0 where none was measured."""
        return min((measurement.counted for measurement in self.measurements), default=0)

    @property
    def lost(self) -> int:
        return sum(measurement.lost for measurement in self.measurements)

    @property
    def is_violated(self) -> bool:
        return any(measurement.violated for measurement in self.measurements)

    @property
    def verdict(self) -> str:
        """What the invariant of the worst run says."""
        worst = next((one for one in self.measurements if one.violated), None)
        return (worst or self.measurements[-1]).invariant if self.measurements else "not verified: no measurement"

    @property
    def problems(self) -> list[str]:
        """Why the benchmark as a whole has failed, if it is for this row."""
        found = [f"{self.row.key}: {text}" for text in self.failures]
        for one in self.measurements:
            found += [f"{self.row.key}: {one.errors} errors: {'; '.join(one.error_texts)}"] if one.errors else []
            if one.violated and not self.row.may_lose:
                found.append(f"{self.row.key}: {one.invariant}")
        return list(dict.fromkeys(found))


class Ratio(Struct, frozen=True, kw_only=True):
    """A comparison of two rows' medians, against a target if there is one.

    `value` is None where a row is missing, or has too few counted writes: then `detail` says so.
    """

    title: str
    value: float | None
    target: float | None
    at_most: bool = False
    unit: str = "times"
    detail: str = ""

    @property
    def verdict(self) -> str:
        """`reached` or `missed` where there are a value and a target."""
        if self.value is None:
            return "not measured"
        if self.target is None:
            return ""
        is_reached = self.value <= self.target if self.at_most else self.value >= self.target
        return "reached" if is_reached else "missed"


class Results(Struct):
    """One session."""

    started_at: datetime
    machine: dict[str, str]
    settings: dict[str, float]
    rows: list[RowResult] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Rows that could not be run on this machine, and why."""
    took_s: float = 0.0

    def find(self, key: str) -> RowResult | None:
        return next((result for result in self.rows if result.row.key == key and result.measurements), None)

    @property
    def problems(self) -> list[str]:
        return [problem for result in self.rows for problem in result.problems]


__all__ = ["GROUPS", "PERCENTILES", "Ratio", "Results", "RowResult"]
