"""`python -m tests.bench.audit`: what it costs a lane to keep of each command which audited rows it has changed.

The lane's own process, without a broker, as in `tests.bench.columns`: on an SQLite file, whose work is the process's
own, and on a PostgreSQL, whose CPU time is counted beside it. Two services that differ in `audited=True` take turns.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import click

from coordinator.dev.servers.postgresql import PostgreSQL
from tests.bench.columns import BATCH, WORKLOADS, Subject, declared, of_accounts, opened, shown
from tests.bench.cpu import cpu_time_s

NAMES = ("plain", "audited")


def compare_beside(server: PostgreSQL | None, subjects: list[Subject], turns: int, batches: int) -> list[list[float]]:
    """Let them take turns, the first ones to warm up; the server's CPU time a command in µs, by subject and turn."""
    costs: list[list[float]] = [[] for _ in subjects]
    places = list(range(len(subjects)))
    for turn in range(turns + 1):
        for place in places if turn % 2 else reversed(places):
            before = 0.0 if server is None else cpu_time_s(server.pids)
            subjects[place].turn(batches)
            used = 0.0 if server is None else cpu_time_s(server.pids) - before
            costs[place].append(used / (batches * BATCH) * 1e6)
    for subject in subjects:
        del subject.costs_us[0]
    return [each[1:] for each in costs]


@click.command()
@click.option("--turns", default=9, show_default=True, help="Turns of each service that count.")
@click.option("--batches", default=8, show_default=True, help="Batches of 500 commands in a turn.")
def main(*, turns: int, batches: int) -> None:
    """CPU time of a lane for each command, with and without the audit of its rows."""
    with tempfile.TemporaryDirectory(prefix="bench-audit-") as name, ExitStack() as stack:
        folder = Path(name)
        databases = [f"{kind.replace('-', '')}_{each}" for kind in ("hot-row", "transfer") for each in NAMES]
        server = PostgreSQL(folder / "postgresql", databases)
        stack.callback(server.stop)
        server.start()
        for of in (None, server):
            for workload in WORKLOADS:
                subjects = []
                for each in NAMES:
                    service = declared(f"bench{each}", audited=each == "audited")
                    place = f"{workload.kind.replace('-', '')}_{each}"
                    url = None if of is None else of.url.replace(databases[0], place)
                    subjects.append(
                        opened(stack, folder, f"{each} {workload.kind}", of_accounts(service, workload), url)
                    )
                used = compare_beside(of, subjects, turns, batches)
                click.echo(f"{'SQLite' if of is None else of.title}, {workload.kind}")
                for subject, costs in zip(subjects, used, strict=True):
                    line = shown(subject, subjects[0], None)
                    if of is not None:
                        line += f"; server {median(costs):.1f} µs ({min(costs):.1f} … {max(costs):.1f})"
                    click.echo(line)


if __name__ == "__main__":
    main()
