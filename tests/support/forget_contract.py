"""What a lane promises of personal data that is to be forgotten, on every store. Each store's tests inherit this
class."""

import itertools
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from coordinator.lane.control import (
    DeadEffect,
    Forget,
    ForgetAsked,
    ForgetBegun,
    ForgetStep,
    ForgottenAsked,
    ForgottenSome,
    Release,
    ReplayLetter,
)
from coordinator.lane.delivery import Delivery
from coordinator.lane.outbox import message_of
from coordinator.lane.subjects import SUBJECTS_MAX, digest_of
from coordinator.service.commands import Command, Id
from coordinator.service.errors import Rejected
from coordinator.service.ids import system_command_id
from coordinator.service.options import Options
from coordinator.service.outside_calls import Effect
from coordinator.service.personal import Personal
from coordinator.service.principal import Principal
from coordinator.service.rows import Ref, Row, VersionedRow
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.audit_tables import OperatorAct, RowChange
from coordinator.stores.lane_tables import (
    LANE_MODELS,
    SENDERS_BYTES,
    DeadLetter,
    LogEntry,
    OutboxEntry,
    ParkedCommand,
    Series,
    Timer,
)
from coordinator.stores.personal_tables import PersonalEntry
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, Account, Deposit, OpenAccount
from tests.support.store_contract import OpenStore

_tags = itertools.count(1_000_000)

PLANTED = "q7z"
"""Stands in each text that says something of the person, and nowhere else."""
ADA, EVE = f"ada {PLANTED}", "eve"
Text = Annotated[str, Meta(max_length=20)]


class Person(Account, table="accounts", key="id", unique=("owner", "reference")):
    owner: Personal[str]
    note: Personal[str | None] = None


class Named(VersionedRow, table="accounts", key="owner", audited=True):
    """The same table, by another key: a person who is found by what he is called."""

    id: int
    owner: Personal[str]
    balance: int = 0
    created_at: datetime


class Card(Account, table="accounts", key="id", unique=("owner", "reference")):
    """The same table: rows that belong to somebody, whom another column names."""

    owner: Personal[str]
    note: Personal[str | None] = None

    def personal_of(self) -> Ref[Row]:
        return Card.at(owner=self.owner)


class Sign(Command, type="ledger.sign"):
    """Adds a person, and removes him where he is there."""

    owner: Personal[Text]


class Open(Command, type="ledger.open_person"):
    owner: Personal[Text]


class Break(Command, type="ledger.break"):
    """Fails, and says of whom."""

    id: Id
    note: Personal[str]


class Wait(Command, type="ledger.wait"):
    """Fails, and makes the commands of the person wait."""

    id: Id
    note: Personal[str]


class Tell(Effect, type="ledger.tell"):
    note: Personal[str]


class Later(Command, type="ledger.later"):
    """Has what it says told at once, by an effect, and said again later."""

    id: Id
    note: Personal[str]


class Erase(Command, type="ledger.erase"):
    id: Id


class Rename(Command, type="ledger.rename_person"):
    """Names nobody: only the row that it changes says whose data its result is."""

    id: Id
    owner: str


class Both(Command, type="ledger.both"):
    """About two persons: `of` names them, and no row is changed."""

    first: Id
    second: Id


class BadlyNamed(Command, type="ledger.badly_named"):
    id: Id


def sign(work: UnitOfWork, command: Sign) -> None:
    named = work.get(Named, command.owner)
    if named is None:
        work.add(Named(id=work.next_id("named"), owner=command.owner, created_at=work.now))
    else:
        work.remove(named)


def open_person(work: UnitOfWork, command: Open) -> Person:
    if work.find(Person, "owner", command.owner) is not None:
        raise Rejected("owner_taken", f"{command.owner} has an account")
    if command.owner.startswith("broken"):
        raise RuntimeError(command.owner)
    return work.add(Person(id=work.next_id(Person), owner=command.owner, created_at=work.now))


def fail(work: UnitOfWork, command: Break | Wait) -> None:
    del work
    raise RuntimeError(f"no {command.note}")


def later(work: UnitOfWork, command: Later) -> None:
    work.emit(Tell(note=command.note))
    work.emit(Break(id=command.id, note=command.note), after=timedelta(days=1))


def erase(work: UnitOfWork, command: Erase) -> None:
    person = work.get(Person, command.id)
    if person is not None:
        work.remove(person)


