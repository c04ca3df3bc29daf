"""What a lane promises of the rules of commands, on every store. Each store's tests inherit this class."""

from typing import Any

import pytest

from coordinator.lane.control import Release
from coordinator.lane.delivery import Delivery
from coordinator.service.allowing import any_principal, anybody, has_scope
from coordinator.service.principal import Principal, UnbelievedAccount
from coordinator.service.reading import Reading
from coordinator.service.unit_of_work import FailurePolicy, Handler
from coordinator.stores.lane_tables import DeadLetter, ParkedCommand
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, Account, Deposit, Fragile, OpenAccount, Remark
from tests.support.store_contract import OpenStore

ADA = Principal(subject="ada", scopes=frozenset({"cashier"}))
BOB = Principal(subject="bob")


def ruled(
    open_store: OpenStore,
    rule: Any,
    on_failure: FailurePolicy = "park",
    reads: Any = None,
    target: Any = None,
    of: Any = None,
) -> LaneUnderTest:
    """The ledger, with a rule for deposits."""
    handlers = [
        Handler(
            Deposit,
            each.handle,
            reads=reads or each.reads,
            target=target or each.target,
            of=of,
            on_failure=on_failure,
            allow=rule,
        )
        if each.command is Deposit
        else each
        for each in LEDGER.handlers
    ]
    lane = LaneUnderTest(open_store(), service=LEDGER.replace(handlers=handlers))
    lane.do(OpenAccount(owner="ada"))
    return lane


def own_account(who: Principal, command: Deposit, rows: Reading) -> bool:
    account = rows.get(Account, command.id)
    return account is not None and account.owner == who.subject


def deposit(number: int, actor: Principal | None, account: int = 1, **options: Any) -> Delivery:
    return delivery(number, Deposit(id=account, amount=1), actor=actor, origin="public", **options)


