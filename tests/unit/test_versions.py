"""Versions of commands: older arguments are upgraded, newer ones wait for a process that knows them."""

import json
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from coordinator import Command, Continuation, Effect, Handler, InvalidCommand, Name, Service, UnitOfWork
from coordinator.lane.control import ReplayLetter
from coordinator.lane.delivery import Delivery, Settlement, Suspension
from coordinator.lane.outbox import message_of
from coordinator.lane.request import prepare
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import CommandMessage, Defect
from coordinator.runtime.settings import LaneSettings
from coordinator.service.defects import defects_of
from coordinator.service.upgrades import UPGRADED_BYTES_MAX, Upgrade, parse_sent
from coordinator.stores.lane_tables import AnnouncedVersion, Cancellation, DeadLetter, LogEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.testing import LaneInMemory, Older, SimulationFailed, simulate
from coordinator.transports.dead_effects import dead_effect
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.releases import AddNote, Note, OldAddNote, new, old, title_and_priority


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


def lane_of(database: MemoryDatabase, service: Service, holder: str = "test") -> LaneUnderTest:
    return LaneUnderTest(MemoryStore(database), holder, service)


def sent_old(number: int, text: str = "a", **options: Any) -> Delivery:
    return delivery(number, OldAddNote(text=text), **options)


def sent_new(number: int, title: str = "a", version: int = 2, **options: Any) -> Delivery:
    return delivery(number, AddNote(title=title), command_version=version, **options)


def announce(database: MemoryDatabase, service: Service) -> None:
    for kind, version in service.versions.items():
        database.tables[AnnouncedVersion][kind] = AnnouncedVersion(type=kind, version=version)


def titles(database: MemoryDatabase) -> list[str]:
    return [note.title for note in database.rows(Note)]


# Upgrades


def test_older_arguments_become_newer_ones_step_by_step() -> None:
    class Move(Command, type="t.move", version=3):
        by: Decimal
        unit: str

    upgrades = (
        Upgrade(Move, 1, lambda given: {"distance": given["d"]}),
        Upgrade(Move, 2, lambda given: {"by": given["distance"], "unit": "m"}),
    )
    expected = Move(by=Decimal("1.10"), unit="m")
    assert parse_sent(Move, b'{"d": 1.10}', None, upgrades) == expected, "no float has rounded it"
    assert parse_sent(Move, b'{"d": 1.10}', 1, upgrades) == expected
    assert parse_sent(Move, b'{"distance": "1.10"}', 2, upgrades) == expected
    assert parse_sent(Move, b'{"by": "1.10", "unit": "m"}', 3, upgrades) == expected
    assert str(parse_sent(Move, b'{"d": 1.10}', 1, upgrades).by) == "1.10"


def test_older_arguments_keep_each_number_a_number() -> None:
    class Price(Command, type="t.price", version=2):
        amount: Decimal
        note: Any = None

    upgrades = (Upgrade(Price, 1, lambda given: {"amount": given["a"], "note": given["note"]}),)
    older = b'{"a": 0.10000000000000000001, "note": {"x": 1.0, "y": 1e308, "z": 1}}'
    read = parse_sent(Price, older, 1, upgrades)
    assert read == Price(amount=Decimal("0.10000000000000000001"), note={"x": 1.0, "y": 1e308, "z": 1})
    with pytest.raises(InvalidCommand, match="exponent that no number can have"):
        parse_sent(Price, b'{"a": 1e9999999999999999999, "note": null}', 1, upgrades)


