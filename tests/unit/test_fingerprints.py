"""Fingerprints: what a handler could tell apart is never the same command, and one body sent twice always is."""

import hashlib
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import Command, Row, Service, UnitOfWork
from coordinator.client.writes import WriteOptions, message_of
from coordinator.lane.delivery import Suspension
from coordinator.lane.request import READ_FIRST_BYTES_MAX
from coordinator.protocol.decoding import decode
from coordinator.protocol.fingerprints import UNKEYED, Fingerprints, is_keyed
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Envelope, encode_pack
from coordinator.service.commands import parse
from coordinator.service.errors import InvalidCommand
from coordinator.service.upgrades import Upgrade, parse_sent
from coordinator.stores.fingerprint_keys import FingerprintKey, new_fingerprint_key
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.port import StoreUnavailable
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery

NUMBERS = (
    *("0", "-0", "0.0", "-0.0", "0e0", "1e2", "1E2", "1e+2", "100", "100.0", "100.00", "0.1", "0.10", "1e-1"),
    *("9007199254740992", "9007199254740993", "9007199254740992.0", "9007199254740993.0", "1e400", "1.0e-399"),
    *("0.30000000000000000001", "0.3", "123456789012345678901234567890", "123456789012345678901234567890.0"),
)


class Pay(Command, type="t.pay"):
    amount: Decimal
    rate: float = 0.0
    parts: tuple[Decimal, ...] = ()
    limit: Decimal | int | None = None
    note: Any = None


class PayNow(Command, type="t.pay", version=2):
    amount: Decimal
    rate: float = 0.0
    parts: tuple[Decimal, ...] = ()
    limit: Decimal | int | None = None
    note: Any = None
    is_urgent: bool = True


NOW = (Upgrade(PayNow, 1, lambda arguments: arguments),)


def message(arguments: str | bytes, command_type: str = "t.pay") -> CommandMessage:
    content = arguments if isinstance(arguments, bytes) else arguments.encode()
    return CommandMessage(command_id=command_id(1), type=command_type, arguments=content)


def seen(thing: object) -> object:
    """What a handler can tell of a value; the order of an object's names means nothing."""
    match thing:
        case msgspec.Struct():
            return type(thing).__name__, [(name, seen(getattr(thing, name))) for name in thing.__struct_fields__]
        case dict():
            return {key: seen(value) for key, value in thing.items()}
        case list() | tuple():
            return [seen(each) for each in thing]
        case _:
            return type(thing).__name__, repr(thing)


@pytest.mark.parametrize(("zero", "is_same"), [("0", True), ("0.0", False), ("-0.0", False), ("0e0", False)])
def test_an_integer_has_one_zero(zero: str, is_same: bool) -> None:
    """A handler gets the same of both; a Decimal keeps the sign of `-0.0`."""
    bodies = [f'{{"amount": {each}, "rate": {each}, "note": {each}}}' for each in ("-0", zero)]
    assert (UNKEYED.of(message(bodies[0])) == UNKEYED.of(message(bodies[1]))) is is_same
    first, second = (seen(parse(Pay, body.encode())) for body in bodies)
    assert not is_same or first == second


def objects(members: dict[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}: {value}" for name, value in members.items()) + "}"


numbers = st.one_of(
    st.sampled_from(NUMBERS),
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9).map(str),
)
texts = st.sampled_from(['"a"', '"\\u0061"', '"+0.1"', '"0.1"', "true", "null", '"1"'])
values = st.recursive(
    numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
        | st.dictionaries(st.sampled_from(["a", "b", "+1"]), inner, max_size=2).map(objects)
    ),
    max_leaves=4,
)


bodies = st.fixed_dictionaries(
    {"amount": numbers},
    optional={
        "rate": numbers,
        "parts": st.lists(numbers, max_size=2).map(lambda parts: f"[{','.join(parts)}]"),
        "limit": numbers,
        "note": values,
    },
).map(objects)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    """Two bodies, which often differ in the text of one number only."""
    first = draw(bodies)
    found = [number for number in NUMBERS if f" {number}" in first]
    if not found or draw(st.booleans()):
        return first, draw(bodies)
    return first, first.replace(f" {draw(st.sampled_from(found))}", f" {draw(st.sampled_from(NUMBERS))}", 1)


@given(pairs())
def test_bodies_that_a_handler_could_tell_apart_have_other_fingerprints(pair: tuple[str, str]) -> None:
    for read in (
        lambda body: parse(Pay, body),
        lambda body: parse_sent(PayNow, body, 1, NOW),
    ):
        try:
            first, second = (seen(read(body.encode())) for body in pair)
        except InvalidCommand:
            continue
        if first != second:
            assert UNKEYED.of(message(pair[0])) != UNKEYED.of(message(pair[1]))


