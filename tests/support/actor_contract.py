"""What a lane promises of who asks, on every store: it goes with the command, wherever that goes. Each store's tests
inherit this class."""

from datetime import timedelta

import msgspec
import pytest
from msgspec import Struct

from coordinator.lane.control import DeadEffect, ReplayLetter
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.outbox import message_of
from coordinator.protocol.decoding import decode
from coordinator.protocol.wire import Envelope
from coordinator.service.commands import Command
from coordinator.service.options import Options
from coordinator.service.principal import Principal
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.lane_tables import DeadLetter, OutboxEntry, ParkedCommand, Timer
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, Deposit, Fragile, Note, OpenAccount, Postpone, Remark, Resume, Tamper
from tests.support.store_contract import OpenStore

ADA = Principal(subject='ada "the first" \u00e9', tenant="acme", scopes=frozenset({"write", "a", "b"}))
BOB = Principal(subject="bob")
ADA_S = '{"subject":"ada \\"the first\\" \u00e9","tenant":"acme"}'


class WhoAsks(Command, type="ledger.who_asks"):
    """Says who asks, and has the same asked again: at once, and later with a limit for the answer."""


class Asked(Struct, frozen=True):
    by: str | None
    scopes: list[str] = []


def who_asks(work: UnitOfWork, command: WhoAsks) -> Asked:
    del command
    work.emit(Deposit(id=1, amount=1))
    work.emit(Deposit(id=1, amount=2), after=timedelta(hours=1), limit=timedelta(hours=1), continuation=Note)
    actor = work.actor
    return Asked(None if actor is None else actor.subject, [] if actor is None else sorted(actor.scopes))


ASKED = LEDGER.replace(handlers=[*LEDGER.handlers, Handler(WhoAsks, who_asks)])


