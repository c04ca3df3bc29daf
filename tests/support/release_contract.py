"""What a lane of an older release promises on every store, of commands of types that only a newer release has."""

from collections.abc import Sequence

from coordinator.lane.control import Release
from coordinator.lane.delivery import Delivery, Deposed, Settlement, Suspension
from coordinator.lane.parking import message_of
from coordinator.service.principal import Principal, UnbelievedAccount
from coordinator.stores.lane_tables import AnnouncedVersion, DeadLetter, ParkedCommand
from coordinator.stores.port import Store
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, Account, Deposit, Fragile, OpenAccount, Remark
from tests.support.store_contract import NOW, OpenStore, changes, commit

OLDER = LEDGER.replace(handlers=[each for each in LEDGER.handlers if each.command is not Remark])
"""The ledger before it had remarks."""
WITHOUT_DEPOSITS = LEDGER.replace(handlers=[each for each in LEDGER.handlers if each.command is not Deposit])
ANNOUNCED = AnnouncedVersion(type=Remark.type, version=2)


def announce(store: Store, *announced: AnnouncedVersion) -> None:
    """Have these announced and no others, beside the lane. A lane that runs has to take its lease again."""
    transaction = store.begin()
    there = transaction.scan(AnnouncedVersion, 100)
    transaction.rollback()
    for change in (changes(deletes=there), changes(inserts=announced)):
        commit(store, store.take_over("migration", NOW), change, counted=0)


def remarks(**options: object) -> list[Delivery]:
    """A command of a new type, between two others."""
    return [
        delivery(1, OpenAccount(owner="a")),
        delivery(2, Remark(id=1, note="new"), **options),  # type: ignore[arg-type]
        delivery(3, OpenAccount(owner="b")),
    ]


def waiting(lane: LaneUnderTest, deliveries: Sequence[Delivery]) -> Suspension:
    """How a lane waits at the second of some commands."""
    first = lane.lane.apply(deliveries, lane.channel_number)
    assert isinstance(first, Settlement)
    assert first.tags == [deliveries[0].tag], "what came before is settled"
    decision = lane.lane.apply(deliveries, lane.channel_number)
    assert isinstance(decision, Suspension)
    return decision