@pytest.mark.parametrize(
    ("version", "arguments", "code", "text"),
    [
        (3, b'{"title": "a"}', "unknown_command_version", "version 3 of notes.add is not known here: versions 1 to 2"),
        (1, b'{"title": "a"}', "upgrade_failed", "the upgrade of notes.add from version 1 raises KeyError: 'text'"),
        (1, b'{"text": 7}', "invalid_arguments", "Expected `str`, got `int` - at `$.title` (as version 2, upgraded"),
        (1, b'{"text": "a", "x": 1}', "invalid_arguments", "unknown field `x` (as version 2, upgraded from version 1)"),
        (1, b"[]", "invalid_arguments", "Expected `object`, got `array`"),
        (1, b'{"text": ', "malformed_json", "the arguments are not valid JSON"),
        (1, b"[" * 101 + b"]" * 101, "malformed_json", "nested deeper than 100 levels"),
        (1, b"", "malformed_json", "there are none, not even {}"),
    ],
)
def test_what_cannot_be_upgraded_is_refused(version: int, arguments: bytes, code: str, text: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        parse_sent(AddNote, arguments, version, (Upgrade(AddNote, 1, title_and_priority),))
    assert refused.value.code == code
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("made", "text"), [(None, "returns a NoneType, and must return a dict"), ({"title": object()}, "JSON text cannot")]
)
def test_what_an_upgrade_must_not_return_is_said(made: Any, text: str) -> None:
    with pytest.raises(InvalidCommand, match=text) as refused:
        parse_sent(AddNote, b"{}", 1, (Upgrade(AddNote, 1, lambda _: made),))
    assert refused.value.code == "upgrade_failed"


def test_what_an_upgrade_makes_of_little_is_no_larger_than_a_message(database: MemoryDatabase) -> None:
    def longer(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"title": arguments["text"] * arguments["times"]}

    lane = lane_of(database, new.replace(upgrades=(Upgrade(AddNote, 1, longer),)))
    sent = delivery(1, b'{"text":"a","times":1048577}', command_type="notes.add")
    assert codes(lane.outcomes(sent, sent_new(2, "b"))) == ["upgrade_failed", "applied"]
    [letter] = database.rows(DeadLetter)
    assert letter.reason == (
        "the upgrade of notes.add from version 1 returns arguments of 1048589 bytes, and may return at most 1048576"
    )


def test_what_an_upgrade_makes_of_much_may_have_twice_its_bytes() -> None:
    """Where a lane takes larger messages: one that was taken is not refused for the longer names of a newer release."""

    class Fill(Command, type="t.fill", version=2):
        text: str

    sent = b'{"t":"%s"}' % (b"a" * UPGRADED_BYTES_MAX)
    for more, is_taken in ((0, True), (1, False)):
        text = "a" * (2 * len(sent) - len('{"text":""}') + more)
        upgrades = (Upgrade(Fill, 1, lambda _, text=text: {"text": text}),)  # type: ignore[misc]
        if is_taken:
            assert parse_sent(Fill, sent, 1, upgrades).text == text
        else:
            with pytest.raises(InvalidCommand, match=f"may return at most {2 * len(sent)}"):
                parse_sent(Fill, sent, 1, upgrades)


def test_an_upgrade_may_refuse_in_its_own_words() -> None:
    def refuse(arguments: dict[str, Any]) -> dict[str, Any]:
        raise InvalidCommand("there are no such seats any more", code="gone", field="id")

    with pytest.raises(InvalidCommand, match="no such seats") as refused:
        parse_sent(AddNote, b"{}", 1, (Upgrade(AddNote, 1, refuse),))
    assert (refused.value.code, refused.value.field) == ("gone", "id")


# What is declared


def nothing(work: UnitOfWork, command: Command) -> None:
    """A handler."""


def declared(*upgrades: tuple[type[Command], Any], version: int = 3) -> list[str]:
    service = Service("t")

    class Move(Command, type="t.move", version=version):
        by: int

    service.handles(Move)(nothing)
    for command, step in upgrades:
        service.upgrades(Move if command is Command else command, from_version=step)(lambda given: given)
    return defects_of(service)


def test_upgrades_without_gaps_are_no_defect() -> None:
    assert declared((Command, 1), (Command, 2)) == []
    assert declared((Command, 2)) == [], "the first version is over"
    assert declared(version=1) == []
    assert defects_of(old) == defects_of(new) == []