class AllowContract:
    def test_a_rule_sees_who_asks_the_command_and_the_rows_as_they_are_then(self, open_store: OpenStore) -> None:
        lane = ruled(open_store, own_account)
        told = lane.outcomes(
            deposit(1, ADA),
            deposit(2, BOB),
            deposit(3, BOB, account=2),
            delivery(4, OpenAccount(owner="bob")),
            deposit(5, BOB, account=2),
            deposit(6, None),
        )
        assert codes(told) == ["applied", "forbidden", "forbidden", "applied", "applied", "forbidden"]
        assert [each.status for each in told if each.error] == ["rejected"] * 3
        assert [account.balance for account in lane.rows(Account)] == [1, 1]
        assert lane.rows(DeadLetter) == []

    def test_what_is_refused_is_so_for_good(self, open_store: OpenStore) -> None:
        lane = ruled(open_store, has_scope("cashier"))
        assert codes(lane.outcomes(deposit(1, BOB), deposit(2, ADA))) == ["forbidden", "applied"]
        promoted = Principal(subject="bob", scopes=frozenset({"cashier"}))
        (again,) = lane.outcomes(deposit(1, promoted))
        assert (again.replayed, codes([again])) == (True, ["forbidden"])
        assert codes(lane.outcomes(deposit(3, promoted))) == ["applied"]

    def test_it_is_asked_before_the_version_is_looked_at(self, open_store: OpenStore) -> None:
        lane = ruled(open_store, own_account)
        assert codes(lane.outcomes(deposit(1, BOB, expected_version=9))) == ["forbidden"]

    def test_the_system_is_not_asked(self, open_store: OpenStore) -> None:
        lane = ruled(open_store, own_account)
        told = lane.outcomes(delivery(1, Deposit(id=1, amount=1), actor=BOB), delivery(2, Deposit(id=1, amount=1)))
        assert codes(told) == ["applied", "applied"]

    def test_the_rules_for_many(self, open_store: OpenStore) -> None:
        assert codes(ruled(open_store, any_principal).outcomes(deposit(1, BOB), deposit(2, None))) == [
            "applied",
            "forbidden",
        ]

    @pytest.mark.parametrize("rule", [any_principal, has_scope("cashier"), lambda _who, _command, _rows: True])
    def test_who_asks_for_others_and_is_not_believed_may_nothing(self, open_store: OpenStore, rule: Any) -> None:
        """All who ask of such a gateway would be one."""
        gateway = UnbelievedAccount(subject="amqp:gateway", scopes=frozenset({"cashier"}))
        (told,) = ruled(open_store, rule).outcomes(deposit(1, gateway))
        assert told.error is not None
        assert told.error.code == "forbidden"
        assert "LANE_GATEWAY_ACCOUNTS" in told.error.message

    def test_the_rule_for_everybody(self, open_store: OpenStore) -> None:
        gateway = UnbelievedAccount(subject="amqp:gateway")
        told = ruled(open_store, anybody).outcomes(deposit(1, BOB), deposit(2, None), deposit(3, gateway))
        assert codes(told) == ["applied"] * 3

    @pytest.mark.parametrize("answer", [None, 1, "yes", []])
    def test_a_rule_that_gives_no_answer_fails_its_command_alone(self, open_store: OpenStore, answer: object) -> None:
        lane = ruled(open_store, lambda who, _command, _rows: True if who == ADA else answer)
        told = lane.outcomes(deposit(1, BOB), deposit(2, ADA))
        assert codes(told) == ["handler_error", "applied"]
        assert "allow_contract.py:" in lane.rows(DeadLetter)[0].reason
        assert "must return True or False" in lane.rows(DeadLetter)[0].reason

    def test_a_rule_changes_nothing(self, open_store: OpenStore) -> None:
        def greedy(who: Principal, command: Deposit, rows: Any) -> bool:
            del who, command
            account = rows.get(Account, 1)
            rows.save(account.replace(balance=1_000_000))
            return True

        lane = ruled(open_store, greedy)
        assert codes(lane.outcomes(deposit(1, ADA))) == ["handler_error"]
        assert [account.balance for account in lane.rows(Account)] == [0]

    @pytest.mark.parametrize("how", ["raises", "gives no answer"])
    @pytest.mark.parametrize("policy", ["park", "park-key", "block"])
    def test_a_rule_that_fails_holds_up_nobody(self, open_store: OpenStore, policy: Any, how: str) -> None:
        """Nobody has said that its command may be issued."""

        def rule(who: Principal, command: Deposit, rows: Reading) -> bool:
            if how == "raises":
                assert rows.get(Account, command.id) is not None
            account = rows.get(Account, command.id)
            return None if account is None else account.owner == who.subject  # type: ignore[return-value]

        lane = ruled(open_store, rule, on_failure=policy)
        told = lane.outcomes(
            deposit(1, BOB, account=2),
            delivery(2, OpenAccount(owner="ada2")),
            delivery(3, Deposit(id=2, amount=1)),
            deposit(4, ADA),
        )
        assert codes(told) == ["handler_error", "applied", "applied", "applied"]
        assert len(lane.rows(DeadLetter)) == 1
        assert lane.rows(ParkedCommand) == []

    @pytest.mark.parametrize("policy", ["park", "park-key", "block"])
    @pytest.mark.parametrize("what", ["reads", "target", "of"])
    def test_what_fails_before_the_rule_is_asked_holds_up_nobody(
        self, open_store: OpenStore, policy: Any, what: str
    ) -> None:
        """A function of the author's that fails for some commands, and whoever may not issue them finds them."""

        def failing(command: Deposit) -> Any:
            assert command.amount != 13
            return Account.at(command.id) if what == "target" else [Account.at(command.id)]

        lane = ruled(open_store, own_account, on_failure=policy, **{what: failing})
        unlucky = Deposit(id=1, amount=13)
        told = lane.outcomes(delivery(1, unlucky, actor=BOB, origin="public"), deposit(2, ADA))
        assert codes(told) == ["handler_error", "applied"]
        assert lane.rows(ParkedCommand) == []

    @pytest.mark.parametrize("what", ["allow", "reads"])
    def test_nor_does_it_once_it_has_waited_behind_a_failed_one(self, open_store: OpenStore, what: str) -> None:
        """Whoever may not issue it waits as well, and would keep those behind him waiting for an operator once more."""

        def rule(who: Principal, _command: Deposit, _rows: Reading) -> bool:
            assert what == "reads" or who != BOB
            return who == ADA

        def reads(command: Deposit) -> Any:
            assert what == "allow" or command.amount != 13
            return [Account.at(command.id)]

        lane = ruled(open_store, rule, reads=reads)
        lane.do(Remark(id=1, note="broken"))
        assert codes(lane.outcomes(delivery(10, Fragile(id=1, amount=1)))) == ["handler_error"]
        unlucky = delivery(11, Deposit(id=1, amount=13), actor=BOB, origin="public")
        assert lane.outcomes(unlucky, deposit(12, ADA)) == []
        (key,) = {row.ordering_key for row in lane.rows(ParkedCommand)}
        told = lane.outcomes(delivery(20, Release(ordering_key=key, command_id=command_id(10))))
        assert codes(told) == ["applied", "handler_error", "applied"]
        assert lane.rows(ParkedCommand) == []

    def test_who_may_not_takes_no_room_from_those_who_wait(self, open_store: OpenStore) -> None:
        lane = ruled(open_store, has_scope("cashier"), on_failure="park-key")
        lane.do(Remark(id=1, note="broken"))
        assert codes(lane.outcomes(delivery(10, Fragile(id=1, amount=1)))) == ["handler_error"]
        told = lane.outcomes(deposit(11, BOB), deposit(12, None), deposit(13, ADA))
        assert codes(told) == ["forbidden", "forbidden"]
        assert [row.command_id for row in lane.rows(ParkedCommand)] == [command_id(10), command_id(13)]