@given(bodies, st.sampled_from([(",", ":"), (" ,\n", " :  ")]))
def test_one_body_sent_twice_is_one_command(body: str, spaces: tuple[str, str]) -> None:
    sent = message(body)
    fingerprint = UNKEYED.of(sent)
    members = json.loads(body, parse_float=Spelled, parse_int=Spelled)
    shuffled = message(written(dict(reversed(members.items())), *spaces))
    assert UNKEYED.of(shuffled) == fingerprint, "neither spaces nor the order of keys matter"
    (unpacked,) = decode(Envelope(content_type=PACK_CONTENT), encode_pack([sent]))
    assert UNKEYED.of(unpacked) == fingerprint, "in a pack"
    assert UNKEYED.is_same(fingerprint, sent)


class Spelled(str):
    """A number as it was spelled."""

    __slots__ = ()


def written(thing: object, comma: str, colon: str) -> str:
    match thing:
        case Spelled():
            return str(thing)
        case dict():
            return "{" + comma.join(f"{json.dumps(k)}{colon}{written(v, comma, colon)}" for k, v in thing.items()) + "}"
        case list():
            return "[" + comma.join(written(each, comma, colon) for each in thing) + "]"
        case _:
            return json.dumps(thing)


@given(pairs())
def test_a_client_and_a_gateway_issue_one_command_twice_alike_and_two_apart(pair: tuple[str, str]) -> None:
    """A gateway encodes the command that it has read, as `execute` encodes one that was built in code."""
    try:
        commands = [parse(Pay, body.encode()) for body in pair]
    except InvalidCommand:
        return
    issued = [UNKEYED.of(message_of(each, WriteOptions(parsed=each), "public")) for each in commands]
    built = [UNKEYED.of(message_of(each, WriteOptions(), "public")) for each in commands]
    again = [parse(Pay, body.encode()) for body in pair]
    assert issued == built == [UNKEYED.of(message_of(each, WriteOptions(parsed=each), "public")) for each in again]
    if seen(commands[0]) != seen(commands[1]):
        assert issued[0] != issued[1]


# What earlier releases kept


class Paid(Row, table="paid", key="id"):
    id: int
    amount: Decimal


def pay(work: UnitOfWork, command: Pay) -> None:
    work.add(Paid(id=work.next_id("paid"), amount=command.amount))


SERVICE = Service("t")
SERVICE.row(is_public=True)(Paid)
SERVICE.handles(Pay)(pay)


def earlier(sent: CommandMessage) -> str:
    """As releases computed it that took every number for a float."""
    digest = hashlib.blake2b(f"{sent.type}\n{sent.expected_version}\n".encode(), digest_size=16)
    digest.update(msgspec.json.encode(msgspec.json.decode(sent.arguments), order="deterministic"))
    return digest.hexdigest()


@pytest.mark.parametrize("number", NUMBERS)
def test_what_an_earlier_release_kept_is_the_command_that_it_was(number: str) -> None:
    sent = message(f'{{"id": "x", "amount": {number}}}')
    if number == "1e400":
        return  # which no float is: it kept a digest of the bytes
    assert UNKEYED.is_same(earlier(sent), sent)
    if not {*"e.E"} & {*number}:
        assert UNKEYED.of(sent) == earlier(sent), "most commands have no such number"


@given(bodies, bodies)
def test_what_this_release_keeps_is_never_taken_for_an_earlier_ones(first: str, second: str) -> None:
    mine, other = message(first), message(second)
    if UNKEYED.of(mine) != UNKEYED.of(other):
        assert not UNKEYED.is_same(UNKEYED.of(mine), other)


def test_a_lane_tells_two_amounts_under_one_id_apart_and_knows_what_was_logged_before() -> None:
    database = MemoryDatabase()
    lane = LaneUnderTest(MemoryStore(database), "test", SERVICE)
    lane.outcomes(delivery(1, b'{"amount": 0.10}', command_type="t.pay"))
    again = lane.outcomes(
        delivery(1, b'{"amount": 0.1}', command_type="t.pay", redelivered=True),
        delivery(1, b'{ "amount":0.10 }', command_type="t.pay", redelivered=True),
    )
    assert codes(again) == ["idempotency_mismatch", "applied"]
    (entry,) = database.rows(LogEntry)
    kept = message(b'{"amount": 0.10}')
    database.tables[LogEntry][entry.command_id] = msgspec.structs.replace(entry, fingerprint=earlier(kept))
    later = LaneUnderTest(MemoryStore(database), "later", SERVICE)
    (outcome,) = later.outcomes(delivery(1, b'{"amount": 0.10}', command_type="t.pay", redelivered=True))
    assert (outcome.status, outcome.replayed) == ("applied", True)
    assert len(database.rows(Paid)) == 1


