"""What an operator's commands are promised of a lane's database, on every kind that has one."""

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
import pytest

from coordinator.lane.control import Forget, ForgetAsked, ForgetStep
from coordinator.runtime.clock import utc_now
from coordinator.service.errors import DatabaseUnavailable
from coordinator.service.rows import Ref
from coordinator.stores.admin import LaneAdmin, LetterQuery, OnItsWay, ParkedCounts, ParkedSummary
from coordinator.stores.audit import ActQuery, AuditBounds, ChangedRow, ChangeQuery
from coordinator.stores.audit_tables import AuditedTable, RowChange
from coordinator.stores.kept_entries import ASKED, ORDERS, ORDERS_SHOWN
from coordinator.stores.lane_tables import (
    NAMELESS,
    SENDERS_BYTES,
    DeadLetter,
    LogEntry,
    OutboxEntry,
    ParkedCommand,
    Series,
    Timer,
)
from coordinator.stores.moves import LaneMove
from coordinator.stores.one_lane import WrongDatabase
from coordinator.stores.operator_acts import made_act
from coordinator.stores.passages import child_text, passage_text
from coordinator.stores.personal_tables import PersonalEntry
from coordinator.stores.port import Fenced, Lease, Read
from tests.support.databases import give_to
from tests.support.ledger import LEDGER, Account
from tests.support.store_contract import NOW, OpenStore, account, changes, commit, entry

YOUNG = NOW + timedelta(days=400)
CUTOFF = NOW + timedelta(days=7)


def settled(number: int, *, is_old: bool) -> LogEntry:
    return msgspec.structs.replace(entry(number), settled_at=NOW if is_old else YOUNG)


def letter(number: int, *, is_nameless: bool = False, dead_at: datetime = NOW) -> DeadLetter:
    command_id = None if is_nameless else entry(number).command_id
    return DeadLetter(
        id=number,
        source=command_id or f"nameless {number}",
        target="ledger",
        command_id=command_id,
        type="ledger.open",
        origin="public",
        code="handler_error",
        reason="it failed",
        traceback=None,
        sequence=None,
        arguments=b"{}",
        size_bytes=2,
        options="{}",
        copies=1,
        dead_at=dead_at,
    )


def parked(number: int, *, position: int = 1, error_code: str | None = None) -> ParkedCommand:
    return ParkedCommand(
        command_id=entry(number).command_id,
        ordering_key="accounts.id=1",
        position=position,
        message=b"[]",
        fingerprint="f",
        reply_to=None,
        correlation_id=None,
        error_code=error_code,
        error_message=None,
        parked_at=NOW,
    )


ACTORS = [None, '{"subject":"a \\"b\\" é"}', '{"subject":"a \\"b\\" é","tenant":"t"}', '{"subject":"a","tenant":"b"}']


def audited(number: int, actor: str | None) -> LogEntry:
    return msgspec.structs.replace(entry(number), settled_at=NOW + timedelta(hours=number), actor=actor)


def change(number: int, *, key: str = "1", table: str = "accounts", place: int = 1) -> RowChange:
    return RowChange(sequence=number, place=place, row_table=table, row_key=key, how="updated", version=number)


ACT = made_act(NOW, "ada@desk", "pause", {"é": 1}, account="ada", reason="why")


def outgoing(number: int, command_id: str, target: str = "ledger") -> OutboxEntry:
    return OutboxEntry(
        id=number, lane=target, command_id=command_id, type="ledger.open", arguments=b"{}", created_at=NOW
    )


def timer(number: int, command_id: str, about: str) -> Timer:
    return Timer(
        id=f"timer {number}",
        due_at=YOUNG,
        about=about,
        lane="ledger",
        command_id=command_id,
        type="ledger.open",
        arguments=b"{}",
        set_at=NOW,
    )


OpenAdmin = Callable[[str], LaneAdmin]
"""Opens the database of `open_store` as that of a lane."""

