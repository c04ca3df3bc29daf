"""Dead letters and outboxes as an operator sees and mends them: the real lane on SQLite, and no broker."""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from click.testing import CliRunner, Result

from coordinator.cli import cli
from coordinator.lane.control import DeadEffect, DiscardLetter, ReplayLetter
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.lane.outbox import message_of as message_of_emitted
from coordinator.migrations.migrate import migrate
from coordinator.operate import giving_orders
from coordinator.operate.giving_orders import ORDERS_AT_ONCE, message_of
from coordinator.operate.open import lane_admin
from coordinator.operate.output import as_user
from coordinator.operate.selected_letters import SHOWN_CHARACTERS_MAX
from coordinator.operations.letters import replay_letters, whole_letter
from coordinator.protocol.decoding import decode
from coordinator.protocol.wire import CommandMessage, Defect
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings, LaneSettings
from coordinator.service.errors import BrokerUnavailable, CommandPending
from coordinator.service.ids import is_system_id, replay_command_id, system_command_id
from coordinator.service.outcome import Outcome
from coordinator.service.principal import Principal, UnbelievedAccount
from coordinator.service.service import Service
from coordinator.service.unit_of_work import UnitOfWork
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.open import open_store
from coordinator.stores.port import Changes, Store
from coordinator.transports.rabbitmq.emitted import properties_of
from coordinator.transports.rabbitmq.properties import envelope_of
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE
from shared.users.commands import CreditUser

START = datetime(2026, 1, 1, tzinfo=UTC)
GHOSTS = ("users.ghost", "users.spirit")
CASHIER = Principal(subject="cas@x.org", scopes=frozenset({"cashier"}))


class Killed(BaseException):
    """The operator's process ends here."""