def rename(work: UnitOfWork, command: Rename) -> Person | None:
    person = work.get(Person, command.id)
    return None if person is None else work.save(person.replace(owner=command.owner))


def nothing(work: UnitOfWork, command: Command) -> None:
    del work, command


def _named(command: Break | Wait | Later | Erase) -> Ref[Row]:
    return Person.at(command.id)


def _badly_named(command: BadlyNamed) -> Any:
    match command.id:
        case 1:
            raise ValueError("nobody is 1")
        case 2:
            return [Person.at(number) for number in range(1, SUBJECTS_MAX + 2)]
        case 3:
            return 17
        case 4:
            return ["17"]
    return [Person.at(number) for number in range(1, SUBJECTS_MAX + 1)]


PERSONS = LEDGER.replace(
    models=(Person,),
    handlers=(
        Handler(Open, open_person, of=lambda command: Person.at(owner=command.owner)),
        Handler(Break, fail, target=_named),
        Handler(Wait, fail, target=_named, on_failure="park-key"),
        Handler(Later, later, target=_named),
        Handler(Erase, erase, target=_named),
        Handler(Rename, rename),
        Handler(Both, nothing, of=lambda command: [Person.at(command.first), Person.at(command.second)]),
        Handler(BadlyNamed, nothing, of=_badly_named),
    ),
)


NATURAL = LEDGER.replace(
    models=(Named,), handlers=(Handler(Sign, sign, target=lambda command: Named.at(command.owner)),)
)


def lend(work: UnitOfWork, command: Open) -> None:
    work.add(Card(id=work.next_id(Card), owner=command.owner, created_at=work.now))


def give_back(work: UnitOfWork, command: Erase) -> None:
    card = work.get(Card, command.id)
    if card is not None:
        work.remove(card)


CARDS = LEDGER.replace(
    models=(Card,),
    handlers=(
        Handler(Open, lend, of=lambda command: Card.at(owner=command.owner)),
        Handler(Break, fail, target=lambda command: Card.at(command.id)),
        Handler(Erase, give_back, target=lambda command: Card.at(command.id)),
    ),
)


def order_of(value: object = 1, asked: str = "", **others: Any) -> Forget:
    return Forget(table="accounts", value=msgspec.Raw(msgspec.json.encode(value)), asked=asked, **others)


def forget(lane: LaneUnderTest, order: Forget) -> ForgottenSome:
    """Give the order, and have all of its steps carried out."""
    begun = begin(lane, order)
    step = begun.goes_on_as
    while True:
        done = carry_on(lane, step)
        if done.goes_on_as is None:
            return done
        step = done.goes_on_as


def begin(lane: LaneUnderTest, order: Forget) -> ForgetBegun:
    (outcome,) = lane.do(order)
    assert outcome.status == "applied", outcome
    return msgspec.json.decode(outcome.result, type=ForgetBegun)


def carry_on(lane: LaneUnderTest, step: str | None) -> ForgottenSome:
    (outcome,) = lane.outcomes(step_of(lane, step))
    assert outcome.status == "applied", outcome
    return msgspec.json.decode(outcome.result, type=ForgottenSome)


def step_of(lane: LaneUnderTest, step: str | None) -> Delivery:
    """The step as it comes from the lane's own outbox."""
    (message,) = [message_of(entry) for entry in lane.rows(OutboxEntry) if entry.command_id == step]
    return Delivery(tag=next(_tags), commands=(message,), redelivered=False)


def planted(lane: LaneUnderTest) -> list[Row]:
    """All rows of the database that say something of the person."""
    models: tuple[type[Row], ...] = (*LANE_MODELS, Person)
    return [row for model in models for row in lane.rows(model) if PLANTED in repr(row)]


def kept_bytes(lane: LaneUnderTest) -> int:
    """What the lane counts of the letters whose fault is the sender's."""
    return sum(row.value for row in lane.rows(Series) if row.name == SENDERS_BYTES)


