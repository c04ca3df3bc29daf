"""What a lane promises of the audit, on every store: the changes of audited rows, and from where on they are complete.
Each store's tests inherit this class."""

import msgspec
import pytest

from coordinator.lane.control import DiscardLetter, Release
from coordinator.service.commands import Command, Id
from coordinator.service.principal import Principal
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.audit_tables import AuditedTable, OperatorAct, RowChange
from coordinator.stores.lane_tables import DeadLetter
from tests.support.lane_contract import LaneUnderTest, codes, delivery
from tests.support.ledger import LEDGER, Account, Close, Deposit, Fragile, OpenAccount, Remark, Rename, Tamper
from tests.support.store_contract import NOW, OpenStore


class Shuffle(Command, type="ledger.shuffle"):
    """Changes account `id` twice, opens one account that stays, and one that does not."""

    id: Id


def shuffle(work: UnitOfWork, command: Shuffle) -> None:
    account = work.get(Account, command.id)
    assert account is not None
    stays = work.add(Account(id=work.next_id("accounts"), owner="stays", created_at=work.now))
    work.remove(work.add(Account(id=work.next_id("accounts"), owner="goes", created_at=work.now)))
    once = work.save(account.replace(balance=1))
    work.save(once.replace(balance=2))
    work.save(stays.replace(note="still new"))


AUDITED = LEDGER.replace(handlers=[*LEDGER.handlers, Handler(Shuffle, shuffle)])

_OPENED = ("accounts", "1", "inserted", 1)


def changes_of(lane: LaneUnderTest) -> list[tuple[int, int, str, str, str, int | None]]:
    return [(row.sequence, row.place, row.row_table, row.row_key, row.how, row.version) for row in lane.rows(RowChange)]


