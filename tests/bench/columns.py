"""`python -m tests.bench.columns`: what columns cost a lane, and what it costs to declare a service by decorators.

The lane's own process, without a broker, on an SQLite file: CPU time for each command, that of the database included.
Services take turns, so that whatever else runs on the machine slows all of them. Each figure is a median, with the
lowest and the highest. Where columns are compared, every command of a batch reads and writes another row.
"""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from itertools import count, islice
from pathlib import Path
from statistics import median
from types import new_class
from typing import Annotated, Any, Final
from uuid import UUID

import click
import msgspec
from msgspec import Struct

from coordinator import Amount, Command, Digits, Handler, Id, Ref, Row, Service, UnitOfWork, VersionedRow
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import LaneSettings
from coordinator.service.ids import new_command_id
from coordinator.stores.open import open_store
from coordinator.stores.port import Changes, Lease, Store
from coordinator.testing.database import prepare
from tests.bench import service as reference
from tests.bench.workloads import Workload, operations

BATCH: Final = 500
ACCOUNTS: Final = 2000
DECLARED_MAX: Final = 1.05
TEN_MAX: Final = 2.0
WORKLOADS: Final = (Workload("hot-row"), Workload("transfer", 1.0))


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


VALUES: Final[dict[str, tuple[Any, Callable[[int], Any]]]] = {
    "Decimal": (Annotated[Decimal, Digits(12, 2)], lambda n: Decimal(n).scaleb(-2)),
    "datetime": (datetime, lambda n: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=n)),
    "UUID": (UUID, lambda n: UUID(int=(n << 80) | (4 << 76) | (2 << 62) | n)),
    "JSON": (dict[str, Any], lambda n: {"number": n, "tags": ["a", "b"]}),
    "enum": (Mood, lambda n: (Mood.GOOD, Mood.BAD)[n % 2]),
    "text": (str, lambda n: f"text number {n}"),
    "bytes": (bytes, lambda n: b"bytes number %d" % n),
    "bool": (bool, lambda n: n % 2 == 0),
    "int": (int, lambda n: n),
    "date": (date, lambda n: date(2026, 1, 1) + timedelta(days=n % 1000)),
}
"""By type: an annotation, and the value of a number."""


class Subject(Struct):
    """A lane that is measured: `take` gives its next commands. `costs_us` has one figure for each turn."""

    title: str
    lane: Lane
    messages: Iterator[CommandMessage]
    tags: Iterator[int]
    costs_us: list[float]

    def turn(self, batches: int) -> None:
        """Apply so many batches, and note the CPU time for each command."""
        made = [[*islice(self.messages, BATCH)] for _ in range(batches)]
        given = [[Delivery(tag=next(self.tags), commands=(message,)) for message in batch] for batch in made]
        gc.collect()
        begun = time.process_time()
        for batch in given:
            decision = self.lane.apply(batch, 1)
            if not isinstance(decision, Settlement) or {each.status for each in decision.outcomes} != {"applied"}:
                raise RuntimeError(f"{self.title}: not all commands were applied: {decision!r:.500}")
        self.costs_us.append((time.process_time() - begun) / (batches * BATCH) * 1e6)


def message(type_: str, **arguments: int) -> CommandMessage:
    return CommandMessage(new_command_id(), type_, msgspec.json.encode(arguments), "system")


