"""The whole of it: the plan, the runs, the ratios, the report."""

import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from msgspec import Struct

from tests.bench import ratios, report
from tests.bench.durable.packages import CannotBeHad
from tests.bench.durable.serving import REQUIRED_BY
from tests.bench.measurement import Measurement
from tests.bench.plan import by_section, interleaved, runs_of
from tests.bench.progress import plan_text, progress
from tests.bench.ratios import COUNTED_MIN
from tests.bench.results import Results, RowResult
from tests.bench.rows import TOO_SHORT, Row, RunFailed
from tests.bench.run import Runner
from tests.bench.session import Session, running_session
from tests.bench.table import ratio_table, section_table
from tests.bench.verdict import verdict
from tests.support.servers import WRK

RUN_OVERHEAD_S = 0.75
SETUP_S = 25.0
WINDOW_MAX_S = 30.0
"""The longest window that a slow row gets so that enough of its writes are counted."""
_WANTED = 1.5 * COUNTED_MIN
"""A window is made so long that this many would be counted at the rate that was measured."""
_SYNCS = 200


class Options(Struct, frozen=True, kw_only=True):
    """How long, how often, and where to."""

    repeats: int
    duration_s: float
    warm_s: float
    report: Path
    log_entries: int
    backlog: int
    is_brief: bool = False

    @classmethod
    def of(
        cls, *, is_full: bool, repeats: int | None, duration_s: float | None, warm_s: float | None, report: Path
    ) -> "Options":
        return cls(
            repeats=repeats or (5 if is_full else 3),
            duration_s=duration_s or (5.0 if is_full else 1.0),
            warm_s=warm_s or (1.0 if is_full else 0.5),
            report=report,
            log_entries=5_000_000 if is_full else 500_000,
            backlog=1_000_000 if is_full else 50_000,
        )


def run_benchmark(rows: Sequence[Row], options: Options) -> Results:
    """Run the rows, print what comes out, write the report."""
    run_s = options.duration_s + options.warm_s + RUN_OVERHEAD_S
    print(plan_text(rows, options.repeats, run_s, SETUP_S), flush=True)
    began = time.monotonic()
    print(f"  a row of which fewer than {COUNTED_MIN} writes are counted gets a longer window", flush=True)
    programs = [WRK] if any(row.method == "http" for row in rows) else []
    with running_session(programs) as session:
        session.log_entries, session.backlog = options.log_entries, options.backlog
        results = Results(
            started_at=datetime.now(UTC),
            machine=_machine(session),
            settings={
                "repeats": options.repeats,
                "duration_s": options.duration_s,
                "warm_s": options.warm_s,
                "log_entries": options.log_entries,
                "backlog": options.backlog,
            },
        )
        rows, results.left_out = available(rows)
        for text in results.left_out:
            print(f"  left out: {text}", flush=True)
        runner = Runner(session, options.duration_s, options.warm_s)
        windows: dict[str, float] = {}
        done, runs = 0, runs_of(rows, options.repeats)
        for section, chosen in by_section(rows).items():
            found = {row.key: RowResult(row) for row in chosen}
            results.rows.extend(found.values())
            for row, repeat in interleaved(chosen, options.repeats):
                done += 1
                outcome = _run(runner, row, repeat, windows.get(row.key))
                longer_s = None if options.is_brief else _longer_s(outcome, windows.get(row.key, options.duration_s))
                if longer_s is not None:
                    windows[row.key] = longer_s
                    print(
                        progress(done, runs, row, outcome), f"(too few writes: once more, {longer_s:.1f} s)", flush=True
                    )
                    outcome = _run(runner, row, repeat, longer_s)
                if isinstance(outcome, Measurement):
                    found[row.key].measurements.append(outcome)
                else:
                    found[row.key].failures.append(outcome)
                print(progress(done, runs, row, outcome), flush=True)
            print(f"\n{section_table(section, list(found.values()))}\n", flush=True)
        results.took_s = time.monotonic() - began
    results.ratios.extend(ratios.ratios(results))
    print(ratio_table(results.ratios))
    print("\n".join(["", *(sentence.replace("**", "") for sentence in verdict(results)), ""]))
    for path in report.write(results, options.report):
        print(f"  {path}")
    print(f"took {results.took_s:.0f} s")
    return results


def available(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows that this machine can run, and why others cannot be."""
    kept: list[Row] = []
    left_out: list[str] = []
    for row in rows:
        try:
            if row.gateway_mode in REQUIRED_BY:
                REQUIRED_BY[row.gateway_mode]()
        except CannotBeHad as error:
            left_out.append(f"{row.title}: {error}")
        else:
            kept.append(row)
    return kept, left_out


def longer_window_s(found: Measurement | None, window_s: float) -> float | None:
    """The window with which enough writes are counted, at most WINDOW_MAX_S; None where this one is long enough.

    `found` is what was measured with this window; None: nothing was done in it.
    """
    counted = 0 if found is None else found.counted
    if counted >= COUNTED_MIN:
        return None
    wanted_s = min(WINDOW_MAX_S, window_s * _WANTED / counted if counted else WINDOW_MAX_S)
    return wanted_s if wanted_s > window_s else None


def _longer_s(outcome: Measurement | str, window_s: float) -> float | None:
    if isinstance(outcome, str):
        return longer_window_s(None, window_s) if outcome == TOO_SHORT else None
    return longer_window_s(outcome, window_s)


def _run(runner: Runner, row: Row, repeat: int, window_s: float | None) -> Measurement | str:
    """The measurement, or why there is none."""
    try:
        return runner.run(row, repeat, window_s)
    except RunFailed as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - one row that fails must not hide the others
        return f"{type(error).__name__}: {error}"


def _machine(session: Session) -> dict[str, str]:
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": f"{len(os.sched_getaffinity(0))} ({_processor()})",
        "memory": f"{memory_bytes / 2**30:.0f} GiB",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "sync of a file on the servers' disk": f"{_sync_ms(session.directory):.2f} ms",
        "servers": ", ".join(f"{server.title} {server.version}" for server in session.servers.servers),
    }


def _processor() -> str:
    """Its name, as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _sync_ms(directory: Path) -> float:
    """The median time in which a page at the end of a file is synced: what every commit waits for, at least."""
    page = bytes(8192)
    took_s = []
    with (directory / "sync").open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(page)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            took_s.append(time.perf_counter() - begun)
    return median(took_s) * 1000
