"""What a lane promises of continuations on every store. Each store's tests inherit this class."""

from typing import Any

import pytest

from coordinator.lane.delivery import Delivery
from coordinator.lane.outbox import message_of
from coordinator.service.commands import Command
from coordinator.stores.lane_tables import OutboxEntry
from tests.support.lane_contract import LaneUnderTest, codes, delivery
from tests.support.ledger import Account, Deposit, Note, OpenAccount, Postpone, Resume, Tamper
from tests.support.store_contract import OpenStore


def brought(entry: OutboxEntry) -> Delivery:
    """An emitted command as its lane receives it."""
    return Delivery(tag=1, commands=(message_of(entry),))


class ContinuationContract:
    @pytest.fixture
    def lane(self, open_store: OpenStore) -> LaneUnderTest:
        return LaneUnderTest(open_store())

    @pytest.mark.parametrize(
        ("command", "options", "told"),
        [
            (Deposit(id=1, amount=5), {}, "applied"),
            (Deposit(id=9, amount=5), {}, "account_not_found"),
            (Tamper(id=1, how="crash"), {}, "handler_error"),
            (Deposit(id=1, amount=5), {"deadline_ms": 1}, "deadline_expired"),
            (Postpone(id=1, how="rejected"), {}, "refused"),
            (Postpone(id=1, how="failed"), {}, "handler_error"),
        ],
    )
    def test_whatever_becomes_of_a_command_becomes_the_command_that_it_names(
        self, lane: LaneUnderTest, command: Command, options: dict[str, Any], told: str
    ) -> None:
        lane.do(OpenAccount(owner="a"))
        settlement = lane.settle(
            delivery(1, Deposit(id=1, amount=1)),
            delivery(2, command, continuation=Note.type, **options),
            delivery(3, Deposit(id=1, amount=1)),
        )
        (entry,) = settlement.emitted
        assert (entry.lane, entry.type, entry.continuation) == ("ledger", Note.type, None)
        assert lane.settle(brought(entry)).outcomes[0].status == "applied"
        assert [row.owner for row in lane.rows(Account) if row.id > 1] == [told]

    def test_what_the_database_refuses_goes_on_as_failed(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        settlement = lane.settle(
            delivery(1, Deposit(id=1, amount=1)),
            delivery(2, Tamper(id=1, how="taken"), continuation=Note.type),
            delivery(3, Deposit(id=1, amount=1)),
        )
        lane.settle(*(brought(entry) for entry in settlement.emitted))
        assert [row.owner for row in lane.rows(Account) if row.id > 2] == ["database_refused"]

    def test_a_repeated_command_goes_on_once(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store())
        once = delivery(1, OpenAccount(owner="a"), continuation=Note.type)
        assert [len(lane.settle(once).emitted), len(lane.settle(once).emitted)] == [1, 0]
        # A successor publishes what nobody has confirmed.
        successor = LaneUnderTest(open_store())
        (entry,) = successor.settle(once).emitted
        outcomes = successor.settle(brought(entry), brought(entry)).outcomes
        assert [outcome.replayed for outcome in outcomes] == [False, True]

    @pytest.mark.parametrize("refusal", [None, "declined"])
    def test_what_is_put_off_goes_on_when_it_is_resumed_and_once(
        self, lane: LaneUnderTest, refusal: str | None
    ) -> None:
        lane.do(OpenAccount(owner="a"))
        assert lane.settle(delivery(1, Postpone(id=1), continuation=Note.type)).emitted == []
        resumed = lane.settle(delivery(2, Resume(id=1, refusal=refusal)), delivery(3, Resume(id=1, refusal=refusal)))
        assert len({entry.command_id for entry in resumed.emitted}) == 1
        outcomes = lane.settle(*(brought(entry) for entry in resumed.emitted)).outcomes
        assert [outcome.replayed for outcome in outcomes] == [False, True]
        assert [row.owner for row in lane.rows(Account) if row.id > 1] == [refusal or "applied"]

    def test_a_command_without_a_continuation_puts_nothing_off(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"))
        assert codes(lane.do(Postpone(id=1), Resume(id=1))) == ["applied", "nothing_put_off"]