USES: dict[str, Callable[[LaneAdmin], object]] = {
    "state": lambda admin: admin.state(),
    "dead_letters": lambda admin: admin.dead_letters(),
    "sequence": lambda admin: admin.sequence(),
    "command_at": lambda admin: admin.command_at(1),
    "clock": lambda admin: admin.clock(),
    "find": lambda admin: admin.find(entry(1).command_id),
    "proved": lambda admin: admin.proved(),
    "keeping": lambda admin: admin.keeping([Account], ["x"]),
    "rows": lambda admin: admin.rows(LEDGER, Account, {"id": 1}, 1),
    "parked": lambda admin: admin.parked(),
    "parked_keys": lambda admin: admin.parked_keys(10),
    "letters": lambda admin: admin.letters(LetterQuery(), 0, 1),
    "letter": lambda admin: admin.letter(1),
    "emitted": lambda admin: admin.emitted(None, 0, 1),
    "backlog": lambda admin: admin.backlog(),
    "timers": lambda admin: admin.timers("", 1),
    "on_its_way": lambda admin: admin.on_its_way([entry(1).command_id]),
    "passages": lambda admin: admin.passages(1, 2),
    "naming": lambda admin: admin.naming(entry(1).command_id, 1, 2, 1),
    "audited": lambda admin: admin.audited(ChangeQuery(), 1, 1),
    "audit_bounds": lambda admin: admin.audit_bounds(None),
    "acts": lambda admin: admin.acts(ActQuery(), None, 1),
    "record": lambda admin: admin.record(made_act(NOW, "ada@desk", "pause", {})),
    "pause": lambda admin: admin.pause("x", NOW),
    "resume": lambda admin: admin.resume(NOW),
    "unread_columns": lambda admin: admin.unread_columns(LEDGER.models),
    "unfilled_references": lambda admin: admin.unfilled_references(LEDGER.models),
    "set_move": lambda admin: admin.set_move(None, LaneMove(id="m", step="noting", other="elsewhere"), NOW),
    "forget_move_notes": lambda admin: list(admin.forget_move_notes(1)),
    "accept_loss": lambda admin: admin.accept_loss(0, 1, NOW),
    "cancel": lambda admin: admin.cancel(entry(1).command_id, "x", NOW),
    "settled_before": lambda admin: admin.settled_before(YOUNG),
    "prune": lambda admin: list(admin.prune(YOUNG, 1)),
    "forget_letters": lambda admin: list(admin.forget_letters(YOUNG, NOW, 1)),
    "forget_acts": lambda admin: list(admin.forget_acts(NOW, 10)),
    "silent_publishers": lambda admin: admin.silent_publishers(YOUNG),
    "forget_publishers": lambda admin: list(admin.forget_publishers(YOUNG, NOW, 1)),
}
"""Every method of `LaneAdmin`."""