class ActorContract:
    @pytest.fixture
    def asked(self, open_store: OpenStore) -> LaneUnderTest:
        lane = LaneUnderTest(open_store(), service=ASKED)
        lane.do(OpenAccount(owner="a"))
        return lane

    def test_the_log_has_who_asked_first(self, asked: LaneUnderTest) -> None:
        asked.settle(
            delivery(1, Deposit(id=1, amount=1), actor=ADA),
            delivery(2, Deposit(id=1, amount=1)),
            delivery(3, Deposit(id=9, amount=1), actor=BOB),
        )
        again = asked.outcomes(delivery(1, Deposit(id=1, amount=1), actor=ADA, origin="public"))
        assert [outcome.replayed for outcome in again] == [True]
        entries = [entry for entry in asked.log() if entry.type == Deposit.type]
        assert [entry.actor for entry in entries] == [ADA_S, None, '{"subject":"bob"}']
        assert entries[2].status == "rejected"

    @pytest.mark.parametrize("other", [BOB, None, msgspec.structs.replace(ADA, tenant="other")])
    def test_the_outcome_of_ones_command_is_told_to_nobody_else(
        self, asked: LaneUnderTest, other: Principal | None
    ) -> None:
        """Though he knows its id and its arguments."""
        first, again = Deposit(id=1, amount=1), msgspec.structs.replace(ADA, scopes=frozenset())
        asked.settle(delivery(1, first, actor=ADA, origin="public"), delivery(2, first, origin="public"))
        told = asked.outcomes(
            delivery(1, first, actor=other, origin="public"),
            delivery(1, first, actor=again, origin="public"),
            delivery(1, first, actor=other),
            delivery(2, first, actor=other, origin="public"),
        )
        assert codes(told) == ["idempotency_mismatch", "applied", "applied", "applied"]
        assert [bytes(outcome.result) != b"null" for outcome in told] == [False, True, True, True]
        # Also of one that came at the same time.
        both = asked.outcomes(
            delivery(3, first, actor=ADA, origin="public"), delivery(3, first, actor=other, origin="public")
        )
        assert codes(both) == ["applied", "idempotency_mismatch"]

    def test_what_a_command_leads_to_has_its_actor(self, asked: LaneUnderTest) -> None:
        settlement = asked.settle(
            delivery(1, WhoAsks(), actor=ADA),
            delivery(2, WhoAsks()),
            delivery(3, WhoAsks(), actor=BOB, continuation="journal.note", origin="public"),
        )
        assert [bytes(outcome.result) for outcome in settlement.outcomes] == [
            msgspec.json.encode(Asked(ADA.subject, ["a", "b", "write"])),
            msgspec.json.encode(Asked(None)),
            msgspec.json.encode(Asked("bob")),
        ]
        assert [message_of(entry).actor for entry in settlement.emitted] == [ADA, None, BOB, BOB]
        assert [message_of(entry).origin for entry in settlement.emitted][-1] == "public"
        # The same text each time, though scopes have no order.
        assert asked.rows(OutboxEntry)[0].options == Options(actor=ADA).encode()
        assert '"scopes":["a","b","write"]' in Options(actor=ADA).encode()
        assert [Options.decode(timer.options).actor for timer in asked.rows(Timer)] == [ADA, None, BOB, ADA, None, BOB]
        asked.now += timedelta(days=1)
        fired = asked.lane.sweep(asked.channel_number)
        assert isinstance(fired, Settlement), fired
        assert [message_of(entry).actor for entry in fired.emitted] == [ADA, None, BOB, ADA, None, BOB]

    def test_what_is_refused_unread_continues_for_its_own_actor(self, asked: LaneUnderTest) -> None:
        """Not for that of the command before it."""
        settlement = asked.settle(
            delivery(1, Deposit(id=1, amount=1), actor=ADA),
            delivery(2, b"{}", command_type=Deposit.type, actor=BOB, continuation="journal.note"),
            delivery(3, Deposit(id=1, amount=1), deadline_ms=1, continuation="journal.note"),
        )
        assert [outcome.status for outcome in settlement.outcomes] == ["applied", "failed", "expired"]
        assert [message_of(entry).actor for entry in settlement.emitted] == [BOB, None]

    def test_what_was_put_off_goes_on_for_who_resumes_it(self, asked: LaneUnderTest) -> None:
        asked.settle(delivery(1, Postpone(id=1), actor=ADA, continuation="journal.note"))
        (entry,) = asked.settle(delivery(2, Resume(id=1), actor=BOB)).emitted
        assert message_of(entry).actor == BOB

    def test_the_actor_survives_parking_a_dead_letter_and_its_replay(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
        lane.settle(delivery(10, Fragile(id=1, amount=1), actor=ADA))
        lane.settle(
            delivery(11, Deposit(id=1, amount=1), actor=BOB, continuation="journal.note"),
            delivery(12, Deposit(id=1, amount=1), continuation="journal.note"),
        )
        assert len(lane.rows(ParkedCommand)) == 3
        successor = LaneUnderTest(open_store())
        (letter,) = successor.rows(DeadLetter)
        assert Options.decode(letter.options).actor == ADA
        successor.do(Remark(id=1, note="mended"))
        # Whoever has it sent again does not ask for it.
        replayed = successor.settle(delivery(20, ReplayLetter(letter=letter.id), actor=BOB)).emitted
        assert [message_of(entry).actor for entry in replayed] == [ADA]
        released = successor.settle(*(Delivery(tag=3, commands=(message_of(entry),)) for entry in replayed)).emitted
        assert [message_of(entry).actor for entry in released] == [BOB, None]
        last = [entry.actor for entry in successor.log()[-3:]]
        assert last == [ADA_S, '{"subject":"bob"}', None]

    def test_the_letter_of_an_effect_has_its_actor(self, asked: LaneUnderTest) -> None:
        dead = DeadEffect(command_id=command_id(7), effect_type="t.t", body="{}", code="c", reason="r")
        asked.settle(delivery(1, dead, actor=ADA))
        (letter,) = asked.rows(DeadLetter)
        assert Options.decode(letter.options).actor == ADA
        replay = asked.settle(delivery(2, ReplayLetter(letter=letter.id)))
        assert [message_of(entry).actor for entry in replay.emitted] == [ADA]

    def test_messages_without_an_id_are_one_letter_only_if_one_asks(self, asked: LaneUnderTest) -> None:
        headers: tuple[dict[str, str], ...] = (
            {},
            {"actor": '{"subject":"ada"}'},
            {"actor": '{"subject":"bob"}'},
            {"actor": '{"subject":"bob"}'},
        )
        for tag, each in enumerate(headers):
            envelope = Envelope(type=Deposit.type, headers=each, user_id="gateway", is_gateway=True)
            asked.settle(Delivery(tag=tag, commands=decode(envelope, b"{}")))
        assert [letter.copies for letter in asked.rows(DeadLetter)] == [1, 1, 2]

    def test_a_defect_of_a_handler_s_keeps_the_actor(self, asked: LaneUnderTest) -> None:
        assert codes(asked.outcomes(delivery(1, Tamper(id=1, how="crash"), actor=ADA))) == ["handler_error"]
        assert asked.log()[-1].actor == ADA_S
