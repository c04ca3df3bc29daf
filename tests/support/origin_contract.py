"""What a lane promises of strangers, on every store: none can say what only the system may. Each store's tests inherit
this class."""

from typing import Any

import msgspec
import pytest

from coordinator.lane.control import Marker, Release, ReplayLetter
from coordinator.lane.delivery import Delivery
from coordinator.lane.outbox import message_of
from coordinator.protocol.decoding import decode
from coordinator.protocol.wire import PACK_CONTENT, Envelope
from coordinator.service.ids import derived_command_id, is_system_id
from coordinator.service.principal import Principal, UnbelievedAccount
from coordinator.stores.lane_tables import DeadLetter, ParkedCommand
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import Account, Deposit, Forward, Fragile, Note, OpenAccount, Postpone, Remark, Resume
from tests.support.store_contract import OpenStore

NOTE = b'{"command_id":"x","command_type":"t","status":"applied"}'


def through(envelope: Envelope, body: bytes) -> Delivery:
    """A message as a lane receives it."""
    return Delivery(tag=1, commands=decode(envelope, body), reply_to="q")


class OriginContract:
    @pytest.fixture
    def lane(self, open_store: OpenStore) -> LaneUnderTest:
        return LaneUnderTest(open_store())

    @pytest.mark.parametrize("command_type", [Note.type, Marker.type, Release.type, "lane.dead_effect"])
    def test_a_stranger_s_internal_and_operators_commands_fail(self, lane: LaneUnderTest, command_type: str) -> None:
        forged = through(Envelope(message_id=command_id(1), type=command_type), NOTE)
        settlement = lane.settle(forged)
        assert codes(settlement.outcomes) == ["forbidden_command_type"]
        assert [(row.origin, row.type) for row in lane.rows(DeadLetter)] == [("public", command_type)]
        assert lane.rows(Account) == []
        assert codes(lane.outcomes(delivery(2, OpenAccount(owner="a"), origin="public"))) == ["applied"]

    @pytest.mark.parametrize("headers", [{}, {"origin": "system"}])
    def test_ids_that_the_system_derives_are_not_a_stranger_s_to_use(
        self, lane: LaneUnderTest, headers: dict[str, Any]
    ) -> None:
        lane.do(OpenAccount(owner="a"))
        parent = delivery(1, Forward(id=1, amount=5))
        said = f"{Deposit.type}\n".encode() + msgspec.json.encode(Deposit(id=1, amount=5))
        taken = derived_command_id(f"{Forward.type} {command_id(1)}", 0, said, lane.first_secret())
        assert is_system_id(taken)
        body = b'{"id":1,"amount":100}'
        element = b'[{"id":"%s","type":"ledger.deposit","args":%s,"origin":"system"}]' % (taken.encode(), body)
        settlement = lane.settle(
            through(Envelope(message_id=taken, type=Deposit.type, headers=headers), body),
            through(Envelope(message_id=taken.upper(), type=Deposit.type, headers=headers), body),
            through(Envelope(content_type=PACK_CONTENT, headers=headers), element),
            parent,
        )
        assert codes(settlement.outcomes) == [*["reserved_command_id"] * 3, "applied"]
        (entry,) = settlement.emitted
        assert entry.command_id == taken
        brought = Delivery(tag=2, commands=(message_of(entry),))
        assert codes(lane.settle(brought).outcomes) == ["applied"]
        assert [row.balance for row in lane.rows(Account)] == [5]

    def test_a_stranger_s_continuation_is_a_type_that_he_may_send(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"))
        forged = delivery(1, Deposit(id=1, amount=5), origin="public", continuation=Note.type)
        elsewhere = delivery(2, Deposit(id=1, amount=5), origin="public", continuation="journal.note")
        settlement = lane.settle(forged, elsewhere)
        assert codes(settlement.outcomes) == ["forbidden_command_type", "applied"]
        # That lane knows whether strangers may send it: it is told who says it.
        (entry,) = settlement.emitted
        assert (entry.lane, message_of(entry).origin) == ("journal", "public")

    def test_what_is_put_off_goes_on_as_whoever_named_it_may(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"))
        lane.settle(delivery(1, Postpone(id=1), origin="public", continuation="journal.note"))
        (entry,) = lane.settle(delivery(2, Resume(id=1))).emitted
        assert (message_of(entry).origin, message_of(entry).is_strangers) == ("public", True)
        lane.settle(delivery(3, Postpone(id=1), continuation="journal.note"))
        (ours,) = lane.settle(delivery(4, Resume(id=1))).emitted
        assert (message_of(ours).origin, message_of(ours).is_strangers) == ("system", False)

    def test_a_continuation_keeps_what_the_lane_knew_of_its_sender(self, lane: LaneUnderTest) -> None:
        """It comes through `writes.system`: no lane would take it for what it is."""
        lane.do(OpenAccount(owner="a"))
        unbelieved, believed = UnbelievedAccount(subject="amqp:x"), Principal(subject="amqp:x")
        senders: list[dict[str, Any]] = [
            {"origin": "public", "actor": unbelieved, "is_strangers": True},
            {"origin": "public", "actor": believed, "is_strangers": True},
            {"origin": "public", "actor": unbelieved},
            {"origin": "public"},
        ]
        settlement = lane.settle(
            *(
                delivery(number, Deposit(id=1, amount=1), continuation="journal.note", **sender)
                for number, sender in enumerate(senders, 1)
            ),
            delivery(9, b"{}", command_type=Deposit.type, continuation="journal.note", **senders[0]),
        )
        came = [message_of(entry) for entry in settlement.emitted]
        assert [(type(each.actor), each.is_strangers) for each in came] == [
            (UnbelievedAccount, True),
            (Principal, True),
            (UnbelievedAccount, False),
            (type(None), False),
            (UnbelievedAccount, True),
        ]

    def test_the_origin_survives_parking_and_its_end(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
        lane.settle(delivery(10, Fragile(id=1, amount=1), origin="public"))
        lane.settle(
            delivery(11, Deposit(id=1, amount=1), origin="public", continuation="journal.note"),
            delivery(12, Deposit(id=1, amount=1), origin="system", continuation="journal.note"),
        )
        assert len(lane.rows(ParkedCommand)) == 3
        successor = LaneUnderTest(open_store())
        (letter,) = successor.rows(DeadLetter)
        successor.do(Remark(id=1, note="mended"))
        replayed = successor.settle(delivery(20, ReplayLetter(letter=letter.id))).emitted
        assert [(message_of(entry).origin, message_of(entry).type) for entry in replayed] == [("public", Fragile.type)]
        released = successor.settle(*(Delivery(tag=3, commands=(message_of(entry),)) for entry in replayed)).emitted
        assert [message_of(entry).origin for entry in released] == ["public", "system"]

    def test_a_letter_of_a_stranger_s_is_replayed_as_a_stranger_s_unless_an_operator_says_otherwise(
        self, lane: LaneUnderTest
    ) -> None:
        lane.settle(through(Envelope(message_id=command_id(1), type=Note.type), NOTE))
        (letter,) = lane.rows(DeadLetter)
        assert codes(lane.do(ReplayLetter(letter=letter.id))) == ["forbidden_command_type"]
        (entry,) = lane.settle(delivery(2, ReplayLetter(letter=letter.id, as_system=True))).emitted
        assert codes(lane.settle(Delivery(tag=1, commands=(message_of(entry),))).outcomes) == ["applied"]
        assert lane.rows(DeadLetter) == []

    def test_a_mismatch_of_the_system_s_own_is_never_silent(self, lane: LaneUnderTest) -> None:
        """A stranger is told; for ours somebody waits, and learns that it failed."""
        lane.do(OpenAccount(owner="a"))
        lane.settle(delivery(1, Deposit(id=1, amount=5)))
        stranger = delivery(1, Deposit(id=1, amount=6), origin="public")
        (outcome,) = lane.outcomes(stranger)
        assert (outcome.status, codes([outcome])) == ("rejected", ["idempotency_mismatch"])
        assert lane.rows(DeadLetter) == []
        ours = delivery(1, Deposit(id=1, amount=7), continuation=Note.type)
        settlements = [lane.settle(ours), lane.settle(ours)]
        assert [outcome.status for each in settlements for outcome in each.outcomes] == ["failed", "failed"]
        (letter,) = lane.rows(DeadLetter)
        assert (letter.command_id, letter.code) == (command_id(1), "idempotency_mismatch")
        emitted = [entry for each in settlements for entry in each.emitted]
        assert [entry.type for entry in emitted] == [Note.type]
        assert codes(lane.settle(Delivery(tag=1, commands=(message_of(emitted[0]),))).outcomes) == ["applied"]
        (replay,) = lane.settle(delivery(2, ReplayLetter(letter=letter.id, alone=True))).emitted
        assert replay.continuation is None, "whoever waited was told"
        assert codes(lane.settle(Delivery(tag=1, commands=(message_of(replay),))).outcomes) == ["applied"]
        assert lane.account(1).balance == 12  # type: ignore[union-attr]

    def test_the_mismatch_s_continuation_is_not_taken_for_that_of_the_command_that_has_the_id(
        self, lane: LaneUnderTest
    ) -> None:
        lane.do(OpenAccount(owner="a"))
        first = lane.settle(delivery(1, Deposit(id=1, amount=5), continuation=Note.type)).emitted
        second = lane.settle(delivery(1, Deposit(id=1, amount=6), continuation=Note.type)).emitted
        assert len({entry.command_id for entry in (*first, *second)}) == 2