class AdminContract:
    @pytest.fixture
    def open_admin(self) -> OpenAdmin:
        raise NotImplementedError

    @pytest.fixture
    def address(self) -> str:
        """Of the database of `open_store`."""
        raise NotImplementedError

    @pytest.fixture
    def admin(self, open_admin: OpenAdmin) -> LaneAdmin:
        return open_admin("ledger")

    def test_another_lane_s_database_is_found_out_before_anything_is_written(
        self, open_store: OpenStore, open_admin: OpenAdmin
    ) -> None:
        assert {*USES, "close"} == {name for name in vars(LaneAdmin) if not name.startswith("_")}
        commit(open_store(), open_store().take_over("holder", NOW), changes(inserts=[letter(1), letter(2)]))
        before = open_admin("ledger").state()
        for use in USES.values():
            with pytest.raises(WrongDatabase, match=r"database of OTHER_DATABASE_URL is that of lane ledger"):
                use(open_admin("other"))
        assert open_admin("ledger").state() == before

    def test_another_lane_s_database_in_the_place_of_its_own_is_found_out_too(
        self, open_store: OpenStore, open_admin: OpenAdmin, address: str
    ) -> None:
        """Its address may lead to another one at any moment, or a proxy does behind a connection that stays."""
        commit(open_store(), open_store().take_over("holder", NOW), changes(inserts=[letter(1), letter(2)]))
        admins = {name: open_admin("ledger") for name in USES}
        for admin in admins.values():
            admin.sequence()
        give_to(address, "other")
        before = open_admin("other").state()
        for name, use in USES.items():
            with pytest.raises(WrongDatabase, match=r"database of LEDGER_DATABASE_URL is that of lane other"):
                use(admins[name])
        assert open_admin("other").state() == before
        give_to(address, "ledger")
        assert open_admin("ledger").sequence() == admins["sequence"].sequence()

    def test_its_server_tells_the_time_to_the_millisecond(self, open_store: OpenStore, admin: LaneAdmin) -> None:
        open_store().take_over("holder", NOW)
        before = utc_now()
        there = admin.clock()
        slack = timedelta(milliseconds=5)
        assert there is None or before - slack <= there <= utc_now() + slack

    def test_dead_letters_are_counted(self, open_store: OpenStore, admin: LaneAdmin) -> None:
        lease = commit(open_store(), open_store().take_over("holder", NOW), changes())
        assert admin.dead_letters() == 0
        commit(open_store(), lease, changes(inserts=[letter(1), letter(2)]))
        assert (admin.dead_letters(), admin.state().dead_letters) == (2, 2)

    def test_the_row_that_keeps_a_text_is_found(self, open_store: OpenStore, admin: LaneAdmin) -> None:
        store = open_store()
        rows = [account(1), account(2, owner="a b"), account(3, owner="a b c")]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows))
        assert admin.keeping([Account], ["b", "a b"]) == Ref(Account, "id", 2)
        assert admin.keeping([Account], ["b", "a", "' OR 1=1 --"]) is None
        assert admin.keeping([], ["a b"]) is None

    def test_rows_are_found_by_their_values_in_the_order_of_their_keys(
        self, open_store: OpenStore, admin: LaneAdmin
    ) -> None:
        store = open_store()
        rows = [account(3, balance=7), account(1, balance=7), account(2, owner="b")]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows))
        assert admin.rows(LEDGER, Account, {"id": 2}, 10) == [account(2, owner="b")]
        assert [row.id for row in admin.rows(LEDGER, Account, {"balance": 7}, 10)] == [1, 3]
        assert [row.id for row in admin.rows(LEDGER, Account, {"balance": 7}, 1)] == [1]
        assert admin.rows(LEDGER, Account, {"balance": 7, "id": 2}, 10) == []
        assert admin.rows(LEDGER, Account, {"owner": "' OR 1=1 --"}, 10) == []

    def test_old_entries_are_pruned_behind_young_ones_too(self, open_store: OpenStore, admin: LaneAdmin) -> None:
        """For a while the lane's clock was in another year."""
        store = open_store()
        old = (1, 2, 8, 9, 13)
        rows = [settled(number, is_old=number in old) for number in range(1, 14)]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows), 13)
        assert [admin.command_at(number) for number in (1, 13, 14)] == [rows[0].command_id, rows[12].command_id, None]
        # The entry with the highest sequence stays.
        assert admin.settled_before(CUTOFF) == 4
        deleted = list(admin.prune(CUTOFF, 2))
        assert (sum(deleted), max(deleted)) == (4, 2)
        assert [number for number in range(1, 14) if admin.find(entry(number).command_id) is None] == [1, 2, 8, 9]
        assert (admin.settled_before(CUTOFF), sum(admin.prune(CUTOFF, 2))) == (0, 0)

    def test_orders_to_forget_stay_while_operators_are_shown_what_became_of_them(
        self, open_store: OpenStore, admin: LaneAdmin
    ) -> None:
        """Else one that is done would be said to wait."""
        now = utc_now()
        ages = ORDERS_SHOWN - timedelta(days=1), ORDERS_SHOWN + timedelta(days=1)
        rows = [
            msgspec.structs.replace(entry(number), type=kind, settled_at=now - age)
            for number, (kind, age) in enumerate(itertools.product((*ORDERS, "ledger.open"), ages), 1)
        ]
        rows.append(msgspec.structs.replace(entry(9), settled_at=now))
        assert {Forget.type, ForgetStep.type, ForgetAsked.type} == set(ORDERS)
        store = open_store()
        commit(store, store.take_over("holder", NOW), changes(inserts=rows), 9)
        cutoff = now - timedelta(days=7)
        assert admin.settled_before(cutoff) == 5
        assert sum(admin.prune(cutoff, 3)) == 5
        left = [number for number in range(1, 10) if admin.find(entry(number).command_id) is not None]
        assert left == [1, 3, 5, 9]

    def test_whose_data_pruned_commands_had_goes_with_them(self, open_store: OpenStore, admin: LaneAdmin) -> None:
        store = open_store()
        rows = [settled(number, is_old=number in (1, 2, 5)) for number in range(1, 7)]
        whose = [
            PersonalEntry(id=f"{who}:{number:019d}", sequence=number, command_id=entry(number).command_id)
            for number in range(1, 7)
            for who in ("a" * 24, "b" * 24)
        ]
        commit(store, store.take_over("holder", NOW), changes(inserts=[*rows, *whose]), 6)
        assert sum(admin.prune(CUTOFF, 2)) == 3
        transaction = store.begin()
        left = transaction.scan(PersonalEntry, 100)
        transaction.rollback()
        assert sorted(row.sequence for row in left) == [3, 3, 4, 4, 6, 6]

    def test_whose_data_is_in_what_pruned_commands_emitted_stays_known_while_it_is_there(
        self, open_store: OpenStore, admin: LaneAdmin
    ) -> None:
        """Else nobody could have it forgotten."""
        store = open_store()
        rows = [settled(number, is_old=number < 3) for number in range(1, 5)]
        emitted = {number: entry(number).command_id for number in range(11, 15)}
        whose = [
            PersonalEntry(id=f"{'a' * 24}:{1:019d}:{place}", sequence=1, command_id=each)
            for place, each in enumerate(emitted.values(), 1)
        ]
        waiting = [letter(11), timer(1, "another", emitted[12]), outgoing(1, emitted[13])]
        lease = commit(store, store.take_over("holder", NOW), changes(inserts=[*rows, *whose, *waiting]), 4)

        def known() -> set[str]:
            transaction = store.begin()
            left = transaction.scan(PersonalEntry, 100)
            transaction.rollback()
            return {row.command_id for row in left}

        assert sum(admin.prune(CUTOFF, 2)) == 2
        assert known() == {emitted[11], emitted[12], emitted[13]}
        commit(store, lease, changes(deletes=waiting, updates=[settled(3, is_old=True)]), 4)
        assert sum(admin.prune(CUTOFF, 2)) == 1
        assert known() == set()

    def test_old_letters_go_but_for_those_behind_which_commands_wait(
        self, open_store: OpenStore, admin: LaneAdmin
    ) -> None:
        store = open_store()
        letters = [
            letter(1),
            letter(2, is_nameless=True),
            letter(3),
            letter(4, is_nameless=True),
            letter(5, dead_at=YOUNG),
            letter(6),
        ]
        letters += [
            msgspec.structs.replace(letter(number), code=code, origin=origin, arguments=b"x" * 50)
            for number, code, origin in (
                (7, "invalid_arguments", "public"),
                (8, "handler_error", "public"),
                (9, "invalid_arguments", "system"),
            )
        ]
        counted = Series(name=NAMELESS["public"], value=7)
        bytes_kept = Series(name=SENDERS_BYTES, value=80)
        rows = [*letters, parked(3, error_code="handler_error"), counted, bytes_kept]
        before = commit(store, store.take_over("holder", NOW), changes(inserts=rows))
        assert sum(admin.forget_letters(CUTOFF, NOW, 2)) == 7
        assert [row.id for row in admin.letters(LetterQuery(), 0, 10)] == [3, 5]
        # The lane must read again how many there are without an id.
        with pytest.raises(Fenced):
            commit(store, before, changes())
        transaction = store.begin()
        (series,) = transaction.load([Read(Series, "name", [NAMELESS["public"], SENDERS_BYTES])])
        transaction.rollback()
        assert {row.name: row.value for row in series} == {NAMELESS["public"]: 5, SENDERS_BYTES: 30}
        revision = store.current()
        assert sum(admin.forget_letters(CUTOFF, NOW, 2)) == 0
        assert store.current() == revision

    @pytest.mark.parametrize("text", ["\u00e9", "a\0b", "\U0001f600"])
    @pytest.mark.parametrize("field", ["target", "command_id", "type", "code"])
    def test_letters_with_a_text_that_none_can_have_are_none(
        self, open_store: OpenStore, admin: LaneAdmin, field: str, text: str
    ) -> None:
        """An error of the database would read as if it were away."""
        store = open_store()
        commit(store, store.take_over("holder", NOW), changes(inserts=[letter(1)]))
        assert admin.letters(msgspec.structs.replace(LetterQuery(), **{field: text}), 0, 10) == []

    def test_old_acts_of_operators_go(self, open_store: OpenStore, admin: LaneAdmin) -> None:
        open_store().take_over("holder", NOW)
        for day in range(5):
            admin.record(made_act(CUTOFF + timedelta(days=day - 3), "ops", "pause", {}))
        assert list(admin.forget_acts(CUTOFF, 2)) == [2, 1]
        assert [act.done_at for act in admin.acts(ActQuery(), None, 10)] == [CUTOFF + timedelta(days=1), CUTOFF]
        assert list(admin.forget_acts(CUTOFF, 2)) == []

    def test_orders_to_forget_are_shown_for_as_long_as_it_is_said(
        self, open_store: OpenStore, admin: LaneAdmin
    ) -> None:
        """Such as one whose step has failed, and waits for its replay."""
        open_store().take_over("holder", NOW)
        now = utc_now()
        for days in (29, 31):
            for act in (ASKED, "pause"):
                admin.record(made_act(now - timedelta(days=days), "ops", act, {}))
        assert sum(admin.forget_acts(now - timedelta(days=1), 2)) == 3
        assert [(act.act, act.done_at) for act in admin.acts(ActQuery(), None, 10)] == [
            (ASKED, now - timedelta(days=29))
        ]

    @pytest.mark.parametrize("found", ["the same", "paused", "taken over", "another's epoch", "behind", "no lease"])
    def test_a_lane_removes_only_what_its_lease_lets_it(
        self, open_store: OpenStore, admin: LaneAdmin, found: str
    ) -> None:
        store = open_store()
        lease: Lease | None = store.take_over("holder", NOW)
        assert lease is not None
        rows = [settled(number, is_old=True) for number in range(1, 4)]
        commit(store, lease, changes(inserts=[*rows, letter(1)]), 3)
        admin.record(made_act(NOW, "ops", "pause", {}))
        if found == "paused":
            admin.pause("maintenance", NOW)
        elif found == "taken over":
            open_store().take_over("another", NOW)
        elif found == "another's epoch":
            lease = msgspec.structs.replace(lease, holder="another")
        elif found == "behind":
            lease = msgspec.structs.replace(lease, sequence=4)
        elif found == "no lease":
            lease = None
        before = admin.state()

        def holding() -> Lease | None:
            return lease

        if found == "the same":
            assert sum(admin.forget_letters(CUTOFF, NOW, 10, holding)) == 1
            assert sum(admin.prune(CUTOFF, 10, holding)) == 2
            assert sum(admin.forget_acts(YOUNG, 10, holding)) == 1
            return
        with pytest.raises(Fenced):
            list(admin.forget_letters(CUTOFF, NOW, 10, holding))
        with pytest.raises(Fenced):
            list(admin.prune(CUTOFF, 10, holding))
        with pytest.raises(Fenced):
            list(admin.forget_acts(YOUNG, 10, holding))
        assert admin.state() == before
        assert all(admin.find(entry(number).command_id) is not None for number in range(1, 4))

    def test_parked_commands_come_in_their_order_and_without_what_they_hold(
        self, open_store: OpenStore, admin: LaneAdmin
    ) -> None:
        store = open_store()
        rows = [parked(3, error_code="handler_error"), parked(2, position=2), parked(1, position=3)]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows))
        found = admin.parked()
        assert [row.command_id for row in found] == [row.command_id for row in rows]
        assert [row.error_code for row in found] == ["handler_error", None, None]
        assert {(row.ordering_key, row.parked_at) for row in found} == {("accounts.id=1", NOW)}
        assert not hasattr(found[0], "message")

    def test_parked_commands_are_counted_and_found_by_their_key(self, open_store: OpenStore, admin: LaneAdmin) -> None:
        store = open_store()
        other = msgspec.structs.replace(parked(4, error_code="rejected", position=4), ordering_key="accounts.id=2")
        rows = [parked(1, error_code="handler_error"), parked(2, position=2), parked(3, position=3), other]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows))
        assert admin.state().parked == ParkedCounts(keys=2, commands=2)

        def ids(found: list[ParkedSummary]) -> list[str]:
            return [each.command_id for each in found]

        of_first = [row.command_id for row in rows[:3]]
        assert ids(admin.parked(key="accounts.id=1")) == of_first
        assert [ids(admin.parked(command_id=row.command_id)) for row in rows] == [of_first] * 3 + [[other.command_id]]
        assert admin.parked(key="accounts.id=3") == admin.parked(command_id=entry(9).command_id) == []
        keys = admin.parked_keys(10)
        assert [(each.ordering_key, each.failed_id, each.error_code, each.waiting) for each in keys] == [
            ("accounts.id=1", rows[0].command_id, "handler_error", 2),
            ("accounts.id=2", other.command_id, "rejected", 0),
        ]
        assert keys[0].parked_at == NOW
        assert admin.parked_keys(1) == keys[:1]

    def test_a_command_on_its_way_is_found_in_the_outbox_and_among_timers(
        self, open_store: OpenStore, admin: LaneAdmin
    ) -> None:
        store = open_store()
        first, second, timed, late, fourth = (entry(number).command_id for number in range(1, 6))
        emitted = [outgoing(1, first), outgoing(2, timed, "other"), outgoing(3, second), outgoing(4, fourth)]
        timers = [timer(1, late, timed), timer(2, timed, timed), timer(3, timed, timed)]
        commit(store, store.take_over("holder", NOW), changes(inserts=[*emitted, *timers]))
        unknown = entry(9).command_id
        ways = admin.on_its_way([second, timed, late, unknown])
        found = ways[second]
        assert found.emitted is not None
        assert (found.emitted.id, found.emitted.target, found.emitted.created_at) == (3, "ledger", NOW)
        assert (found.before, found.timer) == (1, None)
        both = ways[timed]
        assert both.emitted is not None
        assert both.timer is not None
        assert (both.emitted.target, both.before, both.timer.id, both.timer.about) == ("other", 0, "timer 2", timed)
        assert [each.before for each in admin.on_its_way([fourth, second, first]).values()] == [2, 1, 0], "its own"
        assert ways[late] == OnItsWay(), "it is for an answer that does not come, and no command's own"
        assert ways[unknown] == OnItsWay()
        assert admin.on_its_way([]) == {}
        for cancelled in (unknown, timed):
            admin.cancel(cancelled, "a mistake", NOW)
        ways = admin.on_its_way([unknown, timed, second])
        assert [way.cancelled_at for way in ways.values()] == [NOW, NOW, None]
        assert ways[timed].timer == both.timer

    def test_how_commands_came_to_the_log_is_read_and_searched_by_place(
        self, open_store: OpenStore, admin: LaneAdmin
    ) -> None:
        child, parent = entry(8).command_id, entry(9).command_id
        texts = [
            "[5,1]",
            None,
            passage_text(3, 1, f"ledger.open {parent}", [child_text("other", "other.x", child)]),
            "7",
        ]
        entries = [msgspec.structs.replace(entry(number), passage=text) for number, text in enumerate(texts, 1)]
        store = open_store()
        commit(store, store.take_over("holder", NOW), changes(inserts=entries), len(entries))
        found = admin.passages(2, 9)
        assert [each.sequence for each in found] == [2, 3, 4]
        assert [each.passage for each in found] == texts[1:]
        assert {each.settled_at for each in found} == {entries[0].settled_at}
        for command_id in (child, parent):
            assert [each.sequence for each in admin.naming(command_id, 1, 4, 9)] == [3]
            assert admin.naming(command_id, 4, 9, 9) == []
        assert admin.naming(entry(1).command_id, 1, 9, 9) == []
        assert admin.naming("%", 1, 9, 9) == [], "it is no pattern"

    def test_the_commands_that_changed_a_row_are_found_the_last_one_first(
        self, open_store: OpenStore, admin: LaneAdmin
    ) -> None:
        store = open_store()
        entries = [audited(number, actor=ACTORS[number % 4]) for number in range(1, 9)]
        rows = [*entries, *(change(number) for number in (1, 2, 5, 8))]
        others = [change(3, key="10"), change(5, key="10", place=2), change(5, table="account", place=3)]
        store_all = changes(inserts=[*rows, *others, AuditedTable(row_table="accounts", since=2, epoch=1)])
        commit(store, store.take_over("holder", NOW), store_all, 8)
        of_row = ChangeQuery(row_table="accounts", row_key="1")

        def found(query: ChangeQuery, before: int = 100, limit: int = 100) -> list[int]:
            return [each.sequence for each in admin.audited(query, before, limit)]

        assert found(of_row) == [8, 5, 2, 1]
        assert (found(of_row, limit=2), found(of_row, before=5)) == ([8, 5], [2, 1])
        first, *_ = admin.audited(of_row, 6, 1)
        assert (first.command_id, first.type, first.status) == (entry(5).command_id, "ledger.open", "applied")
        assert (first.settled_at, first.actor) == (NOW + timedelta(hours=5), ACTORS[1])
        assert first.changes == [ChangedRow(row_table="accounts", row_key="1", how="updated", version=5)]
        every = {each.sequence: each.changes for each in admin.audited(ChangeQuery(), 9, 100)}
        assert [*every] == [8, 7, 6, 5, 4, 3, 2, 1]
        assert [(each.row_table, each.row_key) for each in every[5]] == [
            ("accounts", "1"),
            ("accounts", "10"),
            ("account", "1"),
        ]
        assert every[4] == []
        since, until = NOW + timedelta(hours=2), NOW + timedelta(hours=8)
        assert found(ChangeQuery(row_table="accounts", row_key="1", since=since, until=until)) == [5, 2]
        assert found(ChangeQuery(since=since, until=until), limit=3) == [7, 6, 5]
        assert found(ChangeQuery(actor='a "b" é')) == [6, 5, 2, 1]
        assert found(ChangeQuery(row_table="accounts", row_key="1", actor='a "b" é')) == [5, 2, 1]
        assert found(ChangeQuery(actor="a")) == [7, 3]
        assert found(ChangeQuery(actor="A")) == found(ChangeQuery(actor="%")) == []
        assert found(ChangeQuery(row_table="accounts", row_key="")) == []
        assert found(ChangeQuery(type="ledger.open", status="applied", after=5)) == [8, 7, 6]
        assert found(ChangeQuery(row_table="accounts", row_key="1", after=2)) == [8, 5]
        assert found(ChangeQuery(status="failed")) == found(ChangeQuery(type="ledger.ope")) == []
        bounds = AuditBounds(
            first=1,
            first_at=NOW + timedelta(hours=1),
            last_epoch=1,
            audited=AuditedTable(row_table="accounts", since=2, epoch=1),
        )
        assert admin.audit_bounds("accounts") == bounds
        assert (
            admin.audit_bounds("account") == admin.audit_bounds(None) == msgspec.structs.replace(bounds, audited=None)
        )

    @pytest.mark.parametrize("is_lane", [True, False])
    def test_what_a_command_changed_goes_with_its_entry(
        self, open_store: OpenStore, admin: LaneAdmin, *, is_lane: bool
    ) -> None:
        store = open_store()
        old = (3, 4, 8, 9, 13)
        # An older release has deleted entries 1 and 5 without what they changed.
        entries = [settled(number, is_old=number in old) for number in range(1, 14) if number not in (1, 5)]
        rows = [*entries, *(change(number) for number in range(1, 14))]
        lease = store.take_over("holder", NOW)
        commit(store, lease, changes(inserts=rows), 13)
        holding = (lambda: lease) if is_lane else None
        assert sum(admin.prune(CUTOFF, 3, holding)) == 4
        transaction = store.begin()
        left = [row.sequence for row in transaction.scan(RowChange, 100)]
        transaction.rollback()
        assert left == [2, 6, 7, 10, 11, 12, 13]

    def test_what_operators_do_is_kept_with_its_author_and_reason(
        self, open_store: OpenStore, open_admin: OpenAdmin
    ) -> None:
        open_store().take_over("holder", NOW)
        admin = open_admin("ledger")
        later = NOW + timedelta(hours=1)
        admin.pause("maintenance", NOW, ACT)
        admin.resume(later, made_act(later, "bob@desk", "resume", {}))
        admin.cancel(entry(9).command_id, "AL", later, made_act(later, "bob@desk", "cancel", {}, reason="AL"))
        admin.accept_loss(0, 9, NOW, made_act(NOW, "ada@desk", "accept-loss", {"up_to": 9}, reason="a backup"))
        admin.record(made_act(NOW - timedelta(hours=1), "cy@desk", "log prune", {}))
        found = admin.acts(ActQuery(), None, 10)
        assert [act.done_at for act in found] == [later, later, NOW, NOW, NOW - timedelta(hours=1)]
        assert {act.act for act in found[:2]} == {"resume", "cancel"}
        assert ACT in found
        assert (ACT.details, ACT.account, ACT.reason) == ('{"é":1}', "ada", "why")
        assert admin.acts(ActQuery(), found[1].id, 2) == found[2:4]
        assert admin.acts(ActQuery(author="bob@desk"), None, 10) == found[:2]
        assert admin.acts(ActQuery(author="BOB@desk"), None, 10) == []
        assert admin.acts(ActQuery(act="pause"), None, 10) == [ACT]
        assert admin.acts(ActQuery(act="Pause"), None, 10) == []
        assert admin.acts(ActQuery(since=NOW, until=later), None, 10) == found[2:4]

    def test_what_changes_nothing_is_no_act(self, open_store: OpenStore, admin: LaneAdmin) -> None:
        store = open_store()
        commit(store, store.take_over("holder", NOW), changes(inserts=[entry(1)]))
        assert admin.resume(NOW, ACT) is None
        assert admin.cancel(entry(1).command_id, "too late", NOW, ACT) is not None
        assert admin.accept_loss(0, 9, NOW, ACT) == 1
        assert admin.acts(ActQuery(), None, 10) == []
        admin.cancel(entry(2).command_id, "once", NOW, ACT)
        admin.cancel(entry(2).command_id, "twice", NOW, made_act(NOW, "bob@desk", "cancel", {}))
        assert admin.acts(ActQuery(), None, 10) == [ACT]

    def test_what_cannot_be_kept_is_not_done(self, open_store: OpenStore, admin: LaneAdmin) -> None:
        store = open_store()
        commit(store, store.take_over("holder", NOW), changes(inserts=[entry(1)]))
        # Its id is taken, so the database refuses the second one.
        admin.record(ACT)
        for do in (
            lambda: admin.pause("x", NOW, ACT),
            lambda: admin.cancel(entry(2).command_id, "x", NOW, ACT),
            lambda: admin.accept_loss(1, 9, NOW, ACT),
        ):
            with pytest.raises(DatabaseUnavailable):
                do()
        lease = store.current()
        assert lease is not None
        assert (lease.paused, lease.loss_accepted) == (None, None)
        assert admin.cancel(entry(2).command_id, "x", NOW, made_act(NOW, "a", "cancel", {})) is None
        assert len(admin.acts(ActQuery(), None, 10)) == 2
