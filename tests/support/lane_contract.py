"""What a lane promises on every store. Each store's tests inherit this class."""

import itertools
import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from coordinator.lane.control import Release
from coordinator.lane.delivery import Delivery, Deposed, Settlement
from coordinator.lane.lane import Lane
from coordinator.protocol.decoding import decode
from coordinator.protocol.fingerprints import Fingerprints
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Envelope
from coordinator.runtime.settings import LaneSettings
from coordinator.service.commands import Command
from coordinator.service.errors import Rejected
from coordinator.service.ids import derived_command_id, is_system_id
from coordinator.service.options import Origin
from coordinator.service.outcome import Outcome, OutcomeError
from coordinator.service.rows import R
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.fingerprint_keys import FingerprintKey, new_fingerprint_key, next_fingerprint_key
from coordinator.stores.lane_tables import (
    Cancellation,
    DeadLetter,
    LogEntry,
    OutboxEntry,
    ParkedCommand,
    PublisherPosition,
    Series,
)
from coordinator.stores.port import Store
from tests.support.ledger import (
    LEDGER,
    Account,
    Close,
    Deposit,
    Forward,
    Fragile,
    Note,
    OpenAccount,
    Remark,
    Rename,
    Tamper,
)
from tests.support.store_contract import NOW, OpenStore, account, changes, commit


def _open_above(work: UnitOfWork, command: OpenAccount) -> Account:
    number = work.next_id(Account)
    if work.find(Account, "owner", command.owner) is not None:
        raise Rejected("owner_taken", f"{command.owner} has an account")
    return work.add(Account(id=number, owner=command.owner, created_at=work.now))


NUMBERED = LEDGER.replace(
    handlers=[
        Handler(OpenAccount, _open_above) if handler.command is OpenAccount else handler for handler in LEDGER.handlers
    ]
)
"""The ledger, but for the ids: they begin above the accounts that are there."""

_tags = itertools.count(1)
_numbers = itertools.count(1_000_000)


def command_id(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012d}"


def delivery(
    number: int | None,
    command: Command | bytes,
    *,
    command_type: str | None = None,
    redelivered: bool = False,
    origin: Origin = "system",
    **options: Any,
) -> Delivery:
    message = CommandMessage(
        command_id=None if number is None else command_id(number),
        type=command_type if command_type is not None else getattr(command, "type", None),
        arguments=command if isinstance(command, bytes) else msgspec.json.encode(command),
        origin=origin,
        **options,
    )
    return Delivery(
        tag=next(_tags),
        commands=(message,),
        redelivered=redelivered,
        reply_to="q",
        correlation_id=str(number),
    )


class LaneUnderTest:
    """A lane on a store, with a clock that the test moves."""

    def __init__(self, store: Store, holder: str = "test", service: Service = LEDGER) -> None:
        self.store = store
        self.now = NOW
        self.elapsed_s = 0.0
        self.channel_number = 0
        self.lane = Lane(service, store, self._clock, holder, LaneSettings(), lambda: self.elapsed_s)

    def _clock(self) -> datetime:
        return self.now

    def settle(self, *deliveries: Delivery) -> Settlement:
        """Everything that the deliveries come to, in however many settlements."""
        return merged(self.settlements(*deliveries))

    def settlements(self, *deliveries: Delivery) -> list[Settlement]:
        """One after the other, as the lane's thread asks for them."""
        found: list[Settlement] = []
        while not found or self.lane.has_batch:
            decision = self.lane.apply(deliveries, self.channel_number)
            assert isinstance(decision, Settlement), decision
            found.append(decision)
        return found

    def outcomes(self, *deliveries: Delivery) -> list[Outcome]:
        return self.settle(*deliveries).outcomes

    def do(self, *commands: Command) -> list[Outcome]:
        return self.outcomes(*(delivery(next(_numbers), command) for command in commands))

    def rows(self, model: type[R]) -> list[R]:
        transaction = self.store.begin()
        rows = transaction.scan(model, 100_000)
        transaction.rollback()
        return rows

    def account(self, key: int) -> Account | None:
        return next((row for row in self.rows(Account) if row.id == key), None)

    def balance(self, key: int) -> int:
        """Of an account that is there."""
        account = self.account(key)
        assert account is not None
        return account.balance

    def first_secret(self) -> bytes:
        """By which the ids are made of what commands emit."""
        return Fingerprints({key.id: key.secret for key in self.rows(FingerprintKey)}).first_secret

    def log(self) -> list[LogEntry]:
        return sorted(self.rows(LogEntry), key=lambda row: row.sequence)


