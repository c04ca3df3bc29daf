"""Persons are forgotten in random histories: commits are lost, or come though their answer is lost, processes are
replaced, and everything is delivered again. A few histories are tried here; a failing one names its seed."""

from random import Random

import msgspec
import pytest

from coordinator.lane.control import Forget
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.outbox import message_of
from coordinator.service.commands import Command, Id
from coordinator.service.outcome import Outcome
from coordinator.service.personal import Personal
from coordinator.service.rows import Ref, Row
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.lane_tables import DeadLetter, LogEntry, OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore, MemoryTransaction
from coordinator.stores.port import Changes, Lease, StoreUnavailable
from tests.support.forget_contract import PERSONS, Break, Erase, Open, Person
from tests.support.lane_contract import LaneUnderTest, command_id, delivery

SEEDS = 30
COMMANDS = 60
PERSONS_MAX = 4


class Praise(Command, type="ledger.praise"):
    """Counts up, and says something of the person in its result."""

    id: Id
    note: Personal[str]


def praise(work: UnitOfWork, command: Praise) -> Person | None:
    person = work.get(Person, command.id)
    return None if person is None else work.save(person.replace(balance=person.balance + 1))


def _named(command: Praise) -> Ref[Row]:
    return Person.at(command.id)


SERVICE = PERSONS.replace(handlers=(*PERSONS.handlers, Handler(Praise, praise, target=_named)))


class Torn(MemoryTransaction):
    """Loses some commits, and the answers of others."""

    def __init__(self, database: MemoryDatabase, random: Random, share: float) -> None:
        super().__init__(database)
        self._random, self._share = random, share

    def commit(self, lease: Lease, sequence: int, changes: Changes) -> None:
        chance = self._random.random()
        if chance < self._share:
            raise StoreUnavailable("lost")
        super().commit(lease, sequence, changes)
        if chance < 2 * self._share:
            raise StoreUnavailable("its answer is lost")


class TornStore(MemoryStore):
    def __init__(self, database: MemoryDatabase, random: Random) -> None:
        super().__init__(database)
        self.random, self.share = random, 0.15

    def begin(self) -> MemoryTransaction:
        return Torn(self._database, self.random, self.share)


class History:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.database = MemoryDatabase()
        self.store = TornStore(self.database, self.random)
        self.lane = LaneUnderTest(self.store, "0", SERVICE)
        self.sent: dict[int, Delivery] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.forgotten: set[int] = set()
        """The persons for whom an order was given, behind which nothing of theirs comes."""
        self.numbers = iter(range(1, 100_000))

    def words_of(self, person: int) -> str:
        return f"q{person}z"

    def send(self, command: Command) -> None:
        number = next(self.numbers)
        self.sent[number] = delivery(number, command)
        self.deliver([number])

    def deliver(self, numbers: list[int]) -> None:
        """Deliver some, again and again until they are settled, by whatever process."""
        wanted = [
            msgspec.structs.replace(self.sent[number], tag=next(self.numbers), redelivered=True) for number in numbers
        ]
        self._settle(wanted)

    def carry_on(self) -> None:
        """Deliver what the lane has emitted to itself, some of it twice, until there is nothing."""
        while entries := self.database.rows(OutboxEntry):
            some = entries * 2 if self.random.random() < 0.3 else entries
            self._settle(
                [Delivery(tag=next(self.numbers), commands=(message_of(each),), redelivered=True) for each in some]
            )
            # The broker has them: their rows go with the next transaction.
            for each in entries:
                del self.database.tables[OutboxEntry][each.id]

    def _settle(self, wanted: list[Delivery]) -> None:
        while True:
            if self.random.random() < 0.2:
                self.lane = LaneUnderTest(self.store, str(next(self.numbers)), SERVICE)
            decision = self.lane.lane.apply(wanted, self.lane.channel_number)
            if not isinstance(decision, Settlement):
                continue
            for outcome in decision.outcomes:
                self.outcomes[outcome.command_id or ""] = outcome
            if not self.lane.lane.has_batch:
                return

    def run(self) -> None:
        random = self.random
        for person in range(1, PERSONS_MAX + 1):
            self.send(Open(owner=self.words_of(person)))
        for _ in range(COMMANDS):
            there = [person for person in range(1, PERSONS_MAX + 1) if person not in self.forgotten]
            chance, person = random.random(), random.choice(there) if there else 0
            if chance < 0.25:
                self.deliver(random.choices(list(self.sent), k=random.randint(1, 5)))
            elif chance < 0.35:
                self.carry_on()
            elif not person:
                continue
            elif chance < 0.45:
                self.send(Erase(id=person))
                self.forgotten.add(person)
                value = msgspec.Raw(msgspec.json.encode(person))
                # His row is gone, so what named him by his address is asked for, too.
                self.send(Forget(table="accounts", value=value))
                words = msgspec.Raw(msgspec.json.encode(self.words_of(person)))
                self.send(Forget(table="accounts", column="owner", value=words))
            elif chance < 0.6:
                self.send(Break(id=person, note=self.words_of(person)))
            elif chance < 0.7:
                self.send(Open(owner=self.words_of(person)))
            else:
                self.send(Praise(id=person, note=self.words_of(person)))
        self.carry_on()


def _shown(database: MemoryDatabase, model: type[Row]) -> str:
    return "\n".join(map(repr, database.rows(model)))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_forgotten_is_gone_and_the_order_is_whole(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.lane.forgetting.STEP_ENTRIES_MAX", 1 + seed % 4)
    history = History(seed)
    history.run()
    database, log = history.database, history.database.rows(LogEntry)
    everything = "\n".join(_shown(database, model) for model in list(database.tables))
    for person in range(1, PERSONS_MAX + 1):
        assert (history.words_of(person) in everything) == (person not in history.forgotten), (seed, person)
    assert sorted(entry.sequence for entry in log) == list(range(1, len(log) + 1))
    sent = {command_id(number): each.commands[0] for number, each in history.sent.items()}
    assert sent.keys() <= {entry.command_id for entry in log}
    # Each applied once: as often as it says so, the person is praised.
    for row in database.rows(Person):
        praised = [
            entry
            for entry in log
            if entry.type == Praise.type
            and msgspec.json.decode(sent[entry.command_id].arguments, type=Praise).id == row.id
        ]
        assert row.balance == len(praised), seed
    # Each is repeated once more: what is forgotten is told so, and everything else as it was.
    history.store.share = 0.0
    before = {entry.command_id: entry for entry in log}
    history.deliver(list(history.sent))
    assert database.rows(LogEntry) == sorted(before.values(), key=lambda entry: entry.command_id)
    for each in sent:
        entry, outcome = before[each], history.outcomes[each]
        code = None if outcome.error is None else outcome.error.code
        assert (code == "forgotten") == (entry.fingerprint == "forgotten"), (seed, each)
        assert outcome.sequence == entry.sequence
    assert all(letter.arguments == b"" for letter in database.rows(DeadLetter) if "forgotten" in letter.reason)