def of_columns(name: str, kinds: list[str]) -> tuple[Service, list[Row], Iterator[CommandMessage]]:
    """A service whose command writes a row with columns of these types, all of them with other values."""
    columns = {f"column_{place}": VALUES[kind] for place, kind in enumerate(kinds)}
    namespace = {
        "__module__": __name__,
        "__annotations__": {"id": int} | {key: kind for key, (kind, _) in columns.items()},
    }
    model: Any = new_class(
        "Wide", (VersionedRow,), {"table": "wide", "key": "id"}, lambda names: names.update(namespace)
    )
    command: Any = new_class(
        "Write",
        (Command,),
        {"type": f"{name}.write"},
        lambda names: names.update(__module__=__name__, __annotations__={"id": Id, "number": int}),
    )
    # Made beforehand: only what the lane does with them is measured.
    values = [{key: make(number) for key, (_, make) in columns.items()} for number in range(2 * ACCOUNTS)]

    def write(work: UnitOfWork, given: Any) -> Any:
        there = work.get(model, given.id)
        return work.save(there.replace(**values[given.number])) if there is not None else None

    write.__annotations__["return"] = model
    service = Service(
        name, models=(model,), handlers=(Handler(command, write, target=lambda given: model.at(given.id)),)
    )
    rows = [model(id=number, **values[number]) for number in range(1, ACCOUNTS + 1)]
    sent = (
        message(f"{name}.write", id=number % ACCOUNTS + 1, number=(number * 7 + number // ACCOUNTS) % len(values))
        for number in count()
    )
    return service, rows, sent


def declared(name: str, *, audited: bool = False) -> Service:
    """The reference's accounts, by decorators and without tables of SQLAlchemy's."""
    service = Service(name)

    @service.row
    class Account(VersionedRow, table="accounts", key="id", audited=audited):
        id: int
        balance: int

    class Credit(Command, type=f"{name}.credit"):
        id: Id
        amount: Amount

    class Transfer(Command, type=f"{name}.transfer"):
        payer: Id
        payee: Id
        amount: Amount

    def credited(work: UnitOfWork, key: int, amount: int) -> Any:
        account = work.get(Account, key)
        if account is None or account.balance + amount < 0:
            raise ValueError(key)
        return work.save(account.replace(balance=account.balance + amount))

    def credit(work: UnitOfWork, command: Any) -> Any:
        return credited(work, command.id, command.amount)

    def transfer(work: UnitOfWork, command: Any) -> reference.Moved:
        payer = credited(work, command.payer, -command.amount)
        payee = credited(work, command.payee, command.amount)
        return reference.Moved(payer=payer.balance, payee=payee.balance)

    def of_transfer(command: Any) -> tuple[Ref[Row], ...]:
        return (Account.at(command.payer), Account.at(command.payee))

    credit.__annotations__["return"] = Account
    service.handles(Credit, reads=lambda command: (Account.at(command.id),))(credit)
    service.handles(Transfer, reads=of_transfer)(transfer)
    return service


def of_accounts(service: Service, workload: Workload) -> tuple[Service, list[Row], Iterator[CommandMessage]]:
    """Accounts, with the operations of the bench."""
    model: Any = service.models[0]
    type_ = f"{service.name}.{'credit' if workload.kind == 'hot-row' else 'transfer'}"
    fields = ("id", "amount") if workload.kind == "hot-row" else ("payer", "payee", "amount")
    sent = (message(type_, **dict(zip(fields, each, strict=True))) for each in operations(workload, 1, "columns"))
    return service, [model(id=number, balance=reference.BALANCE) for number in range(1, reference.ACCOUNTS + 1)], sent


def opened(
    stack: ExitStack,
    folder: Path,
    title: str,
    made: tuple[Service, list[Row], Iterator[CommandMessage]],
    url: str | None = None,
) -> Subject:
    """A lane on a database of its own, with these rows: on this one, or on an SQLite file."""
    service, rows, sent = made
    url = url or f"sqlite:///{folder}/{title.replace(' ', '-')}.sqlite"
    prepare(service, url, may_have_rows=True)
    store = open_store(url, service)
    stack.callback(store.close)
    lane = Lane(
        service, store, partial(datetime.now, UTC), "bench", LaneSettings(batch_commands_max=BATCH), time.monotonic
    )
    lane.apply([], 1)
    fill(store, rows)
    return Subject(title, lane, sent, count(1), [])


def fill(store: Store, rows: list[Row]) -> None:
    for first in range(0, len(rows), 5000):
        lease = store.current() or Lease(0, 0)
        store.begin().commit(lease, lease.sequence, Changes([], [], [rows[first : first + 5000]]))


def compare(subjects: list[Subject], turns: int, batches: int) -> None:
    """Let them take turns, the first ones to warm up."""
    for turn in range(turns + 1):
        for subject in subjects if turn % 2 else reversed(subjects):
            subject.turn(batches)
    for subject in subjects:
        del subject.costs_us[0]


def shown(subject: Subject, base: Subject, most: float | None) -> str:
    """One line; `most` is how many times the cost of the base was hoped for."""
    cost, low, high = median(subject.costs_us), min(subject.costs_us), max(subject.costs_us)
    ratio = cost / median(base.costs_us)
    said = "" if most is None else f"; at most {most:.2f}: {'met' if ratio <= most else 'MISSED'}"
    return f"{subject.title:24} {cost:6.1f} µs ({low:.1f} … {high:.1f}), {ratio:.2f} of {base.title}{said}"


@click.command()
@click.option("--turns", default=9, show_default=True, help="Turns of each service that count.")
@click.option("--batches", default=8, show_default=True, help="Batches of 500 commands in a turn.")
@click.option("--each-type/--no-each-type", default=True, show_default=True, help="A figure for every type of columns.")
def main(*, turns: int, batches: int, each_type: bool) -> None:
    """CPU time of a lane for each command, by how its service is declared and by its columns."""
    with tempfile.TemporaryDirectory(prefix="bench-columns-") as name, ExitStack() as stack:
        folder = Path(name)
        for workload in WORKLOADS:
            pair = [
                opened(
                    stack,
                    folder,
                    f"reference {workload.kind}",
                    of_accounts(reference.service_named("benchref"), workload),
                ),
                opened(stack, folder, f"declared {workload.kind}", of_accounts(declared("benchdecl"), workload)),
            ]
            compare(pair, turns, batches)
            click.echo(shown(pair[0], pair[0], None))
            click.echo(shown(pair[1], pair[0], DECLARED_MAX))
        wide = [
            opened(stack, folder, "three integers", of_columns("ints", ["int"] * 3)),
            opened(stack, folder, "ten mixed columns", of_columns("mixed", [*VALUES])),
        ]
        if each_type:
            wide += [
                opened(stack, folder, f"three of {kind}", of_columns(f"of{kind.lower()}", [kind] * 3))
                for kind in VALUES
            ]
        compare(wide, turns, batches)
        for subject in wide:
            click.echo(shown(subject, wide[0], TEN_MAX if subject is wide[1] else None))


if __name__ == "__main__":
    main()