class ForgetContract:
    @pytest.fixture
    def persons(self, open_store: OpenStore) -> LaneUnderTest:
        lane = LaneUnderTest(open_store(), service=PERSONS)
        lane.settle(delivery(1, Open(owner=ADA)), delivery(2, Open(owner=EVE)))
        return lane

    def test_nothing_of_the_person_is_left_and_order_and_ids_stay(self, persons: LaneUnderTest) -> None:
        persons.settle(
            delivery(3, Open(owner=ADA)),
            delivery(4, Break(id=1, note=PLANTED)),
            delivery(5, Break(id=2, note="of another")),
            delivery(6, Both(first=1, second=2)),
            delivery(7, Erase(id=1)),
        )
        before = persons.log()
        assert planted(persons)
        # Why is among the acts, and not in the log, which gateways read.
        done = forget(persons, order_of(by="ops", reason="told the operator why"))
        assert "told the operator" not in repr(persons.log())
        assert planted(persons) == []
        assert (done.entries, done.letters, done.timers) == (5, 1, ())
        after = persons.log()
        assert [entry.sequence for entry in after] == list(range(1, 10))
        kept = ("command_id", "sequence", "epoch", "type", "status", "settled_at")
        for was, entry in zip(before, after, strict=False):
            assert [getattr(was, name) for name in kept] == [getattr(entry, name) for name in kept]
            assert (entry == was) == (was.command_id in (command_id(2), command_id(5)))
        assert {row.command_id for row in persons.rows(PersonalEntry)} == {command_id(n) for n in (2, 5, 6)}
        # Another asks for himself: what is forgotten already is not counted again.
        assert (forget(persons, order_of(2)).entries, planted(persons)) == (2, [])

    def test_a_repetition_is_told_that_it_is_forgotten_and_is_not_applied(self, persons: LaneUnderTest) -> None:
        ada = Principal(subject="ada")
        persons.settle(delivery(3, Erase(id=2), actor=ada, origin="public"))
        forget(persons, order_of(1))
        forget(persons, order_of(2))
        sequence = len(persons.log())
        told = persons.outcomes(
            delivery(1, Open(owner=ADA)),
            delivery(1, Open(owner="someone else")),
            delivery(3, Erase(id=2), actor=ada, origin="public"),
            delivery(3, Erase(id=2), actor=Principal(subject="bob"), origin="public"),
        )
        assert codes(told) == ["forgotten", "forgotten", "forgotten", "idempotency_mismatch"]
        assert [(each.status, each.sequence, each.replayed) for each in told[:3]] == [
            ("rejected", 1, True),
            ("rejected", 1, True),
            ("rejected", 3, True),
        ]
        assert len(persons.log()) == sequence
        assert [row.id for row in persons.rows(Person)] == [1]

    def test_whoever_knows_the_id_of_a_forgotten_command_learns_nothing_of_it(self, persons: LaneUnderTest) -> None:
        him, another = Principal(subject="him"), Principal(subject="another")
        persons.settle(
            delivery(3, Break(id=1, note=PLANTED), actor=him, origin="public"),
            delivery(4, Break(id=1, note=PLANTED), actor=him, origin="public"),
        )
        persons.do(ForgetAsked(commands=[command_id(3)], actor="him"))
        forget(persons, order_of(1))
        told = persons.outcomes(
            *(delivery(3, Break(id=1, note="x"), actor=each, origin="public") for each in (him, another, None)),
            delivery(3, Erase(id=1), actor=another, origin="public"),
            delivery(4, Break(id=1, note="x"), actor=another, origin="public"),
            # Of the other one it is known who asked: he may know, and so may the system.
            delivery(4, Break(id=1, note="x"), actor=him, origin="public"),
            delivery(3, Break(id=1, note="x")),
        )
        assert codes(told) == [*["forgotten"] * 3, *["idempotency_mismatch"] * 2, *["forgotten"] * 2]
        assert [each.sequence for each in told] == [None] * 5 + [4, 3]
        assert [each.error is not None and "failed" in each.error.message for each in told] == [False] * 5 + [True] * 2

    def test_what_is_kept_of_an_order_proves_no_guess_at_whom_it_was_about(
        self, persons: LaneUnderTest, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("coordinator.lane.forgetting.STEP_ENTRIES_MAX", 1)
        broken = f"broken {PLANTED}"
        persons.settle(delivery(3, Open(owner=broken)), delivery(4, Open(owner=broken)))
        order, others = order_of(broken, asked="once", column="owner", by="ops"), order_of(2, asked="once", by="ops")
        forget(persons, order)
        named = digest_of(Person.at(owner=broken))
        kept = [row for model in (LogEntry, OperatorAct, DeadLetter) for row in persons.rows(model)]
        assert named not in repr(kept)
        # The ids of steps are those that any other person's would be: of the order, and the place in it.
        ids = [entry.command_id for entry in persons.log() if entry.type == ForgetStep.type]
        (first,) = [entry.command_id for entry in persons.log() if entry.type == Forget.type]
        expected = [system_command_id("forget", PERSONS.lane, first, first)]
        expected.append(system_command_id("forget", PERSONS.lane, first, expected[0]))
        assert ids == expected
        assert forget(persons, others).entries == 1

    def test_who_asked_is_forgotten_only_where_he_is_named(self, persons: LaneUnderTest) -> None:
        him, other = Principal(subject=f"sub {PLANTED}"), Principal(subject="clerk")
        persons.settle(
            delivery(3, Break(id=1, note="x"), actor=him),
            delivery(4, Break(id=1, note="x"), actor=other),
        )
        forget(persons, order_of(1))
        assert [entry.actor is not None for entry in persons.log()[2:4]] == [True, True]
        persons.settle(delivery(5, Break(id=1, note="x"), actor=him))
        forget(persons, order_of(1, actor=him.subject, asked="again"))
        erased = {entry.command_id: entry.actor for entry in persons.log()}
        assert (erased[command_id(4)] is not None, erased[command_id(5)]) == (True, None)
        assert [PLANTED in letter.options for letter in persons.rows(DeadLetter)] == [True, False, False]

    def test_it_goes_on_in_steps_whatever_crashes(
        self, persons: LaneUnderTest, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("coordinator.lane.forgetting.STEP_ENTRIES_MAX", 2)
        persons.settle(*(delivery(number, Break(id=1, note=PLANTED)) for number in range(10, 15)))
        persons.settle(delivery(20, Erase(id=1)))
        begun = begin(persons, order_of(1))
        first = carry_on(persons, begun.goes_on_as)
        assert (first.entries, first.goes_on_as is not None) == (2, True)
        # Its process dies, and another one finds the step in the outbox. What it repeats does nothing again.
        successor = LaneUnderTest(open_store(), "successor", PERSONS)
        again = step_of(successor, begun.goes_on_as)
        step: str | None = begun.goes_on_as
        (told,) = successor.outcomes(again)
        assert (told.replayed, told.status) == (True, "applied")
        totals = [first.entries]
        step = first.goes_on_as
        while step is not None:
            done = carry_on(successor, step)
            totals.append(done.entries)
            step = done.goes_on_as
        assert totals == [2, 4, 6, 7]
        assert (planted(successor), done.letters) == ([], 5)

    def test_what_comes_behind_the_order_is_new_data(self, persons: LaneUnderTest) -> None:
        begun = begin(persons, order_of(1))
        persons.settle(delivery(3, Break(id=1, note=PLANTED)))
        assert carry_on(persons, begun.goes_on_as).entries == 1
        assert [row.command_id for row in planted(persons) if isinstance(row, DeadLetter)] == [command_id(3)]
        assert forget(persons, order_of(1, asked="again")).letters == 1

    def test_a_repetition_behind_a_step_in_its_batch_is_told_so(self, persons: LaneUnderTest) -> None:
        begun = begin(persons, order_of(1))
        step = step_of(persons, begun.goes_on_as)
        outcomes = persons.outcomes(step, delivery(30, Open(owner="new")), delivery(1, Open(owner=ADA)))
        assert codes(outcomes) == ["applied", "applied", "forgotten"]

    def test_two_orders_in_one_transaction(self, persons: LaneUnderTest) -> None:
        first, second = (begin(persons, order_of(1, asked=asked)).goes_on_as for asked in "ab")
        outcomes = persons.outcomes(step_of(persons, first), step_of(persons, second))
        done = [msgspec.json.decode(outcome.result, type=ForgottenSome).entries for outcome in outcomes]
        assert done == [1, 0]

    def test_commands_that_wait_for_the_person_are_not_lost(self, persons: LaneUnderTest) -> None:
        persons.settle(delivery(3, Wait(id=1, note=PLANTED)), delivery(4, Later(id=1, note=PLANTED)))
        assert len(persons.rows(ParkedCommand)) == 2
        (refused,) = persons.do(order_of(1))
        assert codes([refused]) == ["parked"]
        assert refused.error is not None
        assert command_id(4) in refused.error.message
        # Another's wait for nothing.
        assert codes(persons.do(order_of(2))) == ["applied"]
        key = persons.rows(ParkedCommand)[0].ordering_key
        persons.do(Release(ordering_key=key, command_id=command_id(3)))
        assert forget(persons, order_of(1, asked="again")).entries == 3

    def test_what_is_yet_to_be_sent_keeps_what_it_needs(self, persons: LaneUnderTest) -> None:
        persons.settle(delivery(3, Later(id=1, note=PLANTED)))
        (timer,) = persons.rows(Timer)
        done = forget(persons, order_of(1))
        assert done.timers == (timer.command_id,)
        assert PLANTED in repr(persons.rows(Timer))
        # It is found again, once it was sent: as a letter of the lane, and of its effect.
        (effect,) = [entry for entry in persons.rows(OutboxEntry) if entry.type == Tell.type]
        dead = DeadEffect(
            command_id=effect.command_id, effect_type=Tell.type, body=PLANTED, code="handler_error", reason=PLANTED
        )
        persons.lane.confirm(persons.rows(OutboxEntry))
        persons.now += timedelta(days=2)
        persons.lane.sweep(persons.channel_number)
        (fired,) = [message_of(entry) for entry in persons.rows(OutboxEntry) if entry.type == Break.type]
        persons.settle(Delivery(tag=next(_tags), commands=(fired,), redelivered=False), delivery(5, dead))
        persons.settle(delivery(6, Erase(id=1)))
        done = forget(persons, order_of(1, asked="again"))
        persons.lane.confirm(persons.rows(OutboxEntry))
        persons.do(Both(first=7, second=8))
        assert (done.timers, planted(persons)) == ((), [])

    def test_a_personal_key_leaves_the_audit(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store(), service=NATURAL)
        lane.settle(delivery(1, Sign(owner=ADA)), delivery(2, Sign(owner=ADA)))
        lane.settle(delivery(3, Sign(owner=EVE)), delivery(4, Sign(owner=EVE)))
        named = [row.row_key for row in lane.rows(RowChange)]
        assert planted(lane)
        forget(lane, order_of(ADA))
        (order,) = [entry.command_id for entry in lane.log() if entry.type == Forget.type]
        assert planted(lane) == []
        changes = [(row.sequence, row.row_key, row.how) for row in lane.rows(RowChange)]
        assert changes == [
            (1, f"*{order}", "inserted"),
            (2, f"*{order}", "removed"),
            (3, named[2], "inserted"),
            (4, named[3], "removed"),
        ]

    def test_a_letter_is_emptied_and_not_removed(self, persons: LaneUnderTest) -> None:
        # The state is the sender's own words, and the trace leads to others' records of him.
        trace, state = f"00-{'1' * 32}-{'a' * 16}-01", f"ada={PLANTED}"
        persons.settle(delivery(3, Break(id=1, note=PLANTED), traceparent=trace, tracestate=state))
        (before,) = persons.rows(DeadLetter)
        assert Options.decode(before.options).traceparent is not None
        forget(persons, order_of(1))
        (letter,) = persons.rows(DeadLetter)
        assert (PLANTED in repr(letter), Options.decode(letter.options).traceparent) == (False, None)
        kept = ("id", "command_id", "type", "code", "origin", "sequence", "dead_at")
        assert [getattr(letter, name) for name in kept] == [getattr(before, name) for name in kept]
        assert (letter.arguments, letter.traceback) == (b"", None)
        assert codes(persons.do(ReplayLetter(letter=letter.id))) == ["not_replayable"]
        again = msgspec.Raw(msgspec.json.encode(Break(id=1, note="other")))
        assert codes(persons.do(ReplayLetter(letter=letter.id, args=again))) == ["applied"]

    def test_what_one_actor_asked_for_is_emptied_whomever_it_is_about(self, persons: LaneUnderTest) -> None:
        him = Principal(subject=f"sub {PLANTED}")
        others = [Principal(subject=him.subject, tenant="acme"), Principal(subject="clerk"), None]
        persons.settle(delivery(3, Break(id=1, note="x"), actor=him), delivery(4, Erase(id=9), actor=him))
        persons.settle(*(delivery(5 + at, Break(id=1, note="y"), actor=other) for at, other in enumerate(others)))
        wrong = b'{"id":"%s"}' % PLANTED.encode()
        persons.settle(delivery(8, wrong, command_type=Break.type, origin="public", actor=him))
        assert kept_bytes(persons) == len(wrong)
        before = persons.log()
        ids = [command_id(number) for number in (3, 4, 5, 6, 7, 8, 77)]
        (outcome,) = persons.do(ForgetAsked(commands=[*ids, ids[0]], actor=him.subject, by="ops", reason="why"))
        done = msgspec.json.decode(outcome.result, type=ForgottenAsked)
        assert (done.entries, done.letters, done.by, done.reason) == (3, 2, "ops", "")
        assert [each.reason for each in persons.rows(OperatorAct)] == ["why"]
        changed = [was.command_id for was, now in zip(before, persons.log(), strict=False) if was != now]
        assert changed == [command_id(number) for number in (3, 4, 8)]
        assert [entry.actor for entry in persons.log() if entry.command_id in changed] == [None] * 3
        assert [letter.command_id for letter in persons.rows(DeadLetter) if PLANTED in repr(letter)] == [command_id(5)]
        # A letter that is emptied gives back the room that it had among those of senders.
        assert kept_bytes(persons) == 0
        told = persons.outcomes(delivery(3, Break(id=1, note="x"), actor=him))
        assert codes(told) == ["forgotten"]
        # What is empty already, from the time when nobody said who had asked, still loses who did.
        forget(persons, order_of(1))
        (again,) = persons.do(ForgetAsked(commands=ids, actor=him.subject, tenant="acme"))
        assert msgspec.json.decode(again.result, type=ForgottenAsked).entries == 1
        assert not [entry for entry in persons.log() if PLANTED in repr(entry.actor)]

    def test_letters_that_name_him_are_emptied_though_the_log_has_no_entry_of_theirs(
        self, persons: LaneUnderTest
    ) -> None:
        """Of effects that were made for him, and of messages without an id."""
        him, other = Principal(subject=f"sub {PLANTED}"), Principal(subject=f"sub {PLANTED}", tenant="acme")
        body = b'{"note":"%s"}' % PLANTED.encode()
        for number, actor in ((30, him), (40, other)):
            dead = DeadEffect(
                command_id=command_id(number + 1),
                effect_type=Tell.type,
                body=PLANTED,
                code="handler_error",
                reason=PLANTED,
            )
            persons.settle(delivery(number, dead, actor=actor))
            persons.settle(delivery(None, body, command_type=Break.type, origin="public", actor=actor))
        before = [letter for letter in persons.rows(DeadLetter) if PLANTED in repr(letter)]
        assert [letter.command_id is None for letter in before] == [False, True] * 2
        numbers = (*(letter.id for letter in before), 9999)
        order = ForgetAsked(commands=[], letters=numbers, actor=him.subject, by="ops", reason="why")
        (outcome,) = persons.do(order)
        assert msgspec.json.decode(outcome.result, type=ForgottenAsked).letters == 2
        after = {letter.id: letter for letter in persons.rows(DeadLetter)}
        assert [letter.id for letter in before if after[letter.id] == letter] == [each.id for each in before[2:]]
        assert PLANTED not in repr([after[letter.id] for letter in before[:2]])
        # Which messages without an id are one letter is not told by what is left.
        assert [after[letter.id].source for letter in before[:2]] == [f"forgotten {each.id}" for each in before[:2]]
        (again,) = persons.do(msgspec.structs.replace(order, asked="again"))
        assert msgspec.json.decode(again.result, type=ForgottenAsked).letters == 0

    def test_what_he_asked_for_and_waits_is_not_lost(self, persons: LaneUnderTest) -> None:
        him = Principal(subject=f"him {PLANTED}")
        persons.settle(delivery(3, Wait(id=1, note="x"), actor=Principal(subject="another")))
        persons.settle(delivery(4, Erase(id=1), actor=him))
        order = ForgetAsked(commands=[], actor=him.subject)
        refused, done = persons.do(order, ForgetAsked(commands=[], actor="nobody"))
        assert codes([refused, done]) == ["parked", "applied"]
        # No later order would take it out of the log.
        assert PLANTED not in repr(refused)

    def test_who_never_had_a_row_is_found_by_what_names_him(self, persons: LaneUnderTest) -> None:
        broken = f"broken {PLANTED}"
        persons.settle(delivery(3, Open(owner=broken)))
        assert [row.status for row in persons.log()] == ["applied", "applied", "failed"]
        done = forget(persons, order_of(broken, column="owner"))
        assert (done.entries, done.letters) == (1, 1)
        assert not [row for row in planted(persons) if isinstance(row, DeadLetter)]
        # By such a column the one who has a row is found with all that is his.
        assert forget(persons, order_of(ADA, column="owner")).entries == 1

    def test_a_command_that_names_nobody_is_about_those_whose_rows_it_changes(self, persons: LaneUnderTest) -> None:
        persons.settle(delivery(3, Rename(id=2, owner=f"eve {PLANTED}")), delivery(4, Rename(id=9, owner="x")))
        forget(persons, order_of(1))
        persons.settle(delivery(5, Erase(id=2)))
        assert forget(persons, order_of(2)).entries == 3
        assert planted(persons)[1:] == []

    def test_a_command_that_names_a_row_which_belongs_to_him_is_about_him_though_it_fails(
        self, open_store: OpenStore
    ) -> None:
        lane = LaneUnderTest(open_store(), service=CARDS)
        lane.settle(delivery(1, Open(owner=ADA)), delivery(2, Break(id=1, note=PLANTED)), delivery(3, Erase(id=1)))
        assert planted(lane)
        done = forget(lane, order_of(ADA, column="owner"))
        assert (done.entries, done.letters, planted(lane)) == (3, 1, [])

    def test_what_came_before_his_row_is_found_by_what_he_is_called_now(self, persons: LaneUnderTest) -> None:
        broken = f"broken {PLANTED}"
        persons.settle(delivery(3, Open(owner=broken)), delivery(4, Rename(id=2, owner=broken)))
        done = forget(persons, order_of(2))
        assert (done.entries, done.letters) == (3, 1)

    def test_a_letter_under_an_id_of_another_command_proves_no_guess(self, persons: LaneUnderTest) -> None:
        persons.settle(delivery(3, Break(id=1, note=PLANTED)), delivery(3, Break(id=1, note=f"other {PLANTED}")))
        digests = [letter.source for letter in persons.rows(DeadLetter)]
        assert digests[0] == command_id(3) != digests[1]
        assert forget(persons, order_of(1)).letters == 2
        assert [letter.source for letter in persons.rows(DeadLetter)] == [command_id(3), "forgotten 2"]

    def test_a_repetition_behind_a_step_in_another_transaction_is_told_so(self, persons: LaneUnderTest) -> None:
        begun = begin(persons, order_of(1))
        step = step_of(persons, begun.goes_on_as)
        # The database refuses the third one: what is before it and behind it is committed apart.
        refused = delivery(30, Rename(id=2, owner=ADA))
        known = delivery(1, Open(owner=ADA))
        outcomes = persons.outcomes(delivery(2, Open(owner=EVE)), step, refused, known)
        assert codes(outcomes) == ["applied", "applied", "database_refused", "forgotten"]

    def test_a_trial_changes_nothing(self, persons: LaneUnderTest) -> None:
        begun = begin(persons, order_of(1, dry_run=True))
        assert (begun.commands, begun.is_row_there, begun.goes_on_as) == (1, True, None)
        assert planted(persons)
        assert not persons.rows(OutboxEntry)

    def test_an_order_that_means_nobody_is_refused(self, persons: LaneUnderTest) -> None:
        outcomes = persons.do(
            order_of(PLANTED),
            order_of([PLANTED]),
            order_of(f"{PLANTED}\x00", column="owner"),
            order_of(1, column="balance"),
            Forget(table="nobody", value=msgspec.Raw(b"1")),
            order_of(999),
        )
        assert [each for each in codes(outcomes) if each != "not_a_key"] == ["unknown_table", "applied"]
        assert [str(outcome.error) for outcome in outcomes if PLANTED in str(outcome.error)] == []

    def test_a_fault_in_of_fails_the_command(self, persons: LaneUnderTest) -> None:
        outcomes = persons.do(*(BadlyNamed(id=number) for number in range(1, 6)))
        assert codes(outcomes) == [*["handler_error"] * 4, "applied"]
        reasons = [letter.reason for letter in persons.rows(DeadLetter)]
        words = ("nobody is 1", f"`of` names more than {SUBJECTS_MAX} rows", "`of` returns", "and no str")
        assert [word in reason for word, reason in zip(words, reasons, strict=True)] == [True] * 4
        assert len(persons.rows(PersonalEntry)) == 2 + SUBJECTS_MAX

    def test_a_lane_without_personal_rows_keeps_no_index(self, open_store: OpenStore) -> None:
        lane = LaneUnderTest(open_store())
        lane.do(OpenAccount(owner="a"), Deposit(id=1, amount=5))
        assert lane.rows(PersonalEntry) == []