def merged(settlements: Sequence[Settlement]) -> Settlement:
    """Several as one."""
    parts = {name: [getattr(each, name) for each in settlements] for name in Settlement.__struct_fields__}
    return Settlement(**{name: sum(values, type(values[0])()) for name, values in parts.items()})


def codes(outcomes: Iterable[Outcome]) -> list[str]:
    return [outcome.error.code if outcome.error else outcome.status for outcome in outcomes]


class LaneContract:
    @pytest.fixture
    def lane(self, open_store: OpenStore) -> LaneUnderTest:
        return LaneUnderTest(open_store())

    def test_commands_get_one_gapless_sequence_in_their_order(self, lane: LaneUnderTest) -> None:
        first = lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        second = lane.do(OpenAccount(owner="a"), Deposit(id=2, amount=5), OpenAccount(owner="c"))
        assert [outcome.sequence for outcome in first + second] == [1, 2, 3, 4, 5]
        assert codes(second) == ["owner_taken", "applied", "applied"]
        assert [entry.sequence for entry in lane.log()] == [1, 2, 3, 4, 5]
        # The rejected one took number 3 and gave it back.
        assert [(row.id, row.owner) for row in lane.rows(Account)] == [(1, "a"), (2, "b"), (3, "c")]

    def test_every_cancellation_is_known_however_many_there_are(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("coordinator.lane.knowledge.PAGE_ROWS", 2)
        store = open_store()
        rows = [Cancellation(command_id=command_id(n), reason="for operators", requested_at=NOW) for n in range(1, 6)]
        commit(store, store.take_over("before", NOW), changes(inserts=rows))
        lane = LaneUnderTest(store)
        found = lane.outcomes(*(delivery(n, OpenAccount(owner=f"o{n}")) for n in range(1, 7)))
        assert codes(found) == [*["cancelled"] * 5, "applied"]
        assert lane.rows(Cancellation) == []
        # Clients read the outcome, and the log is read by gateways: why it was cancelled is among operators' acts.
        assert "for operators" not in repr([found, lane.log()])

    def test_repetitions_that_nobody_announced_are_found_among_new_commands(self, lane: LaneUnderTest) -> None:
        """The log was not asked for any of them: its database refuses them."""
        lane.do(OpenAccount(owner="a"))
        known = [delivery(1, Deposit(id=1, amount=5)), delivery(2, OpenAccount(owner="a")), delivery(3, Close(id=9))]
        lane.settle(*known)
        for number in (10, 20):
            lane.do(Deposit(id=1, amount=100))
            new = [delivery(number + place, Deposit(id=1, amount=1)) for place in range(3)]
            outcomes = lane.outcomes(new[0], known[0], new[1], known[1], known[2], new[2])
            assert [outcome.replayed for outcome in outcomes] == [False, True, False, True, True, False]
            assert codes(outcomes)[1::2] == ["applied", "owner_taken", "applied"]
        account = lane.account(1)
        assert account is not None
        assert account.balance == 5 + 2 * 103
        assert [entry.sequence for entry in lane.log()] == list(range(1, 13))

    def test_a_repeated_command_returns_the_recorded_outcome(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"))
        again = delivery(1, Deposit(id=1, amount=5))
        first, in_batch = lane.outcomes(again, again)
        (later,) = lane.outcomes(again)
        assert (first.replayed, in_batch.replayed, later.replayed) == (False, True, True)
        assert first.sequence == in_batch.sequence == later.sequence == 2
        assert bytes(first.result) == bytes(in_batch.result) == bytes(later.result)
        assert lane.rows(Account)[0].balance == 5
        assert len(lane.log()) == 2

    def test_the_same_id_with_other_content_is_rejected_and_not_applied(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"))
        outcomes = lane.outcomes(
            delivery(1, Deposit(id=1, amount=5)),
            delivery(1, Deposit(id=1, amount=6)),
            delivery(1, b'{ "amount": 5,  "id": 1 }', command_type="ledger.deposit"),
            delivery(1, Deposit(id=1, amount=5), expected_version=1),
            delivery(1, b"no json", command_type="ledger.deposit"),
        )
        assert codes(outcomes) == [
            "applied",
            "idempotency_mismatch",
            "applied",
            "idempotency_mismatch",
            "idempotency_mismatch",
        ]
        assert outcomes[1].sequence is None
        assert lane.rows(Account)[0].balance == 5

    def test_what_a_rejected_or_crashed_handler_did_is_undone(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"), Deposit(id=1, amount=100))
        settlement = lane.settle(
            delivery(1, Deposit(id=1, amount=1)),
            delivery(2, Tamper(id=1, how="refuse")),
            delivery(3, Deposit(id=1, amount=-1000)),
            delivery(4, Tamper(id=1, how="crash")),
            delivery(5, Tamper(id=1, how="duplicate key")),
            delivery(6, Deposit(id=1, amount=1)),
            delivery(7, OpenAccount(owner="b")),
        )
        assert codes(settlement.outcomes) == [
            "applied",
            "refused",
            "overdrawn",
            "handler_error",
            "handler_error",
            "applied",
            "applied",
        ]
        assert [(row.balance, row.version) for row in lane.rows(Account)] == [(102, 4), (0, 1)]
        assert lane.rows(Account)[1].id == 2
        dead = settlement.dead_letters
        assert [letter.command_id for letter in dead] == [command_id(4), command_id(5)]
        assert "RuntimeError" in dead[0].reason
        assert "in tamper" in (dead[0].traceback or "")
        assert lane.log()[5].status == "failed"

    @pytest.mark.parametrize("batch", [1, 2, 7, 16])
    def test_a_command_that_the_database_refuses_harms_no_neighbour(self, open_store: OpenStore, batch: int) -> None:
        store = open_store()
        lane = LaneUnderTest(store)
        lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        deliveries = [delivery(n, Deposit(id=1 + n % 2, amount=1)) for n in range(1, batch + 1)]
        for position in {0, batch // 2, batch}:
            deliveries.insert(position, delivery(100 + position, Tamper(id=1, how="taken")))
        settlement = lane.settle(*deliveries)
        refused = [outcome for outcome in settlement.outcomes if outcome.status == "failed"]
        assert codes(refused) == ["database_refused"] * len({0, batch // 2, batch})
        assert len(settlement.dead_letters) == len(refused)
        assert sum(row.balance for row in lane.rows(Account)) == batch
        assert [outcome.sequence for outcome in settlement.outcomes] == list(range(3, 3 + len(deliveries)))
        assert [reply.correlation_id for reply in settlement.replies] == [d.correlation_id for d in deliveries]

    @pytest.mark.parametrize("how", ["taken", "crash"])
    def test_texts_of_the_database_and_of_exceptions_are_for_operators(self, lane: LaneUnderTest, how: str) -> None:
        lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        settlement = lane.settle(delivery(1, Tamper(id=1, how=how), continuation=Note.type))
        (outcome,), (letter,) = settlement.outcomes, settlement.dead_letters
        code, shown = {
            "taken": ("database_refused", "the database refused what the command was to change"),
            "crash": ("handler_error", "a defect of this service kept the command from being applied"),
        }[how]
        assert outcome.error == OutcomeError(
            code=code, message=f"{shown}: operators find the reason under its id, {command_id(1)}"
        )
        assert lane.log()[2].error_message == outcome.error.message
        assert [msgspec.json.decode(entry.arguments)["error"]["message"] for entry in settlement.emitted] == [
            outcome.error.message
        ]
        assert ("boom" if how == "crash" else "owner") in letter.reason or letter.reason.startswith("accounts")
        assert letter.command_id == command_id(1)

    @pytest.mark.parametrize("how", ["out of range", "too long"])
    def test_a_row_that_no_database_takes_costs_its_neighbours_nothing(self, open_store: OpenStore, how: str) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"))
        batches = lane.settlements(
            delivery(1, Deposit(id=1, amount=1)),
            delivery(2, Tamper(id=1, how=how)),
            delivery(3, Deposit(id=1, amount=1)),
        )
        assert [codes(each.outcomes) for each in batches] == [["applied", "invalid_row", "applied"]]
        (letter,) = lane.rows(DeadLetter)
        assert letter.reason.startswith(f"InvalidRow: accounts.{'balance' if how == 'out of range' else 'note'}: ")
        assert "accounts" not in (lane.log()[2].error_message or "accounts")
        assert [(row.balance, row.version) for row in lane.rows(Account)] == [(2, 3)]

    def test_commands_wait_for_their_key_behind_one_that_failed(self, open_store: OpenStore) -> None:
        store = open_store()
        lane = LaneUnderTest(store)
        lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"), Remark(id=1, note="broken"))
        failed = lane.settle(delivery(10, Fragile(id=1, amount=1)), delivery(11, Deposit(id=1, amount=2)))
        assert codes(failed.outcomes) == ["handler_error"]
        # The database refuses one of those that wait: it is found among them, and the next ones wait behind it.
        waiting = [Fragile(id=1, amount=0), Deposit(id=1, amount=4), Fragile(id=1, amount=8)]
        assert lane.do(*waiting) == []
        lane.do(Remark(id=1, note=None))
        successor = LaneUnderTest(store, "successor")
        release = Release(ordering_key="accounts.id=1", command_id=command_id(10))
        settlement = successor.settle(delivery(12, release), delivery(13, Deposit(id=2, amount=16)))
        rows = {row.id: row.balance for row in successor.rows(Account)}
        assert codes(settlement.outcomes) == ["applied", "applied", "applied", "database_refused"]
        assert [reply.correlation_id for reply in settlement.replies][:3] == ["12", "13", "11"]
        assert rows == {1: 2, 2: 16}
        assert [row.error_code for row in sorted(successor.rows(ParkedCommand), key=lambda row: row.position)] == [
            None,
            None,
            "database_refused",
        ]

    def test_a_number_of_a_publisher_is_settled_once(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"))

        def numbered(number: int, name: int) -> Delivery:
            return delivery(name, Deposit(id=1, amount=1), publisher="p", publisher_seq=number)

        assert codes(lane.outcomes(numbered(1, 21), numbered(2, 22))) == ["applied", "applied"]
        assert codes(lane.outcomes(numbered(2, 99))) == ["publisher_seq_settled"]
        # 3 to 5 do not come in time: they are taken later, each once.
        lane.outcomes(numbered(6, 26))
        lane.elapsed_s = LaneSettings().gap_timeout_s
        assert codes(lane.outcomes()) == ["applied"]
        assert codes(lane.outcomes(numbered(4, 24), numbered(4, 98), numbered(0, 97))) == [
            "applied",
            "publisher_seq_settled",
            "publisher_seq_settled",
        ]
        assert [row.gaps for row in lane.rows(PublisherPosition)] == ["[[3,3],[5,5]]"]
        assert codes(lane.outcomes(numbered(5, 25), numbered(3, 23))) == ["applied", "applied"]
        assert [row.gaps for row in lane.rows(PublisherPosition)] == ["[]"]
        # A repetition older than the log: its outcome is gone, and it is not applied again.
        successor = LaneUnderTest(lane.store, "successor")
        assert codes(successor.outcomes(numbered(3, 96))) == ["publisher_seq_settled"]
        assert [row.balance for row in lane.rows(Account)] == [6]

    def test_a_number_of_a_publisher_is_settled_once_whatever_its_key_waits_for(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))

        def numbered(number: int, name: int) -> Delivery:
            return delivery(name, Deposit(id=1, amount=1), publisher="p", publisher_seq=number)

        assert codes(lane.outcomes(numbered(1, 21))) == ["applied"]
        assert codes(lane.outcomes(delivery(30, Fragile(id=1, amount=5)))) == ["handler_error"]
        assert codes(lane.outcomes(numbered(1, 99), numbered(2, 22), numbered(2, 98))) == ["publisher_seq_settled"] * 2
        assert codes(lane.outcomes(numbered(2, 97), numbered(2, 22))) == ["publisher_seq_settled"]
        released = lane.outcomes(delivery(40, Release(ordering_key="accounts.id=1", command_id=command_id(30))))
        assert codes(released) == ["applied", "applied"]
        assert codes(lane.outcomes(numbered(2, 96))) == ["publisher_seq_settled"]
        assert [row.balance for row in lane.rows(Account)] == [2]

    def test_malformed_and_unknown_commands_fail_and_are_dead_lettered(self, lane: LaneUnderTest) -> None:
        cases = [
            (delivery(1, b"{}", command_type="ledger.unknown"), "unknown_command_type"),
            (delivery(2, b"{", command_type="ledger.open"), "malformed_json"),
            (delivery(3, b"[]", command_type="ledger.open"), "invalid_arguments"),
            (delivery(4, b'{"owner": 5}', command_type="ledger.open"), "invalid_arguments"),
            (delivery(5, b'{"owner": "x", "x": 1}', command_type="ledger.open"), "invalid_arguments"),
            (delivery(6, b"\xff\xfe", command_type="ledger.open"), "malformed_json"),
            (delivery(7, b'{"owner": ' + b"[" * 100_000, command_type="ledger.open"), "malformed_json"),
            (delivery(8, b'{"id": 1, "amount": 1e400}', command_type="ledger.deposit"), "malformed_json"),
        ]
        settlement = lane.settle(*(case for case, _ in cases))
        for (_, code), outcome in zip(cases, settlement.outcomes, strict=True):
            assert outcome.status == "failed"
            assert outcome.error is not None
            assert outcome.error.code in (code, "invalid_arguments")
        assert [outcome.sequence for outcome in settlement.outcomes] == list(range(1, 9))
        assert len(settlement.dead_letters) == 8
        assert lane.do(OpenAccount(owner="fine"))[0].sequence == 9

    def test_a_message_without_an_id_is_refused_and_takes_no_sequence(self, lane: LaneUnderTest) -> None:
        messages = decode(Envelope(type="ledger.open"), b'{"owner":"x"}')
        messages += decode(Envelope(type="ledger.open", message_id="seven"), b'{"owner":"x"}')
        settlement = lane.settle(Delivery(tag=1, commands=messages), delivery(1, OpenAccount(owner="a")))
        assert codes(settlement.outcomes) == ["missing_command_id", "invalid_command_id", "applied"]
        assert [outcome.sequence for outcome in settlement.outcomes] == [None, None, 1]
        assert [letter.code for letter in settlement.dead_letters] == [
            "missing_command_id",
            "invalid_command_id",
        ]

    def test_a_dead_letter_is_written_once_however_often_its_command_comes(self, lane: LaneUnderTest) -> None:
        failing = b"{}"
        for is_redelivered in (False, False, True):
            lane.settle(delivery(1, failing, command_type="nonsense", redelivered=is_redelivered))
        (letter,) = lane.rows(DeadLetter)
        assert (letter.id, letter.command_id, letter.code, letter.sequence) == (
            1, command_id(1), "unknown_command_type", 1,
        )  # fmt: skip

    def test_a_stale_expected_version_is_a_version_conflict(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"))
        outcomes = lane.outcomes(
            delivery(1, Deposit(id=1, amount=1), expected_version=1),
            delivery(2, Deposit(id=1, amount=1), expected_version=1),
            delivery(3, Deposit(id=1, amount=1), expected_version=2),
            delivery(4, Deposit(id=9, amount=1), expected_version=2),
            delivery(5, OpenAccount(owner="b"), expected_version=1),
        )
        assert codes(outcomes) == [
            "applied",
            "version_conflict",
            "applied",
            "account_not_found",
            "expected_version_unsupported",
        ]
        assert lane.rows(Account)[0].version == 3

    def test_after_its_deadline_a_command_expires(self, lane: LaneUnderTest) -> None:
        deadline_ms = int(NOW.timestamp() * 1000)
        lane.now = NOW + timedelta(milliseconds=0)
        assert codes(lane.outcomes(delivery(1, OpenAccount(owner="a"), deadline_ms=deadline_ms))) == ["applied"]
        lane.now = NOW + timedelta(milliseconds=1)
        late = delivery(2, OpenAccount(owner="b"), deadline_ms=deadline_ms)
        assert [outcome.status for outcome in lane.outcomes(late)] == ["expired"]
        # It stays expired, even if the clock goes back.
        lane.now = NOW - timedelta(hours=1)
        assert [outcome.status for outcome in lane.outcomes(late)] == ["expired"]
        assert len(lane.rows(Account)) == 1

    def test_a_pack_is_applied_in_order_each_command_with_its_own_outcome(self, lane: LaneUnderTest) -> None:
        body = msgspec.json.encode(
            [
                {"id": command_id(1), "type": "ledger.open", "args": {"owner": "a"}},
                {"id": command_id(2), "type": "ledger.deposit", "args": {"id": 1, "amount": 5}},
                {"id": command_id(3), "type": "ledger.deposit", "args": {"id": 1, "amount": -50}},
                "not an object",
                {"id": command_id(4), "type": "ledger.deposit"},
                {
                    "id": command_id(5),
                    "type": "ledger.deposit",
                    "args": {"id": 1, "amount": 1},
                    "expected_version": 2,
                },
                {"id": command_id(2), "type": "ledger.deposit", "args": {"amount": 5, "id": 1}},
            ]
        )
        commands = decode(Envelope(content_type=PACK_CONTENT), body)
        settlement = lane.settle(Delivery(tag=5, commands=commands, reply_to="q", correlation_id="c", reply_packs=True))
        assert codes(settlement.outcomes) == [
            "applied",
            "applied",
            "overdrawn",
            "malformed_command",
            "malformed_json",
            "applied",
            "applied",
        ]
        assert len(settlement.replies) == 1
        assert len(settlement.replies[0].outcomes) == 7
        assert lane.rows(Account)[0].balance == 6

    def test_a_successor_takes_over_and_the_old_holder_is_deposed(self, open_store: OpenStore) -> None:
        old, new = LaneUnderTest(open_store(), "old"), LaneUnderTest(open_store(), "new")
        old.do(OpenAccount(owner="a"))
        redelivered = delivery(1, Deposit(id=1, amount=5), redelivered=True)
        assert codes(new.outcomes(redelivered)) == ["applied"]
        assert isinstance(old.lane.apply([redelivered, delivery(2, Deposit(id=1, amount=7))]), Deposed)
        assert new.rows(Account)[0].balance == 5
        # A deposed consumer that the broker delivers to again, on another channel, takes over again.
        assert isinstance(old.lane.apply([redelivered]), Deposed)
        old.channel_number = 1
        assert [outcome.replayed for outcome in old.outcomes(redelivered)] == [True]
        assert isinstance(new.lane.apply([delivery(3, Deposit(id=1, amount=7))]), Deposed)

    def test_who_was_taken_over_calls_no_command_anothers_for_want_of_its_key(self, open_store: OpenStore) -> None:
        """The log has its fingerprint, made with a key that came later. With that, it is known as the same."""
        store, old, new = open_store(), LaneUnderTest(open_store(), "old"), LaneUnderTest(open_store(), "new")
        old.do(OpenAccount(owner="a"))
        key = new_fingerprint_key(1 + len(old.rows(FingerprintKey)))
        commit(store, store.take_over("operator", NOW), changes(inserts=[key]), counted=0)
        redelivered = delivery(1, Deposit(id=1, amount=5), redelivered=True, origin="public")
        assert codes(new.outcomes(redelivered)) == ["applied"]
        assert isinstance(old.lane.apply([redelivered]), Deposed)
        old.channel_number = 1
        assert [outcome.replayed for outcome in old.outcomes(redelivered)] == [True]

    def test_an_id_whose_key_is_gone_is_anothers_and_holds_nobody_up(self, open_store: OpenStore) -> None:
        store, lane = open_store(), LaneUnderTest(open_store(), "before")
        key = new_fingerprint_key(1 + len(lane.rows(FingerprintKey)))
        commit(store, store.take_over("operator", NOW), changes(inserts=[key]), counted=0)
        lane.outcomes(delivery(1, OpenAccount(owner="a")))
        commit(store, store.take_over("operator", NOW), changes(deletes=[key]), counted=0)
        after = LaneUnderTest(open_store(), "after")
        again = delivery(1, OpenAccount(owner="a"), redelivered=True, origin="public")
        found = after.outcomes(again, delivery(2, OpenAccount(owner="b")))
        assert codes(found) == ["idempotency_mismatch", "applied"]

    def test_the_id_of_what_a_command_emits_proves_no_guess_at_it(self, open_store: OpenStore) -> None:
        """It is shown to many who may not see what commands hold. A command that the log has lost, and that is applied
        once more, emits the same one, also when the lane has another key by then."""
        store, lane = open_store(), LaneUnderTest(open_store(), "before")
        first = 1 + len(lane.rows(FingerprintKey))
        ids, said = [], f"{Deposit.type}\n".encode() + msgspec.json.encode(Deposit(id=1, amount=5))
        for number in (first, first + 1):
            added = changes(inserts=[new_fingerprint_key(number)], deletes=lane.log())
            commit(store, store.take_over("operator", NOW), added, counted=0)
            lane = LaneUnderTest(open_store(), f"process {number}")
            lane.do(OpenAccount(owner="a"))
            (entry,) = lane.settle(delivery(7, Forward(id=1, amount=5))).emitted
            ids.append(entry.command_id)
        assert ids[0] == ids[1]
        assert is_system_id(ids[0])
        assert ids[0] != derived_command_id(f"{Forward.type} {command_id(7)}", 0, said), "everybody can make that one"

    def test_a_lane_that_began_without_a_key_emits_the_same_once_it_has_one(self, open_store: OpenStore) -> None:
        """A backup of before may be restored, and what was applied since is repeated: the key is gone with the rest."""
        store, lane = open_store(), LaneUnderTest(open_store(), "before")
        keyless = changes(deletes=lane.rows(FingerprintKey))
        keyed = changes(inserts=[next_fingerprint_key([])])
        ids = []
        for change in (keyless, keyed):
            commit(store, store.take_over("operator", NOW), change, counted=0)
            lane = LaneUnderTest(open_store(), "process")
            lane.do(OpenAccount(owner="a"))
            (entry,) = lane.settle(delivery(7, Forward(id=1, amount=5))).emitted
            ids.append(entry.command_id)
            commit(store, store.take_over("operator", NOW), changes(deletes=lane.log()), counted=0)
        assert ids[0] == ids[1]

    def test_emitted_commands_wait_in_the_outbox_until_they_are_confirmed(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"))
        settlement = lane.settle(delivery(1, Forward(id=1, amount=3)), delivery(2, Forward(id=1, amount=4)))
        emitted = settlement.emitted
        assert [(entry.id, entry.lane, entry.type) for entry in emitted] == [
            (1, "ledger", "ledger.deposit"),
            (2, "ledger", "ledger.deposit"),
        ]
        # Whoever takes over publishes what is left, under the same ids, so that it is applied once.
        successor = LaneUnderTest(open_store())
        assert successor.settle(delivery(9, Deposit(id=1, amount=0))).emitted == emitted
        messages = [
            CommandMessage(command_id=entry.command_id, type=entry.type, arguments=entry.arguments)
            for entry in emitted + emitted
        ]
        successor.settle(Delivery(tag=1, commands=tuple(messages)))
        assert successor.rows(Account)[0].balance == 7
        successor.lane.confirm(emitted)
        assert successor.lane.sweep() is None
        assert successor.rows(OutboxEntry) == []
        assert successor.do(Deposit(id=1, amount=1))[0].status == "applied"

    def test_a_rejected_command_emits_nothing(self, lane: LaneUnderTest) -> None:
        settlement = lane.settle(delivery(1, Forward(id=1, amount=3), expected_version=1))
        assert codes(settlement.outcomes) == ["expected_version_unsupported"]
        assert settlement.emitted == []
        assert lane.rows(OutboxEntry) == []

    def test_unique_values_move_between_rows_within_a_batch(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        outcomes = lane.do(
            Rename(id=1, owner="c"),
            OpenAccount(owner="a"),
            OpenAccount(owner="c"),
            Close(id=2),
            OpenAccount(owner="b"),
            Rename(id=1, owner="d"),
        )
        assert codes(outcomes) == ["applied", "applied", "owner_taken", "applied", "applied", "applied"]
        assert {row.id: row.owner for row in lane.rows(Account)} == {1: "d", 3: "a", 4: "b"}

    def test_two_rows_can_swap_unique_values_in_one_batch(self, lane: LaneUnderTest) -> None:
        lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"))
        outcomes = lane.do(Rename(id=1, owner="x"), Rename(id=2, owner="a"), Rename(id=1, owner="b"))
        assert codes(outcomes) == ["applied"] * 3
        assert {row.id: row.owner for row in lane.rows(Account)} == {1: "b", 2: "a"}

    @pytest.mark.parametrize("batch", [1, 2, 7])
    def test_ids_of_a_class_begin_above_its_rows_however_commands_are_batched(
        self, open_store: OpenStore, batch: int
    ) -> None:
        """Rows that other programs wrote, and the changes of commands before the first id was asked for."""
        store = open_store()
        rows = [account(number) for number in (3, 7, 8, 9)]
        commit(store, store.take_over("before", NOW), changes(inserts=rows))
        lane = LaneUnderTest(store, service=NUMBERED)
        commands = [
            *(Close(id=9), Deposit(id=50, amount=1), Close(id=8), OpenAccount(owner="owner 3")),
            *(OpenAccount(owner="a"), OpenAccount(owner="b"), Close(id=9)),
        ]
        found: list[str] = []
        for place in range(0, len(commands), batch):
            found += codes(lane.do(*commands[place : place + batch]))
        assert found == ["applied", "account_not_found", "applied", "owner_taken", "applied", "applied", "applied"]
        assert [row.id for row in lane.rows(Account)] == [3, 7, 8]
        assert codes(lane.do(OpenAccount(owner="c"))) == ["applied"]
        assert [row.id for row in lane.rows(Account)] == [3, 7, 8, 10]

    def test_any_split_into_batches_gives_the_same_outcomes(self, open_store: OpenStore) -> None:
        """The model: each command in a batch of its own. Random streams, random splits, with duplicates."""
        chance = random.Random(20261122)
        lane = LaneUnderTest(open_store())
        model = _Model()
        stream: list[tuple[int, Command]] = []
        for number in range(1, 161):
            if stream and chance.random() < 0.15:
                stream.append(chance.choice(stream))
            else:
                stream.append((number, _random_command(chance)))
        position = 0
        while position < len(stream):
            size = chance.choice((1, 2, 5, 30))
            part = stream[position : position + size]
            outcomes = lane.outcomes(*(delivery(number, command) for number, command in part))
            assert codes(outcomes) == [model.apply(number, command) for number, command in part]
            position += size
        assert {row.id: (row.owner, row.balance) for row in lane.rows(Account)} == model.accounts
        assert [entry.sequence for entry in lane.log()] == list(range(1, len({number for number, _ in stream}) + 1))
        counters = {row.name: row.value for row in lane.rows(Series)}
        assert counters.get("accounts", 0) == model.last_id


def _random_command(chance: random.Random) -> Command:
    key = chance.randint(1, 6)
    return chance.choice(
        (
            OpenAccount(owner=chance.choice("abcdef")),
            Deposit(id=key, amount=chance.randint(-5, 10)),
            Deposit(id=key, amount=chance.randint(-5, 10)),
            Close(id=key),
            Tamper(id=key, how="crash"),
            Tamper(id=key, how="refuse"),
        )
    )


class _Model:
    """The ledger as anyone would write it without a database."""

    def __init__(self) -> None:
        self.accounts: dict[int, tuple[str, int]] = {}
        self.last_id = 0
        self._outcomes: dict[int, str] = {}

    def apply(self, number: int, command: Command) -> str:
        if number not in self._outcomes:
            self._outcomes[number] = self._apply(command)
        return self._outcomes[number]

    def _apply(self, command: Command) -> str:
        if isinstance(command, OpenAccount):
            if any(owner == command.owner for owner, _ in self.accounts.values()):
                return "owner_taken"
            self.last_id += 1
            self.accounts[self.last_id] = (command.owner, 0)
            return "applied"
        key = getattr(command, "id")  # noqa: B009
        if key not in self.accounts:
            return "account_not_found"
        owner, balance = self.accounts[key]
        if isinstance(command, Close):
            del self.accounts[key]
        elif isinstance(command, Deposit):
            if balance + command.amount < 0:
                return "overdrawn"
            self.accounts[key] = (owner, balance + command.amount)
        elif isinstance(command, Tamper):
            return "handler_error" if command.how == "crash" else "refused"
        return "applied"
