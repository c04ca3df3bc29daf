"""`python -m tests.bench.in_process`: a service without a server, on an SQLite file, beside SQLite itself.

One client: p50 of a command that waits for its outcome, beside that of a transaction of the same client that reads the
row, changes it and is synced as the lane's are. Many: commands a second on one row, with so many under way, and the CPU
time of each, which is what counts where other processes want the machine. They take turns. Each figure is a median of
the turns, with the lowest and the highest.
"""

import asyncio
import sqlite3
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Final

import click
import structlog
import uvloop

from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.garbage import spare_the_long_lived
from coordinator.service.rows import Row
from coordinator.stores.open import open_store
from coordinator.worker.inprocess import InProcessWrites
from tests.bench import service as reference
from tests.bench.columns import declared, message, opened

ONE_CLIENT_MAX: Final = 1.2
MANY_MIN: Final = 15_000
ACCOUNTS: Final = 1000
SERVICE: Final = "benchlocal"
_TITLE: Final = 34


def direct(path: Path, times: int) -> float:
    """p50 of a transaction, in µs, in a file of its own."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
        made = ((number, 0) for number in range(1, ACCOUNTS + 1))
        connection.execute("BEGIN")
        connection.executemany("INSERT OR IGNORE INTO accounts VALUES (?, ?)", made)
        connection.execute("COMMIT")
        took_s = []
        for number in range(times):
            begun = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            key = number % ACCOUNTS + 1
            (balance,) = connection.execute("SELECT balance FROM accounts WHERE id = ?", (key,)).fetchone()
            connection.execute("UPDATE accounts SET balance = ? WHERE id = ?", (balance + 1, key))
            connection.execute("COMMIT")
            took_s.append(time.perf_counter() - begun)
        return median(took_s) * 1e6


def credit(key: int) -> CommandMessage:
    return message(f"{SERVICE}.credit", id=key, amount=1)


async def issue(writes: InProcessWrites, given: CommandMessage) -> None:
    outcome = await writes.issue(SERVICE, given, None)
    if outcome.status != "applied":
        raise RuntimeError(f"a command was not applied: {outcome!r:.500}")


async def one_client(writes: InProcessWrites, times: int) -> float:
    """p50 of a command, in µs."""
    took_s = []
    for number in range(times):
        begun = time.perf_counter()
        await issue(writes, credit(number % ACCOUNTS + 1))
        took_s.append(time.perf_counter() - begun)
    return median(took_s) * 1e6


async def many(writes: InProcessWrites, under_way: int, each: int) -> tuple[float, float]:
    """Commands a second on one row, and the CPU time of each in µs: so many clients, each of which issues so many."""

    async def client() -> None:
        for _ in range(each):
            await issue(writes, credit(1))

    begun, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(under_way)))
    commands = under_way * each
    return commands / (time.perf_counter() - begun), (time.process_time() - used) / commands * 1e6


def shown(title: str, figures: list[float], unit: str) -> str:
    return f"{title:{_TITLE}} {median(figures):8,.0f} {unit} ({min(figures):,.0f} … {max(figures):,.0f})"


async def measure(folder: Path, turns: int, times: int, under_way: int, each: int) -> None:
    service = declared(SERVICE)
    url = f"sqlite:///{folder}/lane.sqlite"
    model = service.models[0]
    rows: list[Row] = [model(id=number, balance=reference.BALANCE) for number in range(1, ACCOUNTS + 1)]
    with ExitStack() as filled:
        opened(filled, folder, "fill", (service, rows, iter(())), url)
    async with InProcessWrites({SERVICE: open_store(url, service)}, [service], directory=folder) as writes:
        # As a process that runs a service without a server does.
        spare_the_long_lived()
        alone: list[float] = []
        lane: list[float] = []
        of_many: list[tuple[float, float]] = []
        for _ in range(turns + 1):
            alone.append(await asyncio.to_thread(direct, folder / "direct.sqlite", times))
            lane.append(await one_client(writes, times))
            of_many.append(await many(writes, under_way, each))
        for figures in (alone, lane, of_many):
            del figures[:1]
    ratio = median(after / before for after, before in zip(lane, alone, strict=True))
    click.echo(shown("a transaction of SQLite: p50", alone, "µs"))
    met = "met" if ratio <= ONE_CLIENT_MAX else "MISSED"
    click.echo(f"{shown('one client of the lane: p50', lane, 'µs')}, {ratio:.2f}; at most {ONE_CLIENT_MAX}: {met}")
    rates, cpu_us = (list(each_of) for each_of in zip(*of_many, strict=True))
    met = "met" if median(rates) >= MANY_MIN else "MISSED"
    title = f"hot row, {under_way:,} under way"
    click.echo(f"{shown(title, rates, 'commands/s')}; at least {MANY_MIN:,}: {met}")
    click.echo(shown("its CPU time, clients included", cpu_us, "µs a command"))


@click.command()
@click.option("--turns", default=7, show_default=True, help="Turns that count.")
@click.option("--times", default=300, show_default=True, help="Transactions, and commands of one client, in a turn.")
@click.option("--under-way", default=2000, show_default=True, help="Clients of the hot row.")
@click.option("--each", default=10, show_default=True, help="Commands of each of them in a turn.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where the files are made. [default: temporary]")
def main(*, turns: int, times: int, under_way: int, each: int, directory: Path | None) -> None:
    """A lane without a server, beside SQLite itself."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with (
        tempfile.TemporaryDirectory(prefix="bench-in-process-", dir=directory) as name,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(measure(Path(name), turns, times, under_way, each))


if __name__ == "__main__":
    main()
