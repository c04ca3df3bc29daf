"""What a lane promises of dead letters and of its outbox, on every store. Each store's tests inherit this class."""

import itertools

import msgspec
import pytest
from structlog.testing import capture_logs

from coordinator.lane.control import DeadEffect, DiscardLetter, ReplayLetter, WithdrawEmitted
from coordinator.lane.delivery import Delivery, OldLetter
from coordinator.lane.outbox import message_of
from coordinator.protocol.decoding import decode
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Defect, Envelope
from coordinator.runtime.settings import LaneSettings
from coordinator.service.ids import replay_command_id
from coordinator.service.options import Options, Origin
from coordinator.service.principal import NO_SCOPES, Principal, of_broker_user
from coordinator.stores.lane_tables import DeadLetter, OutboxEntry, Series
from coordinator.worker.observed import Observed
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import Deposit, Forward, Fragile, OpenAccount, Remark, Tamper
from tests.support.store_contract import OpenStore


def pack(*elements: bytes) -> Delivery:
    body = b"[" + b",".join(elements) + b"]"
    return Delivery(tag=1, commands=decode(Envelope(content_type=PACK_CONTENT), body), reply_to="q")


FAILING = b'{"id":1,"amount":"three"}'


def old(number: int | None, target: str = "ledger", arguments: bytes = FAILING) -> Delivery:
    """What looks like a letter that an older release published."""
    message = CommandMessage(
        command_id=None if number is None else command_id(number), type=Deposit.type, arguments=arguments
    )
    letter = OldLetter(target=target, code="handler_error", reason="long ago", traceback="Traceback", sequence=7)
    return Delivery(tag=1, commands=(message,), letter=letter)