@pytest.mark.parametrize(
    ("steps", "version", "expected"),
    [
        ([], 2, ["Move has version 2, and no upgrade from version 1:"]),
        ([1], 3, ["Move has version 3, and no upgrade from version 2:"]),
        ([1, 1, 2], 3, ["Move has 2 upgrades from version 1"]),
        ([2], 2, ["declare it with version=3", "no upgrade from version 1"]),
        ([0, 1], 2, ["from_version=0, which is no whole number from 1 on"]),
        (["1"], 2, ["from_version='1', which is no whole number", "no upgrade from version 1"]),
        ([True], 2, ["from_version=True, which", "no upgrade from version 1"]),
        ([], 0, ["version=0 is no whole number from 1 on"]),
        ([], "2", ["version='2' is no whole number from 1 on"]),
    ],
)
def test_versions_that_do_not_fit_are_found_at_start(steps: list[Any], version: Any, expected: list[str]) -> None:
    found = declared(*((Command, step) for step in steps), version=version)
    assert len(found) == len(expected), found
    for text, words in zip(found, expected, strict=True):
        assert words in text


def test_upgrades_of_what_is_not_there_are_found_at_start() -> None:
    class Call(Effect, type="t.call", version=2):
        to: str

    class Theirs(Effect, type="other.call", version=2):
        to: str

    assert declared((Call, 1), version=1) == [], "a worker has it"
    assert declared((Theirs, 1), version=1) == ["Theirs has an upgrade, and no handler here"]
    assert declared((AddNote, 1), version=1) == ["AddNote has an upgrade, and no handler here"]
    stranger: Any = int
    assert "which is no class of commands" in declared((stranger, 1), version=1)[0]


def test_a_continuation_and_a_field_of_that_name_are_refused() -> None:
    service = Service("t")

    class Went(Continuation, type="t.went", version=2):
        pass

    class Odd(Command, type="t.odd"):
        command_version: int  # type: ignore[misc]  # that is what is wrong

    class Even(Command, type="t.even"):
        version: int

    for command in (Went, Odd, Even):
        service.handles(command)(nothing)
    first, second = defects_of(service)
    assert "a continuation has no versions" in first
    assert second == "Odd.command_version: a command has that name for something else"
    assert Even(version=7).version == 7


def test_a_service_with_other_handlers_keeps_its_upgrades() -> None:
    assert new.replace(name="other").handlers == new.handlers
    assert [upgrade.from_version for upgrade in new.handlers[0].upgrades] == [1]
    assert new.replace(upgrades=()).handlers[0].upgrades == ()


# In a lane


def test_both_versions_are_applied(database: MemoryDatabase) -> None:
    lane = lane_of(database, new)
    outcomes = lane.outcomes(sent_old(1, "a"), sent_new(2, "b"), sent_old(3, "c", command_version=1))
    assert codes(outcomes) == ["applied"] * 3
    assert titles(database) == ["a", "b", "c"]


def test_a_repetition_across_an_upgrade_is_the_same_command(database: MemoryDatabase) -> None:
    first = lane_of(database, old).outcomes(sent_old(1, "a"))
    again = lane_of(database, new, "newer").outcomes(sent_old(1, "a"), sent_old(1, "b"), sent_new(1, "a"))
    assert (again[0].replayed, again[0].result) == (True, first[0].result)
    assert codes(again[1:]) == ["idempotency_mismatch"] * 2
    assert titles(database) == ["a"]


def test_the_fingerprint_of_a_first_version_is_what_it_was() -> None:
    message = CommandMessage(command_id(1), "notes.add", b'{"text": "a"}', expected_version=7)
    assert UNKEYED.of(message) == "3fd6004f0b053fb495d62d87e27fe57c", "as releases without versions have it"
    assert UNKEYED.of(message) == UNKEYED.of(msgspec.structs.replace(message, command_version=1))
    assert UNKEYED.of(message) != UNKEYED.of(msgspec.structs.replace(message, command_version=2))


