"""`python -m tests.bench`: exit status 1 when a row failed, or when anything but the naive row lost something."""

import logging
import signal
import sys
from pathlib import Path
from types import FrameType

import click
import structlog
from msgspec import structs

from coordinator.service.errors import ConfigurationError
from tests.bench.benchmark import Options, run_benchmark
from tests.bench.catalogue import rows
from tests.bench.plan import selected
from tests.bench.report import read, write
from tests.bench.results import Results
from tests.bench.rows import TOO_SHORT

DATABASES = ("postgresql", "mariadb", "mongodb")


@click.command()
@click.option("--full", is_flag=True, help="Every row, longer, with larger logs and backlogs.")
@click.option("--brief", is_flag=True, help="Whether each row works, whatever it measures: once, for a moment.")
@click.option("--only", multiple=True, help="Only rows whose key begins so, such as `hot-row` or `transfer-2/lane`.")
@click.option(
    "--part",
    type=(click.IntRange(0), click.IntRange(1)),
    default=(0, 1),
    help="Only one part of so many, from 0 on: `--part 2 5`.",
)
@click.option("--databases", help="Only these, separated by commas: postgresql, mariadb, mongodb.")
@click.option("--repeats", type=click.IntRange(1, 100), help="How often each row is run.")
@click.option("--duration-s", type=click.FloatRange(0.2, 600), help="How long a run is measured.")
@click.option("--warm-s", type=click.FloatRange(0.1, 60), help="How long a run goes on before that.")
@click.option("--report", type=click.Path(path_type=Path), default=Path("bench-report"), show_default=True)
@click.option(
    "--redraw",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Measure nothing: write the report of this report.json anew.",
)
@click.option("--list", "is_list", is_flag=True, help="Show the rows and stop.")
def main(
    full: bool,
    brief: bool,
    only: tuple[str, ...],
    part: tuple[int, int],
    databases: str | None,
    repeats: int | None,
    duration_s: float | None,
    warm_s: float | None,
    report: Path,
    redraw: Path | None,
    is_list: bool,
) -> None:
    """Measure the lane against what one would do without it, on real servers of its own."""
    if redraw is not None:
        for path in write(read(redraw.read_bytes()), report):
            print(path)
        return
    kinds = tuple(databases.split(",")) if databases else ()
    if unknown := set(kinds) - set(DATABASES):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(DATABASES)}")
    chosen = selected(rows(), is_full=full, only=only, databases=kinds, part=part)
    if not chosen:
        raise click.BadParameter("no row is named so: --list shows them")
    if is_list:
        for row in chosen:
            print(f"{row.key:40} {row.database:11} {row.title}")
        return
    if brief:
        options = Options(
            repeats=1, duration_s=1.0, warm_s=0.2, report=report, log_entries=1_000, backlog=2_000, is_brief=True
        )
        chosen = [structs.replace(row, times=1) for row in chosen]
    else:
        options = Options.of(is_full=full, repeats=repeats, duration_s=duration_s, warm_s=warm_s, report=report)
    # What our adapters log while servers are started and stopped is not news here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        results = run_benchmark(chosen, options)
    except KeyboardInterrupt:
        sys.exit("stopped")
    except ConfigurationError as error:
        sys.exit(str(error))
    sys.exit(_status(results, is_brief=brief))


def _status(results: Results, *, is_brief: bool) -> int:
    problems = [problem for problem in results.problems if not (is_brief and problem.endswith(TOO_SHORT))]
    if not problems:
        return 0
    print("\n".join(["", "FAILED:", *(f"  {problem}" for problem in problems)]))
    return 1


def _interrupt(_: int, __: FrameType | None) -> None:
    """SIGTERM ends it as Ctrl-C does: nothing is left behind."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
