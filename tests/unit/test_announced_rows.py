"""What projections are told of rows that were removed, and of others that were added under their keys."""

from collections.abc import Sequence

from coordinator.lane.committed import Committed
from coordinator.service.commands import Command
from coordinator.service.errors import Rejected
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.port import Changes
from tests.support.lane_contract import LaneUnderTest, delivery
from tests.support.ledger import LEDGER, Account, Deposit, OpenAccount
from tests.support.store_contract import NOW


class Renew(Command, type="ledger.renew"):
    id: int
    is_refused: bool = False


class Drop(Command, type="ledger.drop"):
    id: int


def account(version: int, owner: str = "a") -> Account:
    return Account(id=1, owner=owner, created_at=NOW, version=version)


def drop(work: UnitOfWork, command: Drop) -> None:
    there = work.get(Account, command.id)
    assert there is not None
    work.remove(there)


def renew(work: UnitOfWork, command: Renew) -> Account:
    there = work.get(Account, command.id)
    if there is not None:
        work.remove(there)
    added = work.add(account(1, owner="anew"))
    if command.is_refused:
        raise Rejected("no", "no")
    return added


def lane_with_account() -> LaneUnderTest:
    handlers = (*LEDGER.handlers, Handler(Renew, renew, target=lambda each: Account.at(each.id)), Handler(Drop, drop))
    service = Service(name="ledger", models=LEDGER.models, handlers=handlers, metadata=LEDGER.metadata)
    lane = LaneUnderTest(MemoryStore(MemoryDatabase()), service=service)
    lane.do(OpenAccount(owner="a"), Deposit(id=1, amount=1))
    return lane


def accounts(rows: Sequence[Row]) -> list[tuple[str, int]]:
    return [(row.owner, row.version) for row in rows if isinstance(row, Account)]


def test_a_row_that_is_added_under_the_key_of_another_is_told_to_have_begun_anew() -> None:
    """A copy that keeps the later version would keep the row that is gone."""
    lane = lane_with_account()
    settlement = lane.settle(delivery(9, Renew(id=1)))
    assert accounts(settlement.saved) == [("anew", 1)]
    assert settlement.removed == [Account.at(1)]
    assert lane.settle(delivery(10, Deposit(id=1, amount=1))).removed == []


def test_so_is_one_whose_former_row_another_command_of_the_batch_removed() -> None:
    settlement = lane_with_account().settle(delivery(9, Drop(id=1)), delivery(10, Renew(id=1)))
    assert (accounts(settlement.saved), settlement.removed) == ([("anew", 1)], [Account.at(1)])


def test_so_is_one_that_is_announced_once_more() -> None:
    """The process that added it may have died before it told anybody."""
    lane = lane_with_account()
    again = delivery(9, Renew(id=1))
    lane.settle(again)
    settlement = lane.settle(again)
    assert (accounts(settlement.saved), settlement.removed) == ([("anew", 1)], [Account.at(1)])


def test_a_row_that_a_refused_command_removed_and_added_again_is_not_told_of() -> None:
    """A copy would lose it for good."""
    lane = lane_with_account()
    settlement = lane.settle(delivery(9, Renew(id=1, is_refused=True)))
    assert (settlement.saved, settlement.removed) == ([], [])
    settlement = lane.settle(delivery(10, Renew(id=1, is_refused=True)), delivery(11, Deposit(id=1, amount=1)))
    assert accounts(settlement.saved) == [("a", 3)]


def test_of_several_transactions_the_last_one_tells_what_is_there() -> None:
    committed = Committed()
    committed.add([], [], Changes([], [[account(4)]], []))
    committed.add([], [], Changes([[account(4)]], [], []))
    assert (committed.saved, committed.removed) == ([], [Account.at(1)])
    committed.add([], [], Changes([], [], [[account(1)]]))
    committed.add([], [], Changes([], [[account(2)]], []))
    assert accounts(committed.saved) == [("a", 1), ("a", 2)]
    committed.add([], [], Changes([], [[account(1, "anew")]], [], added_again=[account(1, "anew")]))
    assert accounts(committed.saved) == [("anew", 1)]
    assert set(committed.removed) == {Account.at(1)}