def test_the_same_arguments_in_two_versions_are_two_commands(database: MemoryDatabase) -> None:
    lane = lane_of(database, new)
    first = delivery(1, b'{"title":"a"}', command_type="notes.add", command_version=2)
    other = delivery(1, b'{"title":"a"}', command_type="notes.add", origin="public")
    assert codes(lane.outcomes(first, other)) == ["applied", "idempotency_mismatch"]


def test_an_upgrade_that_fails_hurts_nobody_else(database: MemoryDatabase) -> None:
    lane = lane_of(database, new)
    wrong = delivery(2, b'{"title":"b"}', command_type="notes.add")
    outcomes = lane.outcomes(sent_old(1, "a"), wrong, sent_new(3, "c"))
    assert codes(outcomes) == ["applied", "upgrade_failed", "applied"]
    assert titles(database) == ["a", "c"]
    [letter] = database.rows(DeadLetter)
    assert "raises KeyError: 'text'" in letter.reason
    assert outcomes[1].error is not None
    assert "KeyError" not in outcomes[1].error.message, "an exception's text is for operators"
    assert command_id(2) in outcomes[1].error.message, "who find it under what a client can quote"
    [entry] = [entry for entry in database.rows(LogEntry) if entry.status == "failed"]
    assert entry.error_message == outcomes[1].error.message
    (nameless,) = lane.outcomes(delivery(None, b'{"title":"b"}', command_type="notes.add"))
    assert nameless.error is not None
    assert "KeyError" not in nameless.error.message


def test_an_older_command_with_a_name_twice_is_refused(database: MemoryDatabase) -> None:
    twice = delivery(1, b'{"text":"a","text":"b"}', command_type="notes.add")
    assert codes(lane_of(database, new).outcomes(twice)) == ["malformed_json"]

    class Move(Command, type="t.move", version=2):
        by: int
        unit: Name

    handler = Handler(
        Move, lambda work, command: None, upgrades=(Upgrade(Move, 1, lambda given: given | {"unit": "m"}),)
    )
    as_many_names = CommandMessage(command_id(2), "t.move", b'{"by":1,"by":2}')
    defect = prepare(as_many_names, {"t.move": handler}, redelivered=False).defect
    assert defect is not None
    assert defect.code == "malformed_json"


def test_a_version_that_nobody_announced_is_a_dead_letter(database: MemoryDatabase) -> None:
    lane = lane_of(database, old)
    assert codes(lane.outcomes(sent_old(1), sent_new(2), sent_old(3))) == [
        "applied",
        "unknown_command_version",
        "applied",
    ]
    [letter] = database.rows(DeadLetter)
    assert letter.reason == "version 2 of notes.add is not known here: version 1 is"
    assert json.loads(letter.options)["command_version"] == 2
    announce(database, new)
    assert codes(lane.outcomes(sent_new(4, version=3))) == ["unknown_command_version"], "it was not this version"


def test_a_version_that_is_announced_waits_for_a_newer_process(database: MemoryDatabase) -> None:
    lane = lane_of(database, old)
    announce(database, new)
    deliveries = [sent_old(1, "a"), sent_new(2, "b"), sent_old(3, "c")]
    first = lane.lane.apply(deliveries)
    assert isinstance(first, Settlement)
    assert first.tags == [deliveries[0].tag], "what came before is settled"
    waited_s = 0.0
    handed_over_after_s: list[float] = []
    while len(handed_over_after_s) < 7:
        decision = lane.lane.apply(deliveries)
        assert isinstance(decision, Suspension)
        assert decision.is_unfit
        assert not decision.is_blocked
        assert decision.reason.startswith(f"command {command_id(2)} (notes.add) has version 2, which a newer release")
        assert decision.delay_s <= 1.0, "an operator may withdraw it"
        waited_s += decision.delay_s
        if decision.stands_back:
            handed_over_after_s.append(waited_s)
            waited_s = 0.0
    assert handed_over_after_s[0] <= 0.05, "another process may be there already"
    assert handed_over_after_s == sorted(handed_over_after_s)
    assert handed_over_after_s[-1] == LaneSettings().retry_delay_s_max, "it does not spin where there is none"
    newer = lane_of(database, new, "newer")
    assert codes(newer.outcomes(*deliveries)) == ["applied"] * 3
    assert titles(database) == ["a", "b", "c"]
    assert [entry.sequence for entry in newer.log()] == [1, 2, 3]
    assert database.rows(DeadLetter) == []


