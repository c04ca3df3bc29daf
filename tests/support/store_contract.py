"""What every store promises, whichever database it is on. Each store's tests inherit this class."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from coordinator.service.rows import Key, Row
from coordinator.stores.lane_tables import LogEntry, Series
from coordinator.stores.port import (
    LOOKS,
    BatchFault,
    Changes,
    Conflict,
    Fenced,
    Lease,
    Read,
    Store,
    StoreUnavailable,
    Transaction,
)
from coordinator.stores.row_checks import RowChecks
from tests.support.ledger import LEDGER, Account

NOW = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from(" aAáà\u0301ß"),
    min_size=1,
    max_size=20,
).filter(lambda text: not text.endswith(" "))
"""Texts by which a row may be found, as `RowCheck` has it."""
ALIKE = [
    *("a", "A", " a", "\u00e1", "a\u0301", "\u00e0", "\uff41", "a\u200b", "a\u200d", "\u202ea", "a\u00a0", "a\t"),
    *("\u00df", "ss", "\u1e9e", "\u017f", "s", "i", "I", "\u0131", "\u0130", "\u03c3", "\u03c2", "\u03a3", "fi"),
    *("\ufb01", "\u212b", "\u00e5", "\uac00", "\u1100\u1161", "❤", "❤\ufe0f", "🍺", "🍻", "1", "\u0661", "\uff11"),
    *("\u00b9", "a'", "a\\", "a%", "a_", "a\x01", "a\x7f"),
]
"""Texts that some collation takes for one another: by case, accent, width, form, or a sign that cannot be seen."""
OpenStore = Callable[[], Store]
"""Opens one more store on the test's own database."""


def account(number: int, owner: str | None = None, **fields: object) -> Account:
    return Account(id=number, owner=owner or f"owner {number}", created_at=NOW, **fields)  # type: ignore[arg-type]


def entry(number: int, epoch: int = 1) -> LogEntry:
    return LogEntry(
        command_id=f"00000000-0000-7000-8000-{number:012d}",
        sequence=number,
        epoch=epoch,
        type="ledger.open",
        fingerprint="f" * 32,
        status="applied",
        result='{"ü":"\\u0000"}',
        error_code=None,
        error_message=None,
        settled_at=NOW,
    )


def changes(*, inserts: Sequence[Row] = (), updates: Sequence[Row] = (), deletes: Sequence[Row] = ()) -> Changes:
    return Changes(_by_model(deletes), _by_model(updates), _by_model(inserts))