class World:
    """One lane, its database, and what is published to it. Implements what the operator's commands use of `Writes`."""

    def __init__(self, url: str, lane: str = "users") -> None:
        self.environment = {f"{lane.upper()}_DATABASE_URL": url}
        self._url = url
        self._name = lane
        self.now = START
        self._tag = 0
        self.emitted: list[OutboxEntry] = []
        self.delivered: list[CommandMessage] = []
        self.queue: list[Delivery] = []
        self.is_up = True
        self.kills_after: int | None = None
        self._stores: list[Store] = []
        self.start(registry().service(lane))

    def start(self, service: Service) -> None:
        """A release of the lane, in place of the one before."""
        self._stores.append(open_store(self._url, service))
        self.lane = Lane(service, self._stores[-1], lambda: self.now, "test", LaneSettings(), lambda: 0.0)

    @property
    def secret(self) -> bytes:
        """That of the lane's fingerprint key in use."""
        transaction = self._stores[-1].begin()
        secret = transaction.scan(FingerprintKey, 10)[-1].secret
        transaction.rollback()
        return bytes.fromhex(secret)

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def deliver(self, *messages: CommandMessage) -> list[Outcome]:
        """What the lane says of a message, if it is there to say anything."""
        self._tag += 1
        self.delivered += messages
        self.queue.append(Delivery(tag=self._tag, commands=messages, reply_to="here"))
        return self.work() if self.is_up else []

    def work(self) -> list[Outcome]:
        """Apply what waits."""
        batch, self.queue = self.queue, []
        settlement = self.lane.apply(batch)
        assert isinstance(settlement, Settlement)
        self.emitted += settlement.emitted
        return settlement.outcomes

    def sent(self, carried: Callable[[OutboxEntry], CommandMessage] = message_of_emitted) -> list[Outcome]:
        """Deliver what the lane has emitted to itself, as the broker would."""
        emitted, self.emitted = self.emitted, []
        messages = [carried(entry) for entry in emitted]
        outcomes = self.deliver(*messages) if messages else []
        self.lane.confirm(emitted)
        return outcomes

    def bury(self, **fields: Any) -> CommandMessage:
        """A letter of a command that this lane does not know."""
        known = {"command_id": str(uuid4()), "type": GHOSTS[0], "arguments": b"{}"}
        message = CommandMessage(**known | fields)
        self.now += timedelta(seconds=1)
        self.deliver(message)
        return message

    async def issue(self, lane: str, message: CommandMessage, wait_s: float) -> Outcome:
        assert (lane, message.origin, is_system_id(message.command_id or "")) == (self._name, "system", True)
        outcomes = self.deliver(message)
        if self.kills_after is not None:
            self.kills_after -= 1
            if self.kills_after == 0:
                raise Killed
        if not outcomes:
            raise CommandPending(message.command_id or "")
        return outcomes[0]

    def run(self, *arguments: object, expect: int = 0) -> Result:
        ran = CliRunner().invoke(cli, list(map(str, arguments)), env=self.environment)
        assert ran.exit_code == expect, (ran.exit_code, ran.stdout, ran.stderr, ran.exception)
        return ran

    def json(self, *arguments: object, expect: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", expect=expect).stdout)

    def numbers(self, *options: object) -> list[int]:
        return [letter["letter"] for letter in self.json("dead", "list", "users", *options)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world_of("users", tmp_path, monkeypatch) as world:
        yield world


@contextmanager
def world_of(lane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """One lane of the reference system's."""
    url = f"sqlite:///{tmp_path}/{lane}.db"
    migrate(registry().service(lane), DatabaseSettings(database_url=url))
    world = World(url, lane)

    @asynccontextmanager
    async def writes(_: str, __: int) -> AsyncIterator[World]:
        yield world

    monkeypatch.setattr(giving_orders, "_writes", writes)
    monkeypatch.setattr(giving_orders, "_require_queue", lambda _: None)
    yield world
    world.close()


def test_letters_are_found_by_what_they_are(world: World) -> None:
    first = world.bury(arguments=b'{"name": "na\\u00efve"}')
    world.bury(type=GHOSTS[1], origin="system")
    world.bury(command_id=None, defect=Defect("missing_command_id", "no id"), arguments=b"%_\\naked\xff")
    world.bury(command_id=None, defect=Defect("missing_command_id", "no id"), arguments=b"%_\\naked\xff")
    world.bury(type="users.credit", arguments=b'{"id": 0}')
    assert world.numbers() == [1, 2, 3, 4]
    for options, expected in (
        (("--type", GHOSTS[1]), [2]),
        (("--type", "users.GHOST"), []),
        (("--code", "unknown_command_type"), [1, 2]),
        (("--code", "missing_command_id"), [3]),
        (("--origin", "system"), [2]),
        (("--origin", "public", "--code", "unknown_command_type"), [1]),
        (("--contains", "na\\u00efve"), [1]),
        (("--contains", "\\naked"), [3]),
        (("--contains", "NAKED"), []),
        (("--contains", "%_"), [3]),
        (("--contains", "_%"), []),
        (("--command", str(first.command_id).upper()), [1]),
        (("--since", "2026-01-01T00:00:02Z", "--until", "2026-01-01T00:00:05Z"), [2, 3]),
        (("--until", "2026-01-01T00:00:01Z"), []),
        (("--until", "30s"), [1, 2, 3, 4]),
        (("--since", "1s"), []),
    ):
        assert world.numbers(*options) == expected, options
    [nameless] = world.json("dead", "list", "users", "--code", "missing_command_id")
    assert (nameless["copies"], nameless["command_id"], nameless["size_bytes"]) == (2, None, 9)


def test_a_list_has_pages_and_says_that_there_are_more(world: World) -> None:
    for _ in range(5):
        world.bury()
    ran = world.run("dead", "list", "users", "--limit", 2)
    assert len(ran.stdout.splitlines()) == 3
    assert ran.stderr == "there are more: coordinator dead list users --after 2\n"
    assert world.numbers("--after", 2, "--limit", 3) == [3, 4, 5]
    assert world.run("dead", "list", "users", "--after", 2, "--limit", 3).stderr == ""


HOSTILE = {
    "an escape": b'{"a": "\\u001b[2J"}',
    "raw controls": b'\x1b]0;owned\x07 {"a"',
    "a C1 control": b'{"a": "\xc2\x9b31m"}',
    "a change of direction": b'{"a": "\xe2\x80\xae"}',
    "not UTF-8": b"\xff\xfe{}",
    "half a pair": b'{"a": "\\ud800"}',
    "lines": b'{\n"a":\r\n1}',
    "too deep": b"[" * 5000 + b"]" * 5000,
    "huge": b'{"a": "' + b"x" * 300_000 + b'"}',
    "larger than is kept": b'{"a": "' + b"x" * (1 << 20) + b'"}',
    "nothing": b"",
    "a number beyond all": b'{"a": 1e999}',
}


def test_a_letter_says_who_asked_for_its_command(world: World) -> None:
    world.bury(actor=Principal(subject="ada", tenant="north"))
    out = world.run("dead", "show", "--letter", 1, "--lane", "users").stdout
    assert '"subject":"ada"' in out
    assert '"tenant":"north"' in out


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("is_named", [True, False])
def test_any_letter_can_be_shown_and_says_nothing_to_the_terminal(world: World, body: bytes, is_named: bool) -> None:
    defect = Defect("invalid_header", f"bad \x1b[2J {body[:20]!r} \x9b")
    world.bury(arguments=body, defect=defect, **({} if is_named else {"command_id": None}))
    for command in (("dead", "list", "users"), ("dead", "show", "--letter", 1, "--lane", "users")):
        for form in ((), ("--json",)):
            out = world.run(*command, *form).stdout
            assert all(line.isprintable() for line in out.split("\n"))
            assert form or len(out) < 2 * SHOWN_CHARACTERS_MAX + 4000
    [shown] = world.json("dead", "show", "--letter", 1, "--lane", "users")
    assert (shown["size_bytes"], shown["code"], shown["copies"]) == (len(body), "invalid_header", 1)
    if shown["arguments"] is None:
        assert shown["text"].encode() == body[: shown["kept_bytes"]] or "\\x" in shown["text"]
    else:
        assert shown["arguments"] == json.loads(body)
    assert world.json("dead", "discard", "--letter", 1, "--lane", "users")[0]["status"] == "applied"
    assert world.numbers() == []


def test_a_command_of_which_a_saga_was_told_is_replayed_only_where_that_is_meant(world: World) -> None:
    message = world.bury(arguments=b'{"id": 1}', type="users.credit", continuation="users.purchase_step")
    words = ("dead", "replay", message.command_id, "--args", '{"id": 7, "amount": 3}')
    assert "was told that it failed" in world.run(*words, expect=1).stderr
    assert world.numbers() == [1]
    assert world.json("dead", "show", message.command_id)[0]["told"] == "users.purchase_step"
    [replayed] = world.json(*words, "--alone")
    assert replayed["status"] == "applied"


def test_a_page_replays_such_a_letter_only_where_that_is_meant(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    world.bury(arguments=b'{"id": 1}', type="users.credit", continuation="users.purchase_step")
    with lane_admin("users") as admin:
        shown = whole_letter(admin, "users", 1, with_content=False)
    assert shown is not None
    assert shown.told == "users.purchase_step"
    arguments = b'{"id": 7, "amount": 3}'
    [refused] = replay_letters("users", [1], "ada", "mended", 1.0, arguments)
    assert refused.error is not None
    assert refused.error.code == "already_told"
    [replayed] = replay_letters("users", [1], "ada", "mended", 1.0, arguments, alone=True)
    assert replayed.status == "applied"


@pytest.mark.parametrize("words", [["replay", "--args", '{"id": 7, "amount": 3}'], ["discard"]])
def test_the_status_says_that_the_letter_of_the_last_failure_is_gone(world: World, words: list[str]) -> None:
    world.bury(arguments=b'{"id": 1}', type="users.credit")

    def failed() -> dict[str, Any] | None:
        (status,) = world.json("status", "users", "--sample-s", 0, expect=1)
        found: dict[str, Any] | None = status["last_failed"]
        return found

    found = failed()
    assert found is not None
    assert found["letter"] == 1
    gone = "(its dead letter is gone: replayed, or discarded)"
    assert gone not in world.run("status", "users", "--sample-s", 0, expect=1).stdout
    world.run("dead", words[0], "--lane", "users", "--letter", 1, *words[1:])
    assert failed() == found | {"letter": None, "message": (failed() or {})["message"]}
    assert gone in world.run("status", "users", "--sample-s", 0, expect=1).stdout


def test_a_replay_is_sent_once_under_a_derived_id_and_the_log_says_who_ordered_it(world: World) -> None:
    message = world.bury(arguments=b'{"id": 1}', type="users.credit")
    [replayed] = world.json("dead", "replay", message.command_id, "--args", '{"id": 7, "amount": 3}')
    assert replayed["replayed_as"] == replay_command_id(message.command_id or "")
    assert (replayed["lane"], replayed["letter"], replayed["status"]) == ("users", 1, "applied")
    [entry] = world.emitted
    assert (entry.command_id, entry.arguments) == (replayed["replayed_as"], b'{"id": 7, "amount": 3}')
    order = ReplayLetter(letter=1, args=msgspec.Raw(b'{"id": 7, "amount": 3}'), by=replayed["by"])
    logged = world.json("command", message_of("users", order, 0, world.secret).command_id)
    assert (logged["type"], logged["result"]["by"]) == ("lane.replay", replayed["by"])
    assert "@" in replayed["by"]
    again = world.run("dead", "replay", message.command_id, "--lane", "users", expect=1)
    ended = f"; users: letter 1 was replayed as {replayed['replayed_as']} at "
    assert f"no dead letter of command {message.command_id} in users{ended}" in again.stderr
    assert again.stderr.endswith(f" by {replayed['by']}\n")
    again = world.run("dead", "discard", "--letter", 1, "--lane", "users", expect=1)
    assert f"there is no dead letter 1 of users{ended}" in again.stderr


def test_who_asks_for_a_letter_that_was_discarded_is_told_so(world: World) -> None:
    world.bury(type="users.credit", arguments=b"[]")
    world.run("dead", "discard", "--letter", 1, "--lane", "users")
    asked = world.run("dead", "show", "--letter", 1, "--lane", "users", expect=1)
    assert "there is no dead letter 1 of users; users: letter 1 was discarded at " in asked.stderr
    asked = world.run("dead", "show", "--letter", 2, "--lane", "users", expect=1)
    assert asked.stderr == "coordinator: there is no dead letter 2 of users\n"


@pytest.mark.parametrize("is_up", [True, False], ids=["the lane is up", "the lane is down"])
@pytest.mark.parametrize("kills_after", [1, 2, 3])
def test_an_operator_that_dies_half_way_may_ask_again(world: World, is_up: bool, kills_after: int) -> None:
    ids = [world.bury(type="users.credit", arguments=b"[]").command_id or "" for _ in range(3)]
    world.is_up, world.kills_after = is_up, kills_after
    with pytest.raises(Killed):
        CliRunner().invoke(
            cli, ["dead", "discard", "--all", "--lane", "users"], env=world.environment, catch_exceptions=False
        )
    world.kills_after = None
    again = world.json("dead", "discard", "--all", "--lane", "users", expect=0 if is_up else 3)
    assert {each["status"] for each in again} <= {"applied" if is_up else "pending"}
    world.is_up = True
    outcomes = world.work() if world.queue else []
    assert {outcome.status for outcome in outcomes} <= {"applied"}
    assert world.numbers() == []
    assert all(
        len(world.json("command", order_id(world, number))["result"]["command_id"]) == len(ids[0])
        for number in (1, 2, 3)
    )


def order_id(world: World, number: int) -> str:
    return message_of("users", DiscardLetter(letter=number, by=as_user()), 0, world.secret).command_id or ""


@pytest.mark.parametrize("is_keyed", [True, False])
def test_the_id_of_an_order_proves_no_guess_at_what_it_holds(world: World, *, is_keyed: bool) -> None:
    """It is shown to viewers, as the ids of all commands are. In a lane without a key it is made without."""
    if not is_keyed:
        with closing(sqlite3.connect(world.environment["USERS_DATABASE_URL"].removeprefix("sqlite:///"))) as database:
            database.execute("DELETE FROM fingerprint_keys")
            database.commit()
    message = world.bury(arguments=b'{"id": 1}', type="users.credit")
    [replayed] = world.json("dead", "replay", message.command_id, "--args", '{"id": 7, "amount": 3}')
    order = ReplayLetter(letter=1, args=msgspec.Raw(b'{"id": 7, "amount": 3}'), by=replayed["by"])
    [shown] = [each.command_id for each in world.delivered if each.type == ReplayLetter.type]
    made_before = system_command_id("order", "users", order.type, "0", order.arguments().decode())
    assert shown != made_before
    assert (shown == message_of("users", order, 0, b"").command_id) is not is_keyed


def test_what_is_not_done_in_time_is_said_and_done_later_once(world: World) -> None:
    world.bury(type="users.credit", arguments=b'{"id": 0, "amount": 1}')
    world.is_up = False
    for _ in range(2):
        ran = world.run("dead", "replay", "--letter", 1, "--lane", "users", "--wait", 0, *AMOUNT, expect=3)
        assert "1 not done within 0 s: the orders are confirmed" in ran.stderr
    world.is_up = True
    assert [outcome.status for outcome in world.work()] == ["applied", "applied"]
    assert len(world.emitted) == 1


def with_ghosts() -> Service:
    """A release that knows them."""
    users = registry().service("users")
    credit = next(handler for handler in users.handlers if handler.command.type == "users.credit")

    class Ghost(credit.command, frozen=True, kw_only=True):  # type: ignore[misc, name-defined, call-arg]
        type = GHOSTS[0]

    return users.replace(handlers=(*users.handlers, msgspec.structs.replace(credit, command=Ghost)))


def test_what_was_refused_can_be_asked_again_once_the_reason_is_gone(world: World) -> None:
    ghost = world.bury()
    for _ in range(2):
        ran = world.run("dead", "replay", ghost.command_id, *AMOUNT, expect=1)
        assert f"users: letter 1 (command {ghost.command_id}) stays: not_replayable" in ran.stderr
    assert world.numbers() == [1]
    world.start(with_ghosts())
    world.run("dead", "replay", ghost.command_id, *AMOUNT)
    assert [entry.type for entry in world.emitted] == [GHOSTS[0]]
    assert world.numbers() == []


AMOUNT = ("--args", '{"id": 1, "amount": 1}')


def through_rabbitmq(entry: OutboxEntry) -> CommandMessage:
    [message] = decode(envelope_of(properties_of(entry), SYSTEM_EXCHANGE), entry.arguments)
    return message


@pytest.mark.parametrize("carried", [message_of_emitted, through_rabbitmq])
def test_what_is_sent_once_more_is_worth_no_more_than_it_was(
    world: World, carried: Callable[[OutboxEntry], CommandMessage]
) -> None:
    """A letter of an account that the lane does not believe, whose scopes would do if it asked for itself."""
    unbelieved = UnbelievedAccount(subject="amqp:gateway", scopes=CASHIER.scopes)
    believed = Principal(subject="amqp:cashiers", scopes=CASHIER.scopes)
    letters = [
        world.bury(actor=actor, is_strangers=True, arguments=AMOUNT[1].encode()) for actor in (unbelieved, believed)
    ]
    [shown] = world.json("dead", "show", "--letter", 1, "--lane", "users")
    assert shown["options"]["sender"] == "stranger unbelieved"
    world.start(with_ghosts())
    for letter in letters:
        world.run("dead", "replay", letter.command_id)
    came = [carried(entry) for entry in world.emitted]
    assert [(type(each.actor), each.is_strangers, each.origin) for each in came] == [
        (UnbelievedAccount, True, "public"),
        (Principal, True, "public"),
    ]
    refused, asked = (outcome.error for outcome in world.sent(carried))
    assert refused is not None
    assert asked is not None
    assert (refused.code, asked.code) == ("forbidden", "user_not_found")
    assert "LANE_GATEWAY_ACCOUNTS" in refused.message


def test_a_strangers_command_that_an_operator_makes_the_systems_is_no_strangers(world: World) -> None:
    letter = world.bury(actor=UnbelievedAccount(subject="amqp:gateway"), is_strangers=True)
    world.start(with_ghosts())
    world.run("dead", "replay", letter.command_id, *AMOUNT, "--as-system")
    for came in (message_of_emitted(world.emitted[0]), through_rabbitmq(world.emitted[0])):
        assert (came.origin, came.is_strangers, came.actor) == ("system", False, Principal(subject="amqp:gateway"))


def test_a_replay_that_fails_again_is_another_letter(world: World) -> None:
    ghost = world.bury()
    for number in (1, 2):
        world.start(with_ghosts())
        [replayed] = world.json("dead", "replay", "--letter", number, "--lane", "users", *AMOUNT)
        world.start(registry().service("users"))
        # A lane that starts finds it in the outbox, and sends it as well.
        assert {outcome.status for outcome in world.sent()} == {"failed"}
        [letter] = world.json("dead", "list", "users")
        assert (letter["letter"], letter["command_id"]) == (number + 1, replayed["replayed_as"])
    assert replayed["replayed_as"] == replay_command_id(replay_command_id(ghost.command_id or ""))


def test_a_mismatch_of_the_systems_own_is_mended_by_its_number(world: World) -> None:
    """Two letters have the id of one command: the number tells them apart, and each is sent under an id of its own."""
    known = world.bury(origin="system")
    for amount in (1, 2):
        world.bury(
            command_id=known.command_id,
            type="users.credit",
            arguments=b'{"id": 1, "amount": %d}' % amount,
            origin="system",
        )
    letters = world.json("dead", "list", "users", "--code", "idempotency_mismatch")
    assert [letter["command_id"] for letter in letters] == [known.command_id] * 2
    replayed = [
        world.json("dead", "replay", "--letter", letter["letter"], "--lane", "users")[0]["replayed_as"]
        for letter in letters
    ]
    assert len({*replayed, known.command_id, replay_command_id(known.command_id or "")}) == 4
    assert [entry.command_id for entry in world.emitted] == replayed
    assert [outcome.status for outcome in world.sent()] == ["rejected", "rejected"]
    assert world.numbers() == [1]


def test_a_letter_without_an_id_is_replayed_with_new_arguments_and_gets_one(world: World) -> None:
    defect = Defect("missing_command_id", "no id")
    world.bury(command_id=None, type="users.credit", arguments=b"x" * 100_000, defect=defect)
    cut = world.run("dead", "replay", "--letter", 1, "--lane", "users", expect=1)
    assert "give its arguments again" in cut.stderr
    [replayed] = world.json("dead", "replay", "--letter", 1, "--lane", "users", "--args", '{"id": 1, "amount": 1}')
    assert is_system_id(replayed["replayed_as"])
    assert replayed["command_id"] is None
    assert [outcome.status for outcome in world.sent()] == ["rejected"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("[1]", "must be a JSON object"),
        ("{", "must be a JSON object"),
        ('"x"', "must be a JSON object"),
        ('{"a": "\udcff"}', "must be a JSON object"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested deeper"),
        ('{"a": "' + "x" * (1 << 20) + '"}', "bytes"),
        ('{"a": 1, "a": 2}', "'a'"),
    ],
)
def test_arguments_are_checked_before_anything_is_ordered(world: World, arguments: str, why: str) -> None:
    world.bury()
    ran = world.run("dead", "replay", "--letter", 1, "--lane", "users", "--args", arguments, expect=2)
    assert why in ran.stderr
    assert world.numbers() == [1]


def test_new_arguments_are_for_one_letter_only(world: World) -> None:
    world.bury()
    world.bury()
    assert "2 are meant" in world.run("dead", "replay", "--all", "--lane", "users", "--args", "{}", expect=1).stderr


def test_a_strangers_command_is_lifted_only_on_purpose(world: World) -> None:
    message = world.bury(type="users.continue_purchase", arguments=CONTINUATION, origin="public")
    [letter] = world.json("dead", "list", "users")
    assert (letter["code"], letter["origin"]) == ("forbidden_command_type", "public")
    assert "forbidden_command_type" in world.run("dead", "replay", message.command_id, expect=1).stderr
    world.run("dead", "replay", message.command_id, "--as-system")
    assert len(world.emitted) == 1


def test_an_effect_that_came_by_the_way_of_strangers_is_lifted_only_on_purpose(world: World) -> None:
    """It may be what the release before left in its queue, or use the id of an effect of ours: that letter stays."""
    effect = str(uuid4())
    dead = DeadEffect(command_id=effect, effect_type="users.effects.mail", body="{}", code="x", reason="x")
    strange = msgspec.structs.replace(dead, body='{"to": "me"}', code="not_from_system", origin="public")
    nameless = msgspec.structs.replace(dead, command_id=None, effect_type=None)
    for each in (dead, strange, nameless):
        world.deliver(
            CommandMessage(command_id=str(uuid4()), type=each.type, arguments=each.arguments(), origin="system")
        )
    letters = world.json("dead", "list", "users")
    assert [(each["origin"], each["command_id"], each["code"]) for each in letters] == [
        ("system", effect, "x"),
        ("public", effect, "not_from_system"),
        ("system", None, "x"),
    ]

    def replay(number: int, *options: str, expect: int = 0) -> Result:
        return world.run("dead", "replay", "--letter", number, "--lane", "users", *options, expect=expect)

    assert "forbidden_command_type" in replay(2, expect=1).stderr
    assert "not_replayable" in replay(3, "--as-system", expect=1).stderr
    replay(1)
    replay(2, "--as-system")
    assert [(each.lane, each.command_id, each.arguments) for each in world.emitted] == [
        ("effects.users", effect, b"{}"),
        ("effects.users", effect, b'{"to": "me"}'),
    ]
    assert world.numbers() == [3]


CONTINUATION = json.dumps(
    {
        "command_id": str(uuid4()),
        "command_type": "items.quote",
        "status": "failed",
        "result": None,
        "error": {"code": "x", "message": "x"},
    }
).encode()


def test_a_deadline_that_is_over_is_lifted_only_on_purpose(world: World) -> None:
    message = world.bury(type="users.credit", arguments=b'{"id": 1}', deadline_ms=2**40)
    world.now = datetime(2040, 1, 1, tzinfo=UTC)
    assert "deadline_over" in world.run("dead", "replay", message.command_id, *AMOUNT, expect=1).stderr
    world.run("dead", "replay", message.command_id, *AMOUNT, "--without-deadline")
    assert len(world.emitted) == 1


def test_all_that_are_meant_are_taken_and_no_others(world: World) -> None:
    count = 2 * ORDERS_AT_ONCE + 50
    world.deliver(
        *(CommandMessage(command_id=str(uuid4()), type="users.credit", arguments=b"{}") for _ in range(count))
    )
    world.deliver(*(CommandMessage(command_id=str(uuid4()), type=GHOSTS[0], arguments=b"{}") for _ in range(30)))
    dry = world.run("dead", "discard", "--all", "--lane", "users", "--type", "users.credit", "--dry-run")
    assert len(dry.stdout.splitlines()) == count
    assert dry.stdout.splitlines()[0].endswith("of type users.credit is meant: its lane would be told to discard it")
    gone = world.json("dead", "discard", "--all", "--lane", "users", "--type", "users.credit")
    assert (len(gone), {each["status"] for each in gone}) == (count, {"applied"})
    assert [each["arguments"] for each in gone[:2]] == [{}, {}]
    assert len(world.numbers("--limit", 1000)) == 30
    refused = world.json("dead", "replay", "--all", "--lane", "users", expect=1)
    assert {(each["status"], each["error"]["code"]) for each in refused} == {("rejected", "not_replayable")}
    assert len(world.numbers()) == 30


@pytest.mark.parametrize("what", ["replay", "discard"])
def test_where_no_letter_is_meant_that_is_said(world: World, what: str) -> None:
    assert world.run("dead", what, "--all", "--lane", "users").stderr == "no dead letter is meant\n"


def test_a_broker_that_goes_away_half_way_leaves_what_was_done_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        world.bury()
    issue = World.issue

    async def away(self: World, lane: str, message: CommandMessage, wait_s: float) -> Outcome:
        if b'"letter":2' in message.arguments:
            raise BrokerUnavailable("RabbitMQ cannot be reached")
        return await issue(self, lane, message, wait_s)

    monkeypatch.setattr(World, "issue", away)
    ran = world.run("dead", "discard", "--all", "--lane", "users", expect=1)
    assert "RabbitMQ cannot be reached" in ran.stderr
    assert [number for number in (1, 2, 3) if f"letter {number} (" in ran.stdout] == [1, 3]
    assert world.numbers() == [2]


def test_a_lane_that_is_away_is_named_and_the_others_are_shown(world: World, tmp_path: Path) -> None:
    world.bury()
    world.environment["ITEMS_DATABASE_URL"] = f"sqlite:///{tmp_path}/nowhere/items.db"
    ran = world.run("dead", "list", expect=2)
    assert "users.ghost" in ran.stdout
    assert "ITEMS_DATABASE_URL: there is no file" in ran.stderr
    assert "PAYMENTS_DATABASE_URL" in ran.stderr
    assert "not looked into" in world.run("dead", "show", uuid4(), expect=2).stderr


def fill_outbox(world: World, **counts: int) -> None:
    """What a lane emitted whose targets take nothing."""
    work: list[OutboxEntry] = []
    for target, count in counts.items():
        work += [
            OutboxEntry(
                id=len(work) + number + 1,
                lane=target.replace("_", "."),
                command_id=str(uuid4()),
                type=f"{target}.note",
                arguments=b"{}",
                created_at=START,
            )
            for number in range(count)
        ]
    users = registry().service("users")
    store = open_store(world.environment["USERS_DATABASE_URL"], users)
    lease = store.take_over("test", START)
    store.begin().commit(lease, 0, Changes([], [], [work]))
    store.close()
    world.start(users)


def park_a_key(world: World, *, waiting: int, continuation: str | None = None) -> tuple[str, list[str]]:
    """A credit fails under `park-key`, and others of the same user wait behind it: its id, and theirs. `continuation`
    is told that it failed."""
    users = registry().service("users")

    def fail(work: UnitOfWork, command: CreditUser) -> None:
        raise RuntimeError("this release has a defect")

    handlers = [
        msgspec.structs.replace(handler, handle=fail, on_failure="park-key")
        if handler.command is CreditUser
        else handler
        for handler in users.handlers
    ]
    world.start(users.replace(handlers=tuple(handlers)))
    failed, *others = [
        world.bury(
            type=CreditUser.type,
            arguments=b'{"id": 1, "amount": 5}',
            actor=CASHIER,
            origin="system" if continuation else "public",
            continuation=None if number else continuation,
        ).command_id
        or ""
        for number in range(waiting + 1)
    ]
    world.start(users)
    return failed, others


def test_a_key_is_released_and_its_commands_go_on(world: World) -> None:
    failed, waiting = park_a_key(world, waiting=2)
    [key] = world.json("parked", "users")
    assert (key["failed_id"], key["waiting"]) == (failed, waiting)
    advice = world.run("command", waiting[0], "--lane", "users", expect=1).stderr
    assert "coordinator release users 'users.id=1'" in advice
    name = key["ordering_key"]
    assert "no command of users waits for 'users.id=2'" in world.run("release", "users", "users.id=2", expect=1).stderr
    world.is_up = False
    assert "1 not done within 0 s" in world.run("release", "users", name, "--wait", 0, expect=3).stderr
    world.is_up = True
    assert world.run("release", "users", name).stdout == f"users: {name} is released; 2 commands waited for it\n"
    world.work()
    assert world.json("parked", "users") == []
    assert [world.json("command", each, "--lane", "users")["status"] for each in waiting] == ["rejected", "rejected"]
    assert world.json("command", failed, "--lane", "users")["status"] == "failed"
    assert world.numbers() == [1]


def test_a_replay_under_way_is_withdrawn_once_its_key_is_released(world: World) -> None:
    failed, _ = park_a_key(world, waiting=1)
    [key] = world.json("parked", "users")
    world.run("dead", "replay", failed)
    [entry] = world.json("outbox", "list", "users")["entries"]
    refused = world.run("outbox", "discard", "users", "--entry", entry["entry"], expect=1).stderr
    assert "release the key instead (`coordinator release`)" in refused
    released = world.json("release", "users", key["ordering_key"])
    assert (released["status"], released["failed_id"]) == ("applied", failed)
    world.run("outbox", "discard", "users", "--entry", entry["entry"])


def test_an_outbox_is_listed_by_target_with_its_oldest(world: World) -> None:
    fill_outbox(world, items=3, nobody=2)
    found = world.json("outbox", "list", "users", "--limit", 4)
    assert [(each["target"], each["entries"]) for each in found["targets"]] == [("items", 3), ("nobody", 2)]
    assert [entry["entry"] for entry in found["entries"]] == [1, 2, 3, 4]
    assert world.run("outbox", "list", "users", "--limit", 4).stderr == (
        "there are more: coordinator outbox list users --after 4\n"
    )
    assert len(world.json("outbox", "list", "users", "--target", "nobody")["entries"]) == 2
    assert world.json("outbox", "list", "users", "--after", 4)["entries"][0]["entry"] == 5


def test_what_is_emitted_to_nobody_is_withdrawn_and_nothing_else(world: World) -> None:
    fill_outbox(world, items=3, nobody=2500)
    dry = world.json("outbox", "discard", "users", "--target", "nobody", "--all", "--dry-run")
    assert len(dry) == 2500
    gone = world.json("outbox", "discard", "users", "--target", "nobody", "--all")
    assert (len(gone), {each["withdrawn"] for each in gone}) == (2500, {True})
    assert [entry["entry"] for entry in world.json("outbox", "list", "users")["entries"]] == [1, 2, 3]
    ran = world.run("outbox", "discard", "users", "--entry", 2)
    assert ran.stdout.splitlines()[-1] == "users: 1 of 1 are withdrawn"
    assert "has no entry 2" in world.run("outbox", "discard", "users", "--entry", 2, expect=1).stderr
    world.is_up = False
    assert "1 not done within" in world.run("outbox", "discard", "users", "--entry", 3, "--wait", 0, expect=3).stderr


@pytest.mark.parametrize("what", ["show", "replay", "discard"])
def test_who_gives_a_letter_s_number_as_an_id_is_told_how_it_is_said(world: World, what: str) -> None:
    world.bury()
    said = world.run("dead", what, "1", "--lane", "users", expect=2).stderr
    assert "the number of a letter is: --letter 1 --lane LANE" in " ".join(said.split())
    said = world.run("dead", what, "users", expect=2).stderr
    assert "its letters are: --letter NUMBER --lane users" in " ".join(said.split())
    assert world.numbers() == [1]