def test_what_no_release_takes_does_not_wait_for_one(database: MemoryDatabase) -> None:
    lane = lane_of(database, old)
    announce(database, new)
    malformed = CommandMessage(command_id(1), "notes.add", b"no json", command_version=2)
    over_ms = int(lane.now.timestamp() * 1000) - 1
    late = CommandMessage(command_id(2), "notes.add", b'{"title":"a"}', command_version=2, deadline_ms=over_ms)
    deliveries = [Delivery(tag=number, commands=(each,)) for number, each in enumerate((malformed, late), 1)]
    assert codes(lane.outcomes(*deliveries)) == ["malformed_json", "deadline_expired"]
    assert codes(lane.outcomes(sent_old(3))) == ["applied"]


def test_a_number_that_has_an_answer_does_not_wait_for_a_newer_process(
    database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the command says: no release would try it."""
    lane = lane_of(database, old)
    assert codes(lane.outcomes(sent_old(1, publisher="p", publisher_seq=1))) == ["applied"]
    announce(database, new)
    assert codes(lane.outcomes(sent_new(2, publisher="p", publisher_seq=1))) == ["publisher_seq_settled"]
    assert codes(lane.outcomes(sent_new(3, publisher="p", publisher_seq=0))) == ["publisher_seq_settled"]
    monkeypatch.setattr("coordinator.lane.publisher_progress.GAPS_MAX", 0)
    far = lane.lane.apply([sent_new(4, publisher="p", publisher_seq=9)])
    assert isinstance(far, Settlement), "it is early"
    lane.elapsed_s += 10_000
    assert codes(lane.outcomes()) == ["too_many_gaps"]
    assert isinstance(lane.lane.apply([sent_new(5, publisher="p", publisher_seq=2)]), Suspension), "this one waits"


def test_it_can_be_cancelled_while_it_waits(database: MemoryDatabase) -> None:
    lane = lane_of(database, old)
    announce(database, new)
    assert isinstance(lane.lane.apply([waiting := sent_new(1)]), Suspension)
    cancellation = Cancellation(command_id=command_id(1), reason="not now", requested_at=lane.now)
    database.tables[Cancellation][command_id(1)] = cancellation
    assert codes(lane.outcomes(waiting)) == ["cancelled"]
    assert codes(lane.outcomes(sent_old(2))) == ["applied"]


def test_what_a_newer_process_has_applied_is_answered_by_an_older_one(database: MemoryDatabase) -> None:
    announce(database, new)
    lane_of(database, new, "newer").outcomes(sent_new(1))
    [outcome] = lane_of(database, old).outcomes(sent_new(1))
    assert outcome.replayed


def test_many_commands_of_two_versions_through_processes_of_two_releases(database: MemoryDatabase) -> None:
    """Whoever has the lane, each is applied once, in order."""
    announce(database, new)
    chance = random.Random(7)
    queue = [chance.choice((sent_old, sent_new))(number, f"n{number}") for number in range(1, 200)]
    for turn in range(10_000):
        lane = lane_of(database, chance.choice((old, new)), f"holder {turn}")
        size = chance.randint(1, 9)
        settled: set[int] = set()
        while isinstance(decision := lane.lane.apply(queue[:size]), Settlement):
            settled.update(decision.tags)
            if not lane.lane.has_batch:
                break
        queue = [each for each in queue if each.tag not in settled]
        if not queue:
            break
    assert titles(database) == [f"n{number}" for number in range(1, 200)]
    assert database.rows(DeadLetter) == []
    assert sorted(entry.sequence for entry in database.rows(LogEntry)) == list(range(1, 200))


# Wherever it waits


class Tell(Command, type="t.tell", version=2):
    """Emits a command of the second version."""

    text: Name


def teller() -> Service:
    service = Service("t")

    @service.handles(Tell)
    def tell(work: UnitOfWork, command: Tell) -> None:
        work.emit(AddNote(title=command.text))
        work.emit(OldAddNote(text=command.text))

    service.upgrades(Tell, from_version=1)(lambda given: {"text": given["words"]})
    return service


def test_what_is_emitted_has_its_version(database: MemoryDatabase) -> None:
    lane = lane_of(database, teller())
    settlement = lane.settle(delivery(1, b'{"words":"a"}', command_type="t.tell"))
    assert [message_of(entry).command_version for entry in settlement.emitted] == [2, None]
    assert [entry.options for entry in settlement.emitted] == ['{"command_version":2}', None]


def test_what_is_emitted_later_has_its_version(database: MemoryDatabase) -> None:
    service = Service("t")

    @service.handles(Tell)
    def tell(work: UnitOfWork, command: Tell) -> None:
        work.emit(AddNote(title=command.text), after=timedelta(minutes=5))

    lane = lane_of(database, service)
    lane.settle(delivery(1, Tell(text="a"), command_version=2))
    lane.now += timedelta(minutes=5)
    swept = lane.lane.sweep(lane.channel_number)
    assert isinstance(swept, Settlement)
    assert [message_of(entry).command_version for entry in swept.emitted] == [2]


def test_a_letter_is_replayed_with_its_version(database: MemoryDatabase) -> None:
    lane = lane_of(database, new)
    assert codes(lane.outcomes(sent_old(1, "broken"), sent_new(2, "broken"))) == ["handler_error"] * 2
    settlement = lane.settle(*(delivery(9 + n, ReplayLetter(letter=n)) for n in (1, 2)))
    messages = [message_of(entry) for entry in settlement.emitted]
    assert [message.command_version for message in messages] == [None, 2]
    assert [json.loads(message.arguments) for message in messages] == [
        {"text": "broken", "is_urgent": False},
        {"title": "broken", "priority": 0},
    ]


def test_the_letter_of_an_effect_keeps_its_version() -> None:
    effect = CommandMessage(command_id(1), "t.call", b"{}", command_version=2)
    dead = dead_effect(effect, Defect("x", "y"))
    assert dead.effect_version == 2
    plain = dead_effect(msgspec.structs.replace(effect, command_version=None), Defect("x", "y"))
    assert b"effect_version" not in plain.arguments(), (
        "a lane of an earlier release takes no field that it does not know"
    )


# In tests of a service


def test_a_test_tries_older_arguments() -> None:
    lane = LaneInMemory(new)
    assert lane.apply(Older(AddNote, {"text": "a", "is_urgent": True}, version=1)).result(Note).priority == 9
    assert lane.apply(Older(AddNote, {"title": "b"}, version=2)).result(Note).title == "b"
    assert lane.apply(Older(AddNote, {"title": "b"}, version=1)).failed_with("upgrade_failed")
    assert lane.apply(Older(AddNote, {}, version=3)).failed_with("unknown_command_version")


@pytest.mark.authors
def test_a_simulation_has_older_commands() -> None:
    older = Older(AddNote, {"text": "a"}, version=1)
    simulate(new, [older, AddNote(title="b")], seeds=30)
    seen: list[int] = []

    def forgetful(arguments: dict[str, Any]) -> dict[str, Any]:
        seen.append(1)
        return {"title": f"{len(seen)}"}

    wrong = new.replace(upgrades=(Upgrade(AddNote, 1, forgetful),))
    with pytest.raises(SimulationFailed, match="is not always the same"):
        simulate(wrong, [older], seeds=30)