def _by_model(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[type[Row], list[Row]] = {}
    for row in rows:
        groups.setdefault(type(row), []).append(row)
    return list(groups.values())


def commit(store: Store, lease: Lease, change: Changes, counted: int = 1) -> Lease:
    transaction = store.begin()
    try:
        transaction.commit(lease, lease.sequence + counted, change)
    finally:
        transaction.rollback()
    return Lease(lease.epoch, lease.sequence + counted)


def accounts(store: Store, *keys: int) -> list[Account]:
    transaction = store.begin()
    try:
        return sorted(*transaction.load([Read(Account, "id", keys)]), key=lambda row: row.id)
    finally:
        transaction.rollback()


def _loaded(transaction: Transaction, model: type[Row], column: str, *values: Key) -> list[Any]:
    (rows,) = transaction.load([Read(model, column, values)])
    return rows


def _deep(levels: int) -> list[Any]:
    deep: list[Any] = []
    for _ in range(levels):
        deep = [deep]
    return deep


class StoreContract:
    has_check_constraints: ClassVar[bool] = True
    has_lengths: ClassVar[bool] = True

    def test_a_row_that_is_there_is_the_batchs_fault_wherever_it_stands(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[account(300)]))
        rows: list[Row] = [account(number) for number in range(1, 600)]
        with pytest.raises(BatchFault):
            commit(store, lease, changes(inserts=rows))
        commit(store, lease, changes(inserts=[*rows[:299], *rows[300:]]))
        assert len(accounts(store, *range(1000))) == 599

    def test_a_look_shows_the_lease_and_changes_nothing(self, open_store: OpenStore) -> None:
        store = open_store()
        assert store.look() == store.current()
        lease = store.take_over("holder", NOW)
        lease = msgspec.structs.replace(lease, sequence=commit(store, lease, changes(inserts=[account(1)])).sequence)
        for _ in range(2 * LOOKS):
            assert store.look() == lease
        assert open_store().look() == store.current() == lease
        commit(store, lease, changes(deletes=[account(1)]))

    def test_taking_over_raises_the_epoch_and_keeps_the_sequence(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = store.take_over("first", NOW)
        assert lease == Lease(1, 0, holder="first")
        commit(store, lease, changes(), counted=41)
        assert open_store().take_over("second", NOW) == Lease(2, 41, holder="second")

    def test_the_id_of_a_command_is_found_by_its_sequence(self, open_store: OpenStore) -> None:
        store = open_store()
        assert store.command_at(1) is None
        commit(store, store.take_over("holder", NOW), changes(inserts=[entry(1), entry(2), entry(4)]), 4)
        ids = [store.command_at(sequence) for sequence in (0, 1, 2, 3, 4, 5)]
        assert ids == [None, entry(1).command_id, entry(2).command_id, None, entry(4).command_id, None]

    def test_rows_come_back_as_they_were_written(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        rows = [
            account(
                1,
                "Zoë 🦀 'quoted' \\",
                balance=2**63 - 1,
                note="tab\tline\n%s {} \x1f",
                data=bytes(range(256)),
            ),
            account(2, "ZOË 🦀 'quoted' \\", balance=-1000, note="", data=b""),
            account(2**53 - 1, " leading space", balance=0, note="trailing space ", data=None),
            account(4, "no space"),
        ]
        commit(store, lease, changes(inserts=rows))
        assert accounts(open_store(), 1, 2, 4, 2**53 - 1, 5) == sorted(rows, key=lambda row: row.id)

    def test_rows_are_found_by_a_unique_column(self, open_store: OpenStore) -> None:
        store = open_store()
        commit(store, store.take_over("holder", NOW), changes(inserts=[account(1, "a"), account(2, "b")]))
        transaction = store.begin()
        assert _loaded(transaction, Account, "owner", "b", "nobody", "B") == [account(2, "b")]
        transaction.rollback()

    # Each store runs it by itself, on a database of its own.
    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(owners=st.lists(TEXTS, min_size=1, max_size=20, unique=True))
    @example(owners=ALIKE)
    def test_texts_are_the_same_in_the_database_where_they_are_the_same_here(
        self, open_store: OpenStore, owners: list[str]
    ) -> None:
        check = RowChecks(LEDGER).of(Account)
        rows = [account(number, owner) for number, owner in enumerate(owners, 1)]
        for row in rows:
            check.new(row)
        store = open_store()
        try:
            lease = commit(store, store.take_over("holder", NOW), changes(inserts=rows))
            transaction = store.begin()
            found = [_loaded(transaction, Account, "owner", owner) for owner in owners]
            transaction.rollback()
            commit(store, lease, changes(deletes=rows))
        finally:
            store.close()
        assert found == [[row] for row in rows]

    def test_several_reads_are_answered_each_for_itself(self, open_store: OpenStore) -> None:
        store = open_store()
        rows = [account(1, "a"), account(2, "b"), entry(7)]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows))
        transaction = store.begin()
        reads = [Read(Account, "owner", ["b", "x"]), Read(LogEntry, "command_id", ["x"]), Read(Account, "id", [1])]
        assert transaction.load(reads) == [[rows[1]], [], [rows[0]]]
        transaction.rollback()

    def test_scan_returns_the_first_rows_in_key_order(self, open_store: OpenStore) -> None:
        store = open_store()
        commit(store, store.take_over("holder", NOW), changes(inserts=[account(n) for n in (30, 4, 100, 2)]))
        transaction = store.begin()
        assert [row.id for row in transaction.scan(Account, 3)] == [2, 4, 30]
        assert [row.id for row in transaction.scan(Account, 2, 2)] == [4, 30]
        transaction.rollback()

    def test_the_last_rows_are_found_in_key_order_too(self, open_store: OpenStore) -> None:
        store = open_store()
        transaction = store.begin()
        assert transaction.last(Account, 2) == []
        transaction.rollback()
        commit(store, store.take_over("holder", NOW), changes(inserts=[account(n) for n in (30, 4, 100, 2)]))
        transaction = store.begin()
        assert [row.id for row in transaction.last(Account, 3)] == [100, 30, 4]
        assert transaction.last_numbers(Account, 3) == [100, 30, 4]
        transaction.rollback()

    def test_a_batch_updates_deletes_and_inserts_sets_of_rows(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        lease = commit(store, lease, changes(inserts=[account(n, note="old") for n in range(1, 1001)]))
        changed = [account(n, f"renamed {n}", balance=n, note=None, version=2) for n in range(1, 501)]
        order = random.Random(1).sample(changed, len(changed))
        lease = commit(
            store,
            lease,
            changes(
                deletes=[account(n) for n in range(501, 1001)],
                updates=list(order),
                # What a deleted or renamed row had is free again within the same batch.
                inserts=[account(2000 + n, f"owner {n}") for n in range(1, 1001)],
            ),
        )
        assert accounts(open_store(), *range(1, 1001)) == changed
        assert len(accounts(store, *range(2001, 3001))) == 1000
        assert open_store().take_over("next", NOW).sequence == 2

    def test_a_batch_may_have_more_bytes_than_one_statement_takes(self, open_store: OpenStore) -> None:
        store = open_store()
        rows = [account(n, data=bytes([n]) * 60_000) for n in range(1, 41)]
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[*rows]))
        assert accounts(store, *range(1, 41)) == rows
        rows = [account(n, data=bytes([100 + n]) * 60_000) for n in range(1, 41)]
        commit(store, lease, changes(updates=[*rows]))
        assert accounts(open_store(), *range(1, 41)) == rows

    def test_a_row_to_change_that_is_gone_is_the_batchs_fault(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[account(1), entry(1)]))
        for gone in (account(2, "else"), entry(2)):
            with pytest.raises(BatchFault):
                commit(store, lease, changes(updates=[account(1, "changed"), gone]))
        assert [row.owner for row in accounts(store, 1, 2)] == ["owner 1"]
        lease = commit(store, lease, changes(deletes=[account(2)], updates=[account(1, "changed")]))
        assert [row.owner for row in accounts(store, 1, 2)] == ["changed"]
        commit(store, lease, changes(updates=[account(1, "changed")]))

    def test_rows_with_text_keys_are_updated(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        lease = commit(store, lease, changes(inserts=[Series(name="a", value=1), Series(name="A", value=1)]))
        commit(store, lease, changes(updates=[Series(name="a", value=9)]))
        transaction = store.begin()
        values = {row.name: row.value for row in _loaded(transaction, Series, "name", "a", "A")}
        transaction.rollback()
        assert values == {"a": 9, "A": 1}

    def test_a_rolled_back_transaction_leaves_no_trace(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        transaction = store.begin()
        _loaded(transaction, Account, "id", 1)
        transaction.rollback()
        transaction.rollback()
        assert accounts(store, 1) == []
        commit(store, lease, changes(inserts=[account(1)]))

    def test_an_epoch_is_current_until_another_takes_over(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        lease = store.take_over("one", NOW)
        assert store.current() == lease
        assert other.take_over("other", NOW).epoch == lease.epoch + 1
        taken = store.current()
        assert taken is not None
        assert taken.epoch == lease.epoch + 1
        assert other.current() == taken

    def test_a_stale_epoch_cannot_commit(self, open_store: OpenStore) -> None:
        zombie, successor = open_store(), open_store()
        old = zombie.take_over("zombie", NOW)
        lease = successor.take_over("successor", NOW)
        with pytest.raises(Fenced):
            commit(zombie, old, changes(inserts=[account(1, "zombie"), entry(1)]))
        assert accounts(successor, 1) == []
        commit(successor, lease, changes(inserts=[account(1, "successor"), entry(1, epoch=2)]))
        with pytest.raises(Fenced):
            commit(zombie, old, changes(updates=[account(1, "zombie")]))
        # What it wrote contradicts what its successor wrote, and that is not the batch's fault.
        with pytest.raises(Fenced):
            commit(zombie, old, changes(inserts=[account(1, "zombie"), entry(1)]))
        assert accounts(successor, 1)[0].owner == "successor"

    def test_a_transaction_begun_before_a_takeover_cannot_commit_after_it(self, open_store: OpenStore) -> None:
        zombie, successor = open_store(), open_store()
        old = zombie.take_over("zombie", NOW)
        transaction = zombie.begin()
        assert _loaded(transaction, Account, "id", 1) == []
        successor.take_over("successor", NOW)
        # A database may call it a conflict, or end the transaction of the old holder: nothing is committed either way,
        # and the rerun is fenced.
        with pytest.raises(Exception) as caught:
            transaction.commit(old, 1, changes(inserts=[account(1)]))
        transaction.rollback()
        assert isinstance(caught.value, Fenced | Conflict | StoreUnavailable)
        assert accounts(successor, 1) == []
        with pytest.raises(Fenced):
            commit(zombie, old, changes(inserts=[account(1)]))

    def test_a_sequence_that_moved_on_fences_too(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        commit(store, lease, changes(inserts=[account(1)]))
        with pytest.raises(Fenced):
            commit(store, lease, changes(inserts=[account(2)]))
        assert accounts(store, 2) == []

    def test_only_the_holder_of_an_epoch_renews_it(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        lease = store.take_over("holder", NOW)
        renewed = store.renew("holder", NOW, lease.epoch)
        assert renewed == Lease(2, 0, holder="holder")
        assert other.current() == renewed
        other.take_over("other", NOW)
        with pytest.raises(Fenced):
            store.renew("holder", NOW, renewed.epoch)

    def test_any_number_of_rows_have_no_value_in_a_unique_column(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[account(1), account(2)]))
        named = [account(number, reference=f"r{number}") for number in (2, 3)]
        lease = commit(store, lease, changes(updates=named[:1], inserts=[named[1], account(4)]))
        transaction = store.begin()
        found = _loaded(transaction, Account, "reference", "r3", "r2")
        transaction.rollback()
        assert sorted(found, key=lambda row: row.id) == named
        with pytest.raises(BatchFault):
            commit(store, lease, changes(inserts=[account(5, reference="r2")]))

    def test_a_unique_value_is_taken_once_its_row_has_given_it_up(self, open_store: OpenStore) -> None:
        store = open_store()
        store.check(LEDGER.models, must_sync=False)
        before = {number: account(number, f"place {number}") for number in (1, 2, 3)}
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=list(before.values())))
        moved: list[Row] = [account(number, f"place {number + 1}") for number in before]
        commit(store, lease, Changes([], [moved], [], lambda row: before[row.id], has_moves=True))  # type: ignore[attr-defined]
        assert accounts(store, *before) == moved

    def test_a_violated_unique_column_is_the_batch_s_fault(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        lease = commit(store, lease, changes(inserts=[account(1, "taken"), entry(1)]))
        for fault in (
            changes(inserts=[account(2, "taken"), entry(2)]),
            changes(inserts=[account(1, "free"), entry(2)]),
            changes(inserts=[account(3), entry(1)]),
        ):
            with pytest.raises(BatchFault):
                commit(store, lease, fault)
        assert accounts(store, 2, 3) == []
        assert accounts(store, 1)[0].owner == "taken"
        commit(store, lease, changes(inserts=[account(2), entry(2)]))

    def test_a_value_that_the_database_cannot_hold_is_the_batch_s_fault(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        faults = [account(1, balance=2**70)]
        if self.has_check_constraints:
            faults.append(account(1, balance=-5000))
        if self.has_lengths:
            faults.append(account(1, "a name that is longer than the column"))
        for fault in faults:
            with pytest.raises(BatchFault):
                commit(store, lease, changes(inserts=[account(2), fault]))
            assert accounts(store, 1, 2) == []
        commit(store, lease, changes(inserts=[account(2)]))

    @pytest.mark.parametrize("how", ["inserts", "updates"])
    def test_whatever_a_row_holds_the_store_goes_on(self, open_store: OpenStore, how: str) -> None:
        """A database may take it; otherwise it is the batch's fault, and no error of a driver's."""
        store = open_store()
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[account(1)]))
        odd: list[dict[str, object]] = [
            {name: value}
            for name in ("balance", "note", "data", "created_at")
            for value in (1.5, Decimal("1.5"), {}, [1], object(), True, "x", "\ud800", "\0", b"x", 2**70, _deep(5000))
        ]
        for number, fields in enumerate(odd, 10):
            row = account(1, version=number) if how == "updates" else account(number)
            for field, value in fields.items():
                # Rows are checked before: a frozen one is filled as no handler could.
                row = type(row)(**{**asdict(row), field: value})
            try:
                lease = commit(store, lease, changes(**{how: [row]}))
            except BatchFault:
                continue
            undone = changes(updates=[account(1)]) if how == "updates" else changes(deletes=[row])
            lease = commit(store, lease, undone)
        lease = commit(store, lease, changes(inserts=[account(3000)]))
        assert len(accounts(store, 3000)) == 1

    def test_a_closed_store_opens_again(self, open_store: OpenStore) -> None:
        store = open_store()
        lease = store.take_over("holder", NOW)
        store.close()
        commit(store, lease, changes(inserts=[account(1)]))
        assert len(accounts(store, 1)) == 1


class EncodingContract:
    """For the stores that encode what they are given: all but the one in memory."""

    def test_text_that_is_none_is_the_batchs_fault_wherever_it_stands(self, open_store: OpenStore) -> None:
        """Half a surrogate pair, in one of the last of many rows."""
        store = open_store()
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[account(1)]))
        rows: list[Row] = [account(number) for number in range(2, 600)]
        for place in (rows.index(rows[-1]), 0):
            broken = [*rows]
            broken[place] = account(1000, note="\ud800")
            with pytest.raises(BatchFault):
                commit(store, lease, changes(inserts=broken))
        lease = commit(store, lease, changes(inserts=rows))
        assert len(accounts(store, *range(1000))) == 599
        commit(store, lease, changes(updates=[account(1, balance=5, version=2)]))
