"""What every store on SQL promises of tables that refer to each other: valid commands are applied, in any company.

The classes are declared in an order that is of no use: rows are written as the foreign keys of the database ask for.
"""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
from msgspec import Struct
from sqlalchemy import BigInteger, Column, ForeignKey, MetaData, String, Table, UniqueConstraint

from coordinator import Command, Row, Service, UnitOfWork
from coordinator.stores.port import Changes, Lease, Store
from tests.support.lane_contract import LaneUnderTest, codes, delivery

OpenReferringStore = Callable[[], Store]
"""Opens one more store of the service `REFERRING`, on the test's own database, and checks it."""
BATCHES: Final = 40
COMMANDS_MAX: Final = 12

metadata = MetaData()


def _key() -> Column[Any]:
    return Column("id", BigInteger, primary_key=True, autoincrement=False)


def _text(name: str, **options: Any) -> Column[Any]:
    return Column(name, String(20), **options)


def _table(name: str, *columns: Any) -> Table:
    return Table(name, metadata, *columns, mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin")


_table(
    "orders",
    _key(),
    Column("customer_id", BigInteger, ForeignKey("customers.id")),
    Column("region", String(20), ForeignKey("regions.code")),
    _text("note"),
)
_table("customers", _key(), _text("email", unique=True), _text("note"))
_table(
    "seats",
    _key(),
    Column("hall", BigInteger, nullable=False),
    _text("place", nullable=False),
    UniqueConstraint("hall", "place", name="seats_of_hall"),
)
_table("regions", _key(), _text("code", unique=True, nullable=False))
_table("notes", _key(), Column("order_id", BigInteger, ForeignKey("orders.id", ondelete="CASCADE")))
_table("parts", _key(), Column("whole_id", BigInteger, ForeignKey("parts.id")), _text("note"))
_table("members", _key(), Column("team_id", BigInteger, ForeignKey("teams.id")))
_table(
    "teams",
    _key(),
    # MySQL takes a name for what is added once both tables are there.
    Column("captain_id", BigInteger, ForeignKey("members.id", name="teams_captain", use_alter=True)),
)

REFERRING = Service("referring", metadata=metadata)


@REFERRING.row
class Order(Row, table="orders", key="id"):
    id: int
    customer_id: int | None = None
    region: str | None = None
    note: str | None = None


@REFERRING.row
class Note(Row, table="notes", key="id"):
    """Goes with its order."""

    id: int
    order_id: int | None = None


@REFERRING.row
class Customer(Row, table="customers", key="id", unique=("email",)):
    id: int
    email: str | None = None
    note: str | None = None


@REFERRING.row
class Region(Row, table="regions", key="id", unique=("code",)):
    id: int
    code: str


@REFERRING.row
class Seat(Row, table="seats", key="id"):
    """In a hall there is one of each place, which its class does not say."""

    id: int
    hall: int
    place: str


@REFERRING.row
class Part(Row, table="parts", key="id"):
    id: int
    whole_id: int | None = None
    note: str | None = None


@REFERRING.row
class Member(Row, table="members", key="id"):
    id: int
    team_id: int | None = None


@REFERRING.row
class Team(Row, table="teams", key="id"):
    id: int
    captain_id: int | None = None


_MODELS: Final[dict[str, type[Any]]] = {model.table: model for model in REFERRING.models}


class Step(Struct, array_like=True):
    does: str
    table: str
    row: dict[str, Any]


class Write(Command, type="referring.write"):
    """Write rows, whatever they refer to."""

    steps: list[Step]


@REFERRING.handles(Write)
def write(work: UnitOfWork, command: Write) -> None:
    for step in command.steps:
        row = _MODELS[step.table](**step.row)
        {"add": work.add, "save": work.save, "remove": work.remove}[step.does](row)


def add(row: Row) -> Step:
    return _step("add", row)


def save(row: Row) -> Step:
    return _step("save", row)


def remove(row: Row) -> Step:
    return _step("remove", row)


def _step(does: str, row: Row) -> Step:
    return Step(does, row.table, {name: getattr(row, name) for name in row.__struct_fields__})


class CountedStore:
    """A store that counts the transactions that were to write."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def begin(self) -> Any:
        transaction = self._store.begin()
        commit = transaction.commit

        def counted(lease: Lease, sequence: int, changes: Changes) -> None:
            self.commits += 1
            commit(lease, sequence, changes)

        transaction.commit = counted  # type: ignore[method-assign]
        return transaction


class Referring:
    """A lane on a store, and what its batches cost."""

    def __init__(self, store: Store) -> None:
        self.store = CountedStore(store)
        self.lane = LaneUnderTest(self.store, service=REFERRING)
        self._numbers = itertools.count(1)
        self.batch([])

    def batch(self, *commands: list[Step]) -> list[str]:
        """Apply commands as one batch: their outcomes."""
        before = self.store.commits
        sent = [delivery(next(self._numbers), Write(steps=steps)) for steps in commands]
        settled = self.lane.settle(*sent)
        self.cost = self.store.commits - before
        self.reasons = [letter.reason for letter in settled.dead_letters]
        return codes(settled.outcomes)

    def rows(self, model: type[Row]) -> list[Any]:
        return self.lane.rows(model)


ADA, BOB = Customer(id=1, email="ada"), Customer(id=2, email="bob")
OF_ADA, OF_BOB, OF_NOBODY = Order(id=1, customer_id=1), Order(id=1, customer_id=2), Order(id=1)
ROOT, BRANCH, LEAF = Part(id=1), Part(id=2, whole_id=1), Part(id=3, whole_id=2)

VALID: Final[dict[str, tuple[list[list[Step]], list[list[Step]]]]] = {
    "a row refers to a new one": ([[add(OF_NOBODY)]], [[add(ADA)], [save(OF_ADA)]]),
    "nothing refers to a row that goes": ([[add(ADA), add(OF_ADA)]], [[save(OF_NOBODY)], [remove(ADA)]]),
    "a row is moved from one that goes to a new one": (
        [[add(ADA), add(OF_ADA)]],
        [[add(BOB)], [save(OF_BOB)], [remove(ADA)]],
    ),
    "a row and one that refers to it go": ([[add(ADA), add(OF_ADA)]], [[remove(OF_ADA)], [remove(ADA)]]),
    "a row and one that refers to it come": ([], [[add(ADA)], [add(OF_ADA)]]),
    "a row is replaced while others refer to it no more": (
        [[add(ADA), add(OF_ADA)]],
        [[save(OF_NOBODY)], [remove(ADA)], [add(Customer(id=1, email="eve"))], [save(OF_ADA)]],
    ),
    "a unique value goes to a row of the same batch": (
        [[add(ADA), add(OF_ADA)]],
        [[save(Customer(id=1, email="old"))], [add(Customer(id=2, email="ada"))], [save(OF_BOB)]],
    ),
    "a unique value goes from a row that had to wait": (
        [[add(ADA), add(OF_ADA)]],
        [[save(OF_NOBODY)], [remove(ADA)], [add(Customer(id=2, email="ada"))]],
    ),
    "a row refers to one that had to wait": (
        [[add(ADA), add(OF_ADA)]],
        [
            *([save(OF_NOBODY)], [remove(ADA)], [add(Customer(id=2, email="ada"))]),
            *([add(Order(id=2, customer_id=2))], [add(Note(id=1, order_id=2))]),
        ],
    ),
    "a row refers by a unique column": (
        [[add(Region(id=1, code="a")), add(Order(id=1, region="a"))]],
        [[add(Region(id=2, code="b"))], [save(Order(id=1, region="b"))], [save(Region(id=1, code="c"))]],
    ),
    "a tree grows": ([], [[add(ROOT)], [add(BRANCH)], [add(LEAF)]]),
    "a tree grows by one command, leaf first": ([], [[add(LEAF), add(BRANCH), add(ROOT)]]),
    "a tree falls": ([[add(ROOT)], [add(BRANCH)], [add(LEAF)]], [[remove(LEAF)], [remove(BRANCH)], [remove(ROOT)]]),
    "a tree falls by one command, root first": (
        [[add(ROOT)], [add(BRANCH)], [add(LEAF)]],
        [[remove(ROOT), remove(BRANCH), remove(LEAF)]],
    ),
    "a leaf is hung on a new branch, and the old one falls": (
        [[add(ROOT)], [add(BRANCH)], [add(LEAF)]],
        [[add(Part(id=4, whole_id=1))], [save(Part(id=3, whole_id=4))], [remove(BRANCH)]],
    ),
    "unique values move up": (
        [[add(Customer(id=n, email=f"place {n}"))] for n in (1, 2, 3)],
        [[save(Customer(id=n, email=f"place {n + 1}"))] for n in (3, 2, 1)],
    ),
    "unique values move up by one command, the last one first": (
        [[add(Customer(id=n, email=f"place {n}"))] for n in (1, 2, 3)],
        [[save(Customer(id=n, email=f"place {n + 1}")) for n in (1, 2, 3)]],
    ),
    "values that are unique together move up by one command, the last one first": (
        [[add(Seat(id=n, hall=1, place=f"place {n}"))] for n in (1, 2, 3)],
        [[save(Seat(id=n, hall=1, place=f"place {n + 1}")) for n in (1, 2, 3)]],
    ),
    "a row refers to itself": ([], [[add(Part(id=7, whole_id=7))]]),
    "two tables refer to each other": (
        [[add(Member(id=1))]],
        [[add(Team(id=1, captain_id=1))], [save(Member(id=1, team_id=1))], [add(Member(id=2, team_id=1))]],
    ),
    "two tables refer to each other, and all goes": (
        [[add(Team(id=1))], [add(Member(id=1, team_id=1))]],
        [[remove(Member(id=1)), remove(Team(id=1))]],
    ),
}
"""By name: what is there, and the batch. Its commands are valid one after the other."""

INVALID: Final[dict[str, list[Step]]] = {
    "a row refers to none": [add(Order(id=9, customer_id=99))],
    "a row refers to none any more": [save(Order(id=1, customer_id=99))],
    "a row goes that another one refers to": [remove(ADA)],
}


_REFERRING: Final[Sequence[tuple[type[Any], str, type[Any]]]] = (
    (Order, "customer_id", Customer),
    (Part, "whole_id", Part),
    (Member, "team_id", Team),
    (Team, "captain_id", Member),
)
_Rows = dict[type[Any], dict[int, Any]]


class _Draw:
    """Random commands, each valid after those before it; `rows` is what they leave."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.rows: _Rows = {model: {} for model in REFERRING.models if model not in (Note, Seat)}

    def commands(self) -> list[list[Step]]:
        return [self._command() for _ in range(self._random.randint(1, COMMANDS_MAX))]

    def _command(self) -> list[Step]:
        """One that changes one row, or several in any order."""
        before = {model: dict(rows) for model, rows in self.rows.items()}
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            self._change()
        if _needs_more_than_an_order(before, self.rows):
            self.rows = before
            return self._command()
        steps = list[Step]()
        for model, rows in self.rows.items():
            there = before[model]
            steps += [remove(row) for key, row in there.items() if key not in rows]
            steps += [add(row) for key, row in rows.items() if key not in there]
            steps += [save(row) for key, row in rows.items() if key in there and row != there[key]]
        self._random.shuffle(steps)
        return steps

    def _change(self) -> None:
        model, key = self._random.choice(tuple(self.rows)), self._random.randint(1, 6)
        rows = self.rows[model]
        if key not in rows or self._random.random() < 0.6:
            rows[key] = model(id=key, **self._values(model, key))
        elif not any(
            getattr(row, column) == key
            for referring, column, other in _REFERRING
            if other is model
            for row in self.rows[referring].values()
        ):
            del rows[key]

    def _values(self, model: type[Row], key: int) -> dict[str, Any]:
        values: dict[str, Any] = {
            column: self._random.choice((None, *self.rows[other]))
            for referring, column, other in _REFERRING
            if referring is model
        }
        if model is Region:
            return {"code": f"code {key}"}
        if model is Customer:
            email = f"email {self._random.randint(1, 9)}"
            taken = {row.email for other, row in self.rows[Customer].items() if other != key}
            values["email"] = None if email in taken else email
        return values


def _needs_more_than_an_order(before: _Rows, after: _Rows) -> bool:
    """Whether one command gives a unique value of one row to another, or makes two rows that refer to each other.

    Only the first may be possible, and neither is what these commands are about.
    """
    owners = {row.email: key for key, row in before[Customer].items() if row.email is not None}
    if any(owners.get(row.email, key) != key for key, row in after[Customer].items()):
        return True
    changed = {
        (model, key)
        for model in after
        for key in before[model].keys() | after[model].keys()
        if before[model].get(key) != after[model].get(key)
    }
    tables = [model for model, _ in changed]
    return any(tables.count(model) + (model is not Part and other in tables) > 1 for model, _, other in _REFERRING[1:])


class ReferenceContract:
    @pytest.mark.parametrize("name", VALID)
    def test_commands_that_are_valid_are_applied_in_one_transaction(
        self, name: str, open_referring_store: OpenReferringStore
    ) -> None:
        there, commands = VALID[name]
        lane = Referring(open_referring_store())
        assert lane.batch(*there) == ["applied"] * len(there), lane.reasons
        assert lane.batch(*commands) == ["applied"] * len(commands), lane.reasons
        assert lane.cost == 1, lane.cost

    @pytest.mark.parametrize("name", INVALID)
    def test_a_command_that_breaks_a_reference_fails_alone(
        self, name: str, open_referring_store: OpenReferringStore
    ) -> None:
        lane = Referring(open_referring_store())
        assert lane.batch([add(ADA), add(OF_ADA)]) == ["applied"]
        assert lane.batch([add(BOB)], INVALID[name], [add(Customer(id=3))]) == [
            "applied",
            "database_refused",
            "applied",
        ]
        (reason,) = lane.reasons
        assert "foreign key" in reason.lower()
        assert "orders" in reason or "customers" in reason
        assert [row.id for row in lane.rows(Customer)] == [1, 2, 3]
        assert lane.rows(Order) == [OF_ADA]

    def test_a_row_that_goes_with_another_stays_if_it_was_moved_before_and_only_then(
        self, open_referring_store: OpenReferringStore
    ) -> None:
        lane = Referring(open_referring_store())
        moved = Note(id=1, order_id=2)
        assert lane.batch([add(OF_NOBODY), add(Order(id=2)), add(Note(id=1, order_id=1))]) == ["applied"]
        assert lane.batch([save(moved)], [remove(OF_NOBODY)]) == ["applied", "applied"]
        assert lane.rows(Note) == [moved]
        assert lane.batch([remove(Order(id=2)), add(OF_NOBODY)]) == ["applied"]
        assert lane.rows(Note) == []
        assert lane.batch([add(Order(id=2)), add(moved)]) == ["applied"]
        outcomes = lane.batch([remove(Order(id=2))], [save(Note(id=1, order_id=1))])
        assert outcomes == ["applied", "handler_error"]
        assert lane.rows(Note) == []

    def check_what_is_deferred(self, store: Store) -> None:
        """Where the orders' reference to customers is checked at the commit only."""
        lane = Referring(store)
        bad = [add(Order(id=9, customer_id=99))]
        outcomes = lane.batch([add(OF_ADA), add(ADA)], bad, [add(BOB)])
        assert outcomes == ["applied", "database_refused", "applied"]
        assert "foreign key" in lane.reasons[0].lower()
        # Each of these rows waits for another, if their references are checked at once.
        of_new = Order(id=1, customer_id=3)
        assert lane.batch([add(Customer(id=3, email="ada")), remove(ADA), save(of_new)]) == ["applied"]
        assert lane.rows(Order) == [of_new]

    @pytest.mark.parametrize("seed", range(3))
    def test_random_batches_leave_what_their_commands_leave_one_after_the_other(
        self, seed: int, open_referring_store: OpenReferringStore
    ) -> None:
        lane, draw = Referring(open_referring_store()), _Draw(seed)
        whole = 0
        for _ in range(BATCHES):
            commands = draw.commands()
            assert lane.batch(*commands) == ["applied"] * len(commands), lane.reasons
            whole += lane.cost == 1
            for model, rows in draw.rows.items():
                assert {row.id: row for row in lane.rows(model)} == rows
        # In the others rows wait for each other, such as those that swap a unique value.
        assert whole >= BATCHES - 1