class AuditContract:
    @pytest.fixture
    def audited(self, open_store: OpenStore) -> LaneUnderTest:
        return LaneUnderTest(open_store(), service=AUDITED)

    def test_each_applied_command_has_an_entry_for_each_row_that_it_changed(self, audited: LaneUnderTest) -> None:
        audited.do(OpenAccount(owner="a"), Shuffle(id=1))
        outcomes = audited.do(Rename(id=1, owner="b"), Deposit(id=1, amount=-9), Close(id=1), Deposit(id=1, amount=1))
        assert codes(outcomes) == ["applied", "overdrawn", "applied", "account_not_found"]
        assert changes_of(audited) == [
            (1, 1, "accounts", "1", "inserted", 1),
            (2, 1, "accounts", "2", "inserted", 2),
            (2, 2, "accounts", "1", "updated", 3),
            (3, 1, "accounts", "1", "updated", 4),
            (5, 1, "accounts", "1", "removed", 4),
        ]

    def test_a_hot_row_has_every_version_once_whatever_fails_beside_it(self, audited: LaneUnderTest) -> None:
        audited.do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        same = delivery(1, Deposit(id=1, amount=1))
        expired = delivery(4, Deposit(id=1, amount=1), deadline_ms=1)
        crashes = [delivery(2, Tamper(id=1, how="duplicate key")), delivery(3, Tamper(id=1, how="crash"))]
        audited.settle(same, expired, crashes[0], same, crashes[1])
        audited.settle(*(delivery(number, Deposit(id=1, amount=1)) for number in range(10, 30)), same)
        audited.do(Tamper(id=1, how="taken"), Deposit(id=1, amount=1), Tamper(id=1, how="refuse"))
        found = [row for row in audited.rows(RowChange) if row.row_key == "1"]
        assert [row.version for row in found] == list(range(1, 24))
        applied = {entry.sequence for entry in audited.log() if entry.status == "applied"}
        assert {row.sequence for row in audited.rows(RowChange)} == applied

    def test_a_command_that_waited_has_its_entry_when_it_is_applied(self, audited: LaneUnderTest) -> None:
        audited.do(OpenAccount(owner="a"), Remark(id=1, note="broken"), Fragile(id=1, amount=1))
        audited.do(Deposit(id=1, amount=5), Remark(id=1, note=None))
        found = [row for row in audited.rows(RowChange) if row.row_key == "1"]
        entries = {entry.sequence: entry.type for entry in audited.log()}
        assert [entries[row.sequence] for row in found] == ["ledger.open", "ledger.remark", "ledger.remark"]
        assert [row.version for row in found] == [1, 2, 3]

    def test_the_first_complete_sequence_is_kept_over_takeovers(
        self, audited: LaneUnderTest, open_store: OpenStore
    ) -> None:
        audited.do(OpenAccount(owner="a"))
        for _ in range(3):
            LaneUnderTest(open_store(), service=AUDITED).do(Deposit(id=1, amount=1))
        (row,) = audited.rows(AuditedTable)
        assert (row.row_table, row.since) == ("accounts", 1)
        assert row.epoch == audited.log()[-1].epoch

    @pytest.mark.parametrize("has_applied", [True, False])
    def test_the_audit_begins_again_after_a_process_that_does_not_audit(
        self, audited: LaneUnderTest, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, *, has_applied: bool
    ) -> None:
        """Such as one of an older release, or one whose class is not audited."""
        audited.do(OpenAccount(owner="a"))
        with monkeypatch.context() as patch:
            patch.setattr(Account, "__audited__", False)
            older = LaneUnderTest(open_store(), service=AUDITED)
            older.do(*[Deposit(id=1, amount=1)] * has_applied)
            assert older.lane.apply([]) is not None
            (row,) = older.rows(AuditedTable)
            assert (older.log()[-1].epoch > row.epoch) == has_applied
        LaneUnderTest(open_store(), service=AUDITED).do(Deposit(id=1, amount=1))
        (row,) = audited.rows(AuditedTable)
        assert row.since == (3 if has_applied else 1)
        assert row.epoch == audited.log()[-1].epoch
        assert [each.sequence for each in audited.rows(RowChange)] == [1, 3] if has_applied else [1, 2]

    def test_an_operator_s_order_is_kept_once_with_its_author_and_reason(self, audited: LaneUnderTest) -> None:
        audited.do(
            OpenAccount(owner="a"), Remark(id=1, note="broken"), Fragile(id=1, amount=1), Fragile(id=1, amount=2)
        )
        audited.do(Tamper(id=1, how="crash"))
        parked, crashed = audited.rows(DeadLetter)
        release = Release(
            ordering_key="accounts.id=1", command_id=parked.command_id or "", by="ada@desk", reason="we looked"
        )
        # Whom the message names, its publisher has written; the account is what the broker has checked.
        named = delivery(90, DiscardLetter(letter=crashed.id, by="bob@desk"), actor=Principal(subject="amqp:op"))
        discard = msgspec.structs.replace(named, account="gateway")
        refused = DiscardLetter(letter=77, by="cy@desk")
        found = audited.outcomes(delivery(91, release), delivery(91, release), discard, delivery(92, refused), discard)
        assert codes(found)[:5] == ["applied", "applied", "applied", "letter_not_found", "applied"]
        acts = sorted(audited.rows(OperatorAct), key=lambda act: act.act)
        assert [(act.act, act.author, act.reason, act.account) for act in acts] == [
            ("dead discard", "bob@desk", None, "amqp:gateway"),
            ("release", "ada@desk", "we looked", None),
        ]
        assert msgspec.json.decode(acts[0].details) == {
            "letter": crashed.id,
            "target": "ledger",
            "command_id": crashed.command_id,
        }
        assert msgspec.json.decode(acts[1].details) == {
            "ordering_key": "accounts.id=1",
            "command_id": parked.command_id,
        }
        assert {act.done_at for act in acts} == {NOW}

    def test_rows_that_are_not_audited_leave_no_trace(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Account, "__audited__", False)
        lane = LaneUnderTest(open_store(), service=AUDITED)
        lane.do(OpenAccount(owner="a"), Shuffle(id=1), Close(id=1))
        assert (lane.rows(RowChange), lane.rows(AuditedTable)) == ([], [])