class ReleaseContract:
    def test_a_type_that_is_announced_waits_for_a_process_that_has_it(self, open_store: OpenStore) -> None:
        announce(open_store(), ANNOUNCED)
        old, new = LaneUnderTest(open_store(), "old", OLDER), LaneUnderTest(open_store(), "new")
        deliveries = remarks()
        decision = waiting(old, deliveries)
        assert decision.is_unfit
        assert not decision.is_blocked
        assert decision.reason == (
            f"command {command_id(2)} is of type ledger.remark, which a newer release has announced: a coordinator of "
            "that release must take the lane over (where none is left: `coordinator migrate ledger --withdraw "
            "ledger.remark`)"
        )
        assert codes(new.outcomes(*deliveries)) == ["applied"] * 3
        assert isinstance(old.lane.apply(deliveries), Deposed)
        assert [(row.owner, row.note) for row in new.rows(Account)] == [("a", "new"), ("b", None)]
        assert [entry.sequence for entry in new.log()] == [1, 2, 3]
        assert new.rows(DeadLetter) == []

    def test_a_type_that_nobody_announced_is_a_dead_letter(self, open_store: OpenStore) -> None:
        announce(open_store(), ANNOUNCED)
        lane = LaneUnderTest(open_store(), service=OLDER)
        later = remarks(command_version=3)
        other = delivery(4, b"{}", command_type="ledger.Remark")
        assert codes(lane.outcomes(*later, other)) == [
            *("applied", "unknown_command_type", "applied", "unknown_command_type")
        ]
        assert [letter.type for letter in lane.rows(DeadLetter)] == ["ledger.remark", "ledger.Remark"]

    def test_a_type_that_is_withdrawn_is_a_dead_letter_at_the_lane_that_waits(self, open_store: OpenStore) -> None:
        announce(open_store(), ANNOUNCED)
        lane = LaneUnderTest(open_store(), service=OLDER)
        deliveries = remarks()
        assert waiting(lane, deliveries).is_unfit
        announce(open_store())
        lane.channel_number += 1
        [outcome] = lane.outcomes(*deliveries)[1:2]
        assert outcome.error is not None
        assert outcome.error.code == "unknown_command_type"
        assert "this lane has no command type 'ledger.remark'" in outcome.error.message
        assert [entry.sequence for entry in lane.log()] == [1, 2, 3]
        assert [letter.type for letter in lane.rows(DeadLetter)] == ["ledger.remark"]

    def test_a_type_of_the_system_s_own_waits_for_what_the_system_sends(self, open_store: OpenStore) -> None:
        announce(open_store(), AnnouncedVersion(type=Remark.type, version=1, origin="system"))
        old, new = LaneUnderTest(open_store(), "old", OLDER), LaneUnderTest(open_store(), "new")
        of_the_public = delivery(1, Remark(id=1, note="forged"), origin="public")
        assert codes(old.outcomes(of_the_public, delivery(2, OpenAccount(owner="a")))) == [
            "unknown_command_type",
            "applied",
        ]
        of_the_system = delivery(3, Remark(id=1, note="new"))
        assert isinstance(decision := old.lane.apply([of_the_system], old.channel_number), Suspension)
        assert decision.is_unfit
        assert codes(new.outcomes(of_the_system)) == ["applied"]
        assert [row.note for row in new.rows(Account)] == ["new"]

    def test_a_stranger_s_command_that_waited_for_its_key_has_no_lane_wait(self, open_store: OpenStore) -> None:
        """The newer release parked it; then it is taken back, and the older one releases the key."""
        announce(open_store(), AnnouncedVersion(type=Deposit.type, version=1))
        newer = LaneUnderTest(open_store(), "newer")
        newer.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
        assert codes(newer.outcomes(delivery(10, Fragile(id=1, amount=1)))) == ["handler_error"]
        deposit, unbelieved = Deposit(id=1, amount=5), UnbelievedAccount(subject="amqp:x")
        strangers = delivery(11, deposit, origin="public", is_strangers=True, actor=unbelieved)
        for each in (strangers, delivery(12, deposit, origin="public", actor=Principal(subject="amqp:y"))):
            assert newer.outcomes(each) == []
        parked = sorted(newer.rows(ParkedCommand), key=lambda row: row.position)
        assert [(row.command_id, row.sender) for row in parked] == [
            (command_id(10), None),
            (command_id(11), "stranger unbelieved"),
            (command_id(12), None),
        ]
        came = [message_of(row) for row in parked[1:]]
        assert [(each.is_strangers, each.actor) for each in came] == [
            (True, UnbelievedAccount(subject="amqp:x")),
            (False, Principal(subject="amqp:y")),
        ]
        older = LaneUnderTest(open_store(), "older", WITHOUT_DEPOSITS)
        released = older.settle(delivery(20, Release(ordering_key="accounts.id=1", command_id=command_id(10))))
        assert [outcome.command_id for outcome in released.outcomes] == [command_id(20), command_id(11)]
        assert codes(released.outcomes) == ["applied", "unknown_command_type"]
        # Now it is the one that failed, and keeps the other waiting.
        kept = {row.command_id: (row.error_code, row.sender) for row in older.rows(ParkedCommand)}
        assert kept == {command_id(11): ("unknown_command_type", "stranger unbelieved"), command_id(12): (None, None)}

    def test_an_announcement_is_noticed_by_a_lane_that_runs(self, open_store: OpenStore) -> None:
        announce(open_store())
        lane = LaneUnderTest(open_store(), service=OLDER)
        first = delivery(9, Remark(id=1, note="early"))
        assert codes(lane.outcomes(first)) == ["unknown_command_type"]
        announce(open_store(), ANNOUNCED)
        lane.channel_number += 1
        assert codes(lane.outcomes(first)) == ["unknown_command_type"], "it is settled"
        assert waiting(lane, remarks()).is_unfit