@pytest.mark.parametrize("twice", [b'{"amount": 5, "amount": 1}', b'{"amount": 1, "\\u0061mount": 1}'])
@pytest.mark.parametrize("is_keyed_lane", [True, False])
def test_arguments_that_name_one_twice_are_those_of_no_other_command(twice: bytes, is_keyed_lane: bool) -> None:
    """They are refused: they are not told to be applied by the id of what was, nor is that refused by theirs."""
    database, once = MemoryDatabase(), b'{"amount": 1}'
    if is_keyed_lane:
        database.tables[FingerprintKey][1] = new_fingerprint_key(1)
    lane = LaneUnderTest(MemoryStore(database), "test", SERVICE)
    sent = ((1, once), (1, twice), (2, twice), (2, once), (2, twice), (3, b'{"b":1,"b":2}'), (3, b'{"b":2}'))
    outcomes = lane.outcomes(*(delivery(number, body, command_type="t.pay") for number, body in sent))
    mismatch, malformed = "idempotency_mismatch", "malformed_json"
    assert codes(outcomes) == ["applied", mismatch, malformed, mismatch, malformed, "invalid_arguments", mismatch]


def test_a_lane_makes_fingerprints_with_its_newest_key_and_knows_what_it_logged_before() -> None:
    """The log has no arguments: whoever reads it must not prove by a fingerprint what he guesses of them."""
    database, content, ids = MemoryDatabase(), b'{"amount": 0.10}', [1, 2, 3]
    for number in ids:
        if number > 1:
            key = new_fingerprint_key(number)
            database.tables[FingerprintKey][key.id] = key
        lane = LaneUnderTest(MemoryStore(database), f"process {number}", SERVICE)
        lane.outcomes(delivery(number, content, command_type="t.pay"))
        known = ids[:number]
        again = lane.outcomes(*(delivery(each, content, command_type="t.pay", redelivered=True) for each in known))
        assert [outcome.replayed for outcome in again] == [True] * number
        other = lane.outcomes(*(delivery(each, b'{"amount": 7}', command_type="t.pay") for each in known))
        assert codes(other) == ["idempotency_mismatch"] * number
    prints = [entry.fingerprint for entry in sorted(database.rows(LogEntry), key=lambda entry: entry.sequence)]
    assert [is_keyed(each) for each in prints] == [False, True, True]
    assert len({each[:8] for each in prints}) == 3
    keyed, other_key = Fingerprints({2: "ab" * 32}), Fingerprints({2: "cd" * 32})
    assert keyed.is_same(keyed.of(message(content)), message(b'{"amount":0.10}'))
    assert not other_key.is_same(keyed.of(message(content)), message(content)), "it takes the key"
    assert not UNKEYED.is_same(keyed.of(message(content)), message(content))


def test_large_arguments_that_were_refused_are_known_once_the_lane_has_another_key() -> None:
    database, content = MemoryDatabase(), b'{"amount": "no", "note": "%s"}' % (b"x" * READ_FIRST_BYTES_MAX)
    sent = delivery(1, content, command_type="t.pay", redelivered=True, origin="public")
    for number in (1, 2):
        database.tables[FingerprintKey][number] = new_fingerprint_key(number)
        lane = LaneUnderTest(MemoryStore(database), f"process {number}", SERVICE)
        (outcome,) = lane.outcomes(sent)
        assert (codes([outcome]), outcome.replayed) == (["invalid_arguments"], number > 1)
    other = delivery(1, content.replace(b"no", b"on"), command_type="t.pay", redelivered=True, origin="public")
    assert codes(lane.outcomes(other)) == ["idempotency_mismatch"]


def test_a_command_is_not_logged_with_a_key_that_was_lost_with_a_copy_of_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database, content = MemoryDatabase(), b'{"amount": 1}'
    database.tables[FingerprintKey][1] = new_fingerprint_key(1)
    lane = LaneUnderTest(MemoryStore(database), "test", SERVICE)
    with monkeypatch.context() as patched:

        def fail_over(*_: object) -> None:
            database.tables[FingerprintKey][1] = new_fingerprint_key(1)
            raise StoreUnavailable("its copy takes over")

        patched.setattr(type(lane.store.begin()), "commit", fail_over)
        decision = lane.lane.apply([delivery(1, content, command_type="t.pay")], lane.channel_number)
        assert isinstance(decision, Suspension)
    lane.outcomes(delivery(1, content, command_type="t.pay"))
    (entry,), (key,) = database.rows(LogEntry), database.rows(FingerprintKey)
    assert Fingerprints({1: key.secret}).is_same(entry.fingerprint, message(content))