class LetterContract:
    @pytest.fixture
    def lane(self, open_store: OpenStore) -> LaneUnderTest:
        return LaneUnderTest(open_store())

    def test_a_dead_letter_has_all_that_is_known(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"))
        failing = Tamper(id=1, how="crash")
        lane.settle(delivery(1, failing, deadline_ms=2**50, traceparent="00-x", origin="public"))
        (letter,) = lane.rows(DeadLetter)
        assert (letter.command_id, letter.type, letter.origin) == (command_id(1), Tamper.type, "public")
        assert (letter.target, letter.code, letter.sequence, letter.copies) == ("ledger", "handler_error", 2, 1)
        assert letter.arguments == msgspec.json.encode(failing)
        assert letter.size_bytes == len(letter.arguments)
        assert "boom" in letter.reason
        assert "Traceback" in (letter.traceback or "")
        assert Options.decode(letter.options) == Options(origin="public", deadline_ms=2**50, traceparent="00-x")
        assert letter.dead_at == lane.now

    def test_messages_without_an_id_that_are_alike_are_one_letter(self, lane: LaneUnderTest) -> None:
        settlement = lane.settle(pack(*[b"{}"] * 700, b"[]", b'{"type":"ledger.open","args":{}}'))
        assert len(settlement.outcomes) == 702
        lane.settle(pack(*[b"{}"] * 300))
        assert sorted(row.copies for row in lane.rows(DeadLetter)) == [1, 1, 1000]

    def test_of_those_without_an_id_there_are_so_many_at_most(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LANE_NAMELESS_DEAD_MAX", "3")
        assert LaneSettings().nameless_dead_max == 3
        lane = LaneUnderTest(open_store())
        settlement = lane.settle(pack(*(b'{"type":"t%d"}' % number for number in range(5)), b'{"type":"t0"}'))
        assert [len(lane.rows(DeadLetter)), settlement.dropped, len(settlement.outcomes)] == [3, 2, 6]
        # With a successor the number is still known, and room is made by an operator.
        successor = LaneUnderTest(open_store())
        assert successor.settle(pack(b'{"type":"t9"}')).dropped == 1
        successor.do(DiscardLetter(letter=successor.rows(DeadLetter)[0].id))
        assert successor.settle(pack(b'{"type":"t9"}')).dropped == 0
        assert [row.value for row in successor.rows(Series) if row.name == "dead_letters.nameless"] == [3]

    def test_beyond_so_many_bytes_letters_of_strangers_have_no_arguments(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With ids of their own choice they would fill the database; the outcome, the log and the letter stay."""
        monkeypatch.setenv("LANE_SENDERS_DEAD_BYTES_MAX", "250")
        assert LaneSettings().senders_dead_bytes_max == 250
        lane = LaneUnderTest(open_store())

        def wrong(number: int, actor: Principal | None = None, origin: Origin = "public") -> Delivery:
            body = b'{"x":"%s"}' % (b"x" * 92)
            return delivery(number, body, command_type=Deposit.type, origin=origin, actor=actor)

        def kept(of: LaneUnderTest) -> list[int]:
            return [len(row.arguments) for row in of.rows(DeadLetter)]

        def counted(of: LaneUnderTest) -> list[int]:
            return [row.value for row in of.rows(Series) if row.name == "dead_letters.senders.bytes"]

        publisher, ada = of_broker_user("public", NO_SCOPES), Principal(subject="ada")
        settlements = [lane.settle(wrong(number, publisher)) for number in (1, 2, 3)]
        outcomes = [each for settlement in settlements for each in settlement.outcomes]
        assert [(each.status, each.sequence) for each in outcomes] == [("failed", number) for number in (1, 2, 3)]
        assert (kept(lane), counted(lane)) == ([100, 100, 0], [200])
        emptied = lane.rows(DeadLetter)[2]
        assert (emptied.size_bytes, emptied.sequence) == (100, 3)
        assert "LANE_SENDERS_DEAD_BYTES_MAX" in emptied.reason
        with capture_logs() as logs:
            for settlement in settlements:
                Observed("ledger", ()).settled(settlement, 0, 3)
        assert [line["letters"] for line in logs if line["event"] == "dead_letters_emptied"] == [1]
        assert codes(lane.do(ReplayLetter(letter=emptied.id))) == ["not_replayable"]
        # For whom a gateway answers, and the system, has all; so has what fails by a fault of ours.
        successor = LaneUnderTest(open_store())
        successor.do(OpenAccount(owner="a"))
        successor.settle(wrong(11, ada), wrong(12, origin="system"), wrong(13))
        successor.settle(delivery(14, Tamper(id=1, how="crash"), origin="public", actor=publisher))
        assert kept(successor)[3:] == [100, 100, 0, len(msgspec.json.encode(Tamper(id=1, how="crash")))]
        assert counted(successor) == [300]
        # What it says of itself is short then: a reason quotes what came, and the state of a trace is the sender's own.
        body, trace = b'{"%s":1}' % (b"y" * 1900), f"00-{'1' * 32}-{'a' * 16}-01"
        named = delivery(16, body, command_type=Deposit.type, origin="public", traceparent=trace, tracestate="t=ttt")
        successor.settle(named)
        letter = successor.rows(DeadLetter)[-1]
        assert (len(letter.reason) < 300, "LANE_SENDERS_DEAD_BYTES_MAX" in letter.reason) == (True, True)
        assert "ttt" not in (letter.options or "")
        # Room is made by an operator.
        for row in successor.rows(DeadLetter)[:2]:
            successor.do(DiscardLetter(letter=row.id))
        successor.settle(wrong(15))
        assert (kept(successor)[-1], counted(successor)) == (100, [200])

    def test_strangers_letters_take_no_room_of_the_system_s(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LANE_NAMELESS_DEAD_MAX", "3")
        lane = LaneUnderTest(open_store())
        lane.settle(pack(b"0", b"1", b"2", b"3"))
        ours = CommandMessage(
            command_id=None, type="t", arguments=b"", origin="system", defect=Defect("malformed_properties", "x")
        )
        assert lane.settle(Delivery(tag=1, commands=(ours,))).dropped == 0
        effects = [
            DeadEffect(command_id=None, effect_type=None, body=f"{number}", code="c", reason="r") for number in range(3)
        ]
        assert codes(lane.do(*effects)) == ["applied", "applied", "too_many_letters"]
        assert lane.settle(old(None)).dropped == 1, "what is dropped is counted, whoever says it"

    def test_numbers_of_a_broker_s_library_are_numbers(self, lane: LaneUnderTest) -> None:
        """pika has a class of its own for those beyond 32 bits, as every deadline is."""

        class Long(int):
            pass

        headers = {"deadline": Long(2**50), "expected-version": Long(7), "publisher": "p", "publisher-seq": Long(1)}
        messages = decode(Envelope(message_id=command_id(1), type="nonsense", headers=headers), b"{}")
        settlement = lane.settle(Delivery(tag=1, commands=messages, reply_to="q"), delivery(2, OpenAccount(owner="a")))
        assert codes(settlement.outcomes)[1] == "applied"
        (letter,) = lane.rows(DeadLetter)
        assert Options.decode(letter.options).deadline_ms == 2**50

    def test_a_letter_is_replayed_once_under_an_id_of_its_own(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
        lane.settle(delivery(10, Fragile(id=1, amount=5), expected_version=2))
        (letter,) = lane.rows(DeadLetter)
        order = delivery(11, ReplayLetter(letter=letter.id, by="ada@desk"))
        emitted = [*lane.settle(order).emitted, *lane.settle(order).emitted]
        assert [entry.command_id for entry in emitted] == [replay_command_id(command_id(10))]
        message = message_of(emitted[0])
        assert (message.type, message.expected_version, message.arguments) == (Fragile.type, 2, letter.arguments)
        assert Options.decode(emitted[0].options).replayed
        assert lane.rows(DeadLetter) == []
        assert codes(lane.do(ReplayLetter(letter=letter.id))) == ["letter_not_found"]
        entry = next(entry for entry in lane.log() if entry.command_id == command_id(11))
        assert msgspec.json.decode(entry.result or "")["by"] == "ada@desk"
        # It fails again, and is another letter.
        successor = LaneUnderTest(open_store())
        successor.settle(Delivery(tag=1, commands=(message,)))
        assert [row.command_id for row in successor.rows(DeadLetter)] == [message.command_id]

    def test_a_letter_may_be_edited_but_not_into_what_would_fail_again(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"))
        lane.settle(delivery(1, b'{"id":1,"amount":"five"}', command_type=Deposit.type))
        (letter,) = lane.rows(DeadLetter)
        assert codes(lane.do(ReplayLetter(letter=letter.id))) == ["not_replayable"]
        bad = msgspec.Raw(b'{"id":1,"amount":"six"}')
        assert codes(lane.do(ReplayLetter(letter=letter.id, args=bad))) == ["not_replayable"]
        good = ReplayLetter(letter=letter.id, args=msgspec.Raw(b'{"id":1,"amount":5}'))
        (entry,) = lane.settle(delivery(2, good)).emitted
        assert codes(lane.settle(Delivery(tag=1, commands=(message_of(entry),))).outcomes) == ["applied"]

    def test_a_letter_whose_deadline_is_over_is_replayed_without_it_only(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"))
        deadline_ms = int(lane.now.timestamp() * 1000)
        lane.settle(delivery(1, Tamper(id=1, how="crash"), deadline_ms=deadline_ms))
        (letter,) = lane.rows(DeadLetter)
        lane.now = lane.now.replace(year=lane.now.year + 1)
        assert codes(lane.do(ReplayLetter(letter=letter.id))) == ["deadline_over"]
        (entry,) = lane.settle(delivery(2, ReplayLetter(letter=letter.id, without_deadline=True))).emitted
        assert message_of(entry).deadline_ms is None

    def test_letters_of_an_older_release_are_taken_in_once(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"))
        # That release wrote the log, and no row of the letter.
        lane.settle(delivery(1, FAILING, command_type=Deposit.type))
        lane.do(DiscardLetter(letter=1))
        settlement = lane.settle(old(1), old(1), old(None), old(1, target="effects.ledger"))
        assert (settlement.outcomes, settlement.tags) == ([], [1, 1, 1, 1])
        successor = LaneUnderTest(open_store())
        successor.settle(old(1), old(1, target="effects.ledger"))
        rows = {row.source: row for row in successor.rows(DeadLetter)}
        assert sorted(row.target for row in rows.values()) == ["effects.ledger", "ledger", "ledger"]
        letter = rows[command_id(1)]
        assert (letter.code, letter.reason, letter.traceback, letter.sequence, letter.origin) == (
            "handler_error", "long ago", "Traceback", 7, "public",
        )  # fmt: skip
        replay = ReplayLetter(letter=letter.id, args=msgspec.Raw(b'{"id":1,"amount":3}'))
        (entry,) = successor.settle(delivery(2, replay)).emitted
        assert entry.command_id == replay_command_id(command_id(1))
        assert successor.do(OpenAccount(owner="b"))[0].sequence == 5, "a letter takes no place in the order"

    def test_a_letter_that_the_log_does_not_bear_out_takes_nobody_s_place(self, lane: LaneUnderTest) -> None:
        """Anybody may have written it. What fails in truth has its own letter all the same."""
        lane.do(OpenAccount(owner="a"))
        lane.settle(delivery(1, Deposit(id=1, amount=3)))
        lane.settle(old(1), old(2), old(2, arguments=b'{"id":1,"amount":999}'))
        assert [row.command_id for row in lane.rows(DeadLetter)] == [None, None]
        assert sum(row.copies for row in lane.rows(DeadLetter)) == 3
        lane.settle(delivery(2, FAILING, command_type=Deposit.type))
        lane.settle(old(2, arguments=b'{"id":1,"amount":999}'))
        named = [row for row in lane.rows(DeadLetter) if row.command_id is not None]
        assert [(row.command_id, row.code, row.arguments) for row in named] == [
            (command_id(2), "invalid_arguments", FAILING)
        ]

    def test_a_command_of_which_somebody_was_told_is_replayed_alone_or_not_at_all(self, lane: LaneUnderTest) -> None:
        told = lane.settle(delivery(1, FAILING, command_type=Deposit.type, continuation="journal.note")).emitted
        assert [entry.lane for entry in told] == ["journal"]
        (letter,) = lane.rows(DeadLetter)
        good = ReplayLetter(letter=letter.id, args=msgspec.Raw(b'{"id":1,"amount":5}'))
        assert codes(lane.do(good)) == ["already_told"]
        assert lane.rows(DeadLetter) == [letter]
        (entry,) = lane.settle(delivery(2, msgspec.structs.replace(good, alone=True))).emitted
        assert (entry.lane, entry.type, entry.continuation) == ("ledger", Deposit.type, None)
        assert lane.rows(DeadLetter) == []

    def test_an_effect_s_letter_is_replayed_under_its_own_key(self, lane: LaneUnderTest) -> None:
        dead = DeadEffect(command_id=command_id(1), effect_type="ledger.effects.x", body="{}", code="c", reason="r")
        lane.do(dead, dead)
        (letter,) = lane.rows(DeadLetter)
        assert (letter.target, letter.copies) == ("effects.ledger", 2)
        (entry,) = lane.settle(delivery(2, ReplayLetter(letter=letter.id))).emitted
        assert (entry.lane, entry.command_id, entry.type) == ("effects.ledger", command_id(1), "ledger.effects.x")
        assert Options.decode(entry.options).replayed
        lane.do(dead)
        assert len(lane.rows(DeadLetter)) == 1

    def test_an_effect_of_which_only_the_beginning_is_known_is_not_replayed_as_it_is(self, lane: LaneUnderTest) -> None:
        lane.do(
            DeadEffect(
                command_id=command_id(1), effect_type="x.y", body='{"text": "x', size_bytes=90_000, code="c", reason="r"
            )
        )
        (letter,) = lane.rows(DeadLetter)
        assert letter.size_bytes == 90_000
        assert codes(lane.do(ReplayLetter(letter=letter.id))) == ["not_replayable"]

    @pytest.mark.parametrize(
        "header",
        [
            {"expected-version": "v3"},
            {"deadline": "2020-01-01"},
            {"publisher-seq": 2**60},
            {"publisher": " "},
        ],
    )
    @pytest.mark.parametrize("is_named", [True, False])
    def test_what_came_with_a_condition_that_cannot_be_read_is_not_replayed_without_it(
        self, lane: LaneUnderTest, header: dict[str, object], is_named: bool
    ) -> None:
        name = command_id(1) if is_named else None
        envelope = Envelope(message_id=name, type=OpenAccount.type, headers=header)
        settlement = lane.settle(Delivery(tag=1, commands=decode(envelope, b'{"owner":"a"}'), reply_to="q"))
        assert codes(settlement.outcomes) == ["invalid_header"]
        (letter,) = lane.rows(DeadLetter)
        args = msgspec.Raw(b'{"owner":"b"}')
        for order in (ReplayLetter(letter=letter.id, without_deadline=True), ReplayLetter(letter=letter.id, args=args)):
            assert codes(lane.do(order)) == ["not_replayable"]
        assert codes(lane.do(DiscardLetter(letter=letter.id))) == ["applied"]

    def test_what_was_in_a_pack_that_was_not_read_is_not_replayed(self, lane: LaneUnderTest) -> None:
        element = b'{"id":"%s","type":"ledger.open","args":{"owner":"a"},"deadline":1}' % command_id(1).encode()
        body = b"[" + b",".join([element] * 3) + b"]"
        commands = decode(Envelope(content_type=PACK_CONTENT), body, commands_max=2)
        lane.settle(Delivery(tag=1, commands=commands, reply_to="q"))
        (letter,) = lane.rows(DeadLetter)
        args = msgspec.Raw(b'{"owner":"b"}')
        assert codes(lane.do(ReplayLetter(letter=letter.id, args=args, without_deadline=True))) == ["not_replayable"]

    def test_a_letter_that_is_too_large_keeps_its_beginning(self, lane: LaneUnderTest) -> None:
        body = b'{"owner":"' + b"x" * (2 << 20) + b'"}'
        envelope = Envelope(message_id=command_id(1), type=OpenAccount.type)
        settlement = lane.settle(Delivery(tag=1, commands=decode(envelope, body), reply_to="q"))
        assert codes(settlement.outcomes) == ["message_too_large"]
        (letter,) = lane.rows(DeadLetter)
        assert (len(letter.arguments), letter.size_bytes) == (1 << 20, len(body))
        assert codes(lane.do(ReplayLetter(letter=letter.id))) == ["not_replayable"]

    def test_a_target_that_takes_nothing_holds_up_no_other(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LANE_OUTBOX_MAX", "4")
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"))
        handed: list[OutboxEntry] = []
        for number in range(12):
            stuck = delivery(100 + number, Deposit(id=1, amount=1), continuation="journal.note")
            handed += lane.settle(stuck).emitted
        assert {entry.lane for entry in handed} == {"journal"}
        assert len(handed) <= 5
        for number in range(3):
            (entry,) = lane.settle(delivery(200 + number, Forward(id=1, amount=1))).emitted
            assert entry.lane == "ledger"
        # Nor for a successor, which reads them all from the table.
        successor = LaneUnderTest(open_store())
        found = [entry for _ in range(4) for entry in successor.settle(delivery(1, Deposit(id=1, amount=1))).emitted]
        assert sum(entry.lane == "ledger" for entry in found) == 3
        # And the stuck ones go on, in order, as they are confirmed.
        order = [entry.id for entry in found if entry.lane == "journal"]
        for number in itertools.count(300):
            waiting = [entry for entry in successor.rows(OutboxEntry) if entry.lane == "journal"]
            if not waiting:
                break
            assert number < 330
            successor.lane.confirm([entry for entry in waiting if entry.id in order])
            emitted = successor.settle(delivery(number, Deposit(id=1, amount=1))).emitted
            order += [entry.id for entry in emitted if entry.lane == "journal"]
        assert order == sorted(order)
        assert len(order) == 12

    def test_emitted_commands_can_be_withdrawn(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"))
        emitted = lane.settle(
            *(delivery(number, Deposit(id=1, amount=1), continuation="journal.note") for number in (1, 2, 3))
        ).emitted
        order = WithdrawEmitted(entries=[emitted[0].id, emitted[2].id, 99])
        settlement = lane.settle(delivery(4, order))
        assert settlement.withdrawn == [emitted[0].id, emitted[2].id]
        assert lane.rows(OutboxEntry) == [emitted[1]]
        told = msgspec.json.decode(settlement.outcomes[0].result)["command_ids"]
        assert told == [emitted[0].command_id, emitted[2].command_id]
