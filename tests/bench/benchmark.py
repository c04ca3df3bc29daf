"""The whole of it: the plan, the runs, the ratios, the report."""

import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from tests.bench import ratios, report
from tests.bench.measurement import Measurement
from tests.bench.plan import by_section, interleaved, runs_of
from tests.bench.results import Results, RowResult
from tests.bench.rows import Row, RunFailed
from tests.bench.run import Runner
from tests.bench.session import Session, running_session
from tests.bench.table import plan_text, progress, ratio_table, section_table
from tests.support.servers import WRK

RUN_OVERHEAD_S = 0.75
SETUP_S = 25.0


class Options(Struct, frozen=True, kw_only=True):
    """How long, how often, and where to."""

    repeats: int
    duration_s: float
    warm_s: float
    report: Path
    log_entries: int
    backlog: int

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
        runner = Runner(session, options.duration_s, options.warm_s)
        done, runs = 0, runs_of(rows, options.repeats)
        for section, chosen in by_section(rows).items():
            found = {row.key: RowResult(row) for row in chosen}
            results.rows.extend(found.values())
            for row, repeat in interleaved(chosen, options.repeats):
                done += 1
                outcome = _run(runner, row, repeat)
                if isinstance(outcome, Measurement):
                    found[row.key].measurements.append(outcome)
                else:
                    found[row.key].failures.append(outcome)
                print(progress(done, runs, row, outcome), flush=True)
            print(f"\n{section_table(section, list(found.values()))}\n", flush=True)
        results.took_s = time.monotonic() - began
    results.ratios.extend(ratios.ratios(results))
    print(ratio_table(results.ratios))
    for path in report.write(results, options.report):
        print(f"  {path}")
    print(f"took {results.took_s:.0f} s")
    return results


def _run(runner: Runner, row: Row, repeat: int) -> Measurement | str:
    """The measurement, or why there is none."""
    try:
        return runner.run(row, repeat)
    except RunFailed as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - one row that fails must not hide the others
        return f"{type(error).__name__}: {error}"


def _machine(session: Session) -> dict[str, str]:
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_bytes / 2**30:.0f} GiB",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "servers": ", ".join(f"{server.title} {server.version}" for server in session.servers.servers),
    }
