"""A person is forgotten by an operator: the real lane of users on SQLite, and no broker."""

import sqlite3
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import msgspec
import pytest

from coordinator.lane.control import Forget, ForgetAsked, ForgetBegun, ForgetStep, ForgottenAsked, ForgottenSome
from coordinator.operate.forget_waiting import ForgetWatch
from coordinator.operate.output import now
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.service.commands import Command
from coordinator.service.errors import BrokerUnavailable
from coordinator.service.ids import new_command_id
from coordinator.service.outcome import Outcome
from coordinator.service.personal import Personal
from coordinator.service.principal import Principal
from coordinator.service.rows import Row, Value, VersionedRow
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.lane_tables import LogEntry
from coordinator.testing import LaneInMemory
from shared.payments.commands import OpenPayment
from shared.payments.results import AuthorizeResult, TakeProviderEvent
from shared.users.commands import CreateUser, CreditUser, DeleteUser, UpdateUser
from tests.unit.test_operate_commands import logged
from tests.unit.test_operate_letters import World, world, world_of

__all__ = ("world",)

ADA, EVE = (
    CreateUser(name="Ada Plantedname", email="ada@planted.example"),
    CreateUser(name="Eve", email="eve@x.example"),
)


def do(world: World, command: Command, *, command_id: str = "", actor: Principal | None = None) -> Outcome:
    message = CommandMessage(
        command_id=command_id or new_command_id(),
        type=command.type,
        arguments=command.arguments(),
        origin="system" if actor is None else "public",
        actor=actor,
    )
    (outcome,) = world.deliver(message)
    return outcome


def dump(tmp_path: Path, lane: str = "users") -> str:
    connection = sqlite3.connect(tmp_path / f"{lane}.db")
    try:
        return "\n".join(connection.iterdump()).lower()
    finally:
        connection.close()


@pytest.fixture
def goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The lane gets its own steps while the operator waits for them."""
    monkeypatch.setattr("coordinator.operate.forget_steps.sleep", lambda _: world.sent())
    return world


def test_nothing_of_a_user_is_left_in_the_database(goes_on: World, tmp_path: Path) -> None:
    world = goes_on
    first = new_command_id()
    do(world, ADA, command_id=first)
    do(world, EVE)
    assert do(world, ADA).status == "rejected"
    assert do(world, UpdateUser(id=2, email=ADA.email)).status == "rejected"
    do(world, CreditUser(id=1, amount=5))
    broken = CommandMessage(
        command_id=new_command_id(), type="users.credit", arguments=b'{"id": 1, "amount": 1e999}', origin="system"
    )
    world.deliver(broken)
    do(world, DeleteUser(id=1))
    assert "planted" in dump(tmp_path)
    counted = world.json("forget", "users", "1", "--dry-run")
    assert (counted["status"], counted["commands"], counted["row_is_there"]) == ("dry_run", 5, False)
    assert "planted" in dump(tmp_path)
    done = world.json("forget", "users", "1", "--reason", "she asked for it")
    assert done == {
        "lane": "users",
        "table": "users",
        "status": "forgotten",
        "commands": 5,
        "row_is_there": False,
        "tables_of_his_rows": ["purchases"],
        "log_entries": 5,
        "dead_letters": 0,
        "timers": [],
        "unsent": 0,
    }
    assert "planted" not in dump(tmp_path)
    assert "eve@x.example" in dump(tmp_path)
    (act,) = (each for each in world.json("audit", "users", "--operators") if each["act"] != "forget asked")
    assert (act["act"], act["reason"], act["details"]["commands"]) == ("forget", "she asked for it", 5)
    outcome = do(world, ADA, command_id=first)
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code, outcome.sequence) == ("rejected", "forgotten", 1)
    again = world.run("continue", "users", first, "--to", "users.continue_purchase", "--logged", expect=1)
    assert "is forgotten in the log of lane users: say what it was, with --result" in again.stderr
    shown = world.json("command", first)
    assert (shown["status"], shown["error_code"], shown["result"]) == ("applied", "forgotten", None)


def test_what_the_operator_is_told_for_eyes(goes_on: World) -> None:
    do(goes_on, ADA)
    dry = goes_on.run("forget", "users", "1", "--dry-run").stdout
    assert "1 commands have personal data of this person; nothing is changed" in dry
    told = goes_on.run("forget", "users", ADA.email, "--column", "email").stdout
    assert "1 entries of the log and 0 dead letters are emptied" in told
    assert "the row in users is still there" in told
    assert "rows of purchases may belong to him by that row" in told
    typed = goes_on.run("forget", "users", ADA.email.upper(), "--column", "email", "--dry-run").stdout
    for said, is_known in ((dry, True), (told, True), (typed, False)):
        assert ("no row of users and no command of the log has this KEY" in said) is not is_known


def test_who_asked_is_taken_out_where_he_is_named(goes_on: World, tmp_path: Path) -> None:
    for person, subject in enumerate(("sub-of-ada", "sub-of-eve"), 1):
        actor = Principal(subject=subject)
        assert do(goes_on, msgspec.structs.replace(ADA, email=f"{person}@x.example"), actor=actor).status == "applied"
        assert do(goes_on, DeleteUser(id=person), actor=actor).status == "applied"
    # Another tenant's person of the same name is another person.
    other = Principal(subject="sub-of-ada", tenant="acme")
    assert do(goes_on, UpdateUser(id=1, name="mine"), actor=other).status == "rejected"
    goes_on.run("forget", "users", "1", "--actor", "sub-of-ada")
    goes_on.run("forget", "users", "2")
    assert dump(tmp_path).count("sub-of-ada") == 1
    assert "sub-of-eve" in dump(tmp_path)


def test_a_person_of_a_tenant_is_taken_out_with_it(goes_on: World, tmp_path: Path) -> None:
    actor = Principal(subject="sub-of-ada", tenant="acme")
    assert do(goes_on, ADA, actor=actor).status == "applied"
    assert do(goes_on, DeleteUser(id=1), actor=actor).status == "applied"
    goes_on.run("forget", "users", "1", "--actor", "sub-of-ada", "--tenant", "acme")
    assert "sub-of-ada" not in dump(tmp_path)


def test_what_somebody_asked_for_is_taken_out_without_a_row_of_his(goes_on: World, tmp_path: Path) -> None:
    """In the log, in dead letters, and among the API keys: whatever row it was about, and if about none."""
    world, him, other = goes_on, Principal(subject="sub-of-ada"), Principal(subject="sub-of-ada", tenant="acme")
    do(world, EVE, actor=Principal(subject="sub-of-eve"))
    for number, actor in enumerate((him, him, other)):
        assert do(world, UpdateUser(id=1, name=f"planted {number}"), actor=actor).status == "rejected"
    broken = CommandMessage(
        command_id=new_command_id(), type="users.update", arguments=b'{"planted": 1}', origin="public", actor=him
    )
    world.deliver(broken)
    nameless = msgspec.structs.replace(broken, command_id=None, arguments=b'{"planted": 2}')
    world.deliver(nameless)
    letter, without_id = world.json("dead", "list", "users")
    made = world.json("keys", "create", "users", "--subject", "sub-of-ada")
    ran = world.run("forget", "users", "--actor", "sub-of-ada", expect=1)
    assert f"his key {made['id']} still counts: revoke it first" in ran.stderr
    world.run("keys", "revoke", "users", "--id", made["id"])
    counted = world.json("forget", "users", "--actor", "sub-of-ada", "--dry-run")
    assert (counted["status"], counted["commands"], counted["dead_letters"]) == ("dry_run", 3, 2)
    told = world.run("forget", "users", "--actor", "sub-of-ada", "--dry-run").stdout
    assert "he has asked for 3 commands; nothing is changed" in told
    assert "2 dead letters name him as who asked" in told
    done = world.json("forget", "users", "--actor", "sub-of-ada", "--reason", "asked for")
    assert done == {
        "lane": "users",
        "status": "forgotten",
        "commands": 3,
        "log_entries": 3,
        "dead_letters": 2,
        "api_keys": 1,
        "own_rows": {"rows": 0, "commands": 0, "log_entries": 0, "dead_letters": 0},
    }
    # What the other tenant's person of that name tried is his own.
    left = dump(tmp_path)
    assert left.count("sub-of-ada") == 1
    assert b'{"planted": 1}'.hex() not in left
    assert b'{"planted": 2}'.hex() not in left
    assert "sub-of-eve" in left
    emptied = [(each["letter"], each["size_bytes"]) for each in world.json("dead", "list", "users")]
    assert emptied == [(each["letter"], len(b'{"planted": 1}')) for each in (letter, without_id)]
    done_by_operators = world.json("audit", "users", "--operators")
    orders = [act["details"] for act in done_by_operators if act["act"] == "forget --actor"]
    # Of one millisecond, they have no order.
    assert sorted(orders, key=str) == [{"entries": 0, "letters": 1}, {"entries": 3, "letters": 1}]
    acts = {act["act"]: act for act in done_by_operators}
    assert acts["keys forget"]["reason"] == "asked for"
    assert acts["keys create"]["details"]["subject"] is None
    again = world.json("forget", "users", "--actor", "sub-of-ada")
    assert (again["commands"], again["api_keys"]) == (0, 0)
    world.run("forget", "users", "--actor", "sub-of-ada", "--tenant", "acme")
    assert "sub-of-ada" not in dump(tmp_path)


@pytest.fixture
def payments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world_of("payments", tmp_path, monkeypatch) as world:
        monkeypatch.setattr("coordinator.operate.forget_steps.sleep", lambda _: world.sent())
        yield world


def test_what_others_tell_of_rows_that_are_his_own_is_taken_out_with_what_he_asked_for(
    payments: World, tmp_path: Path
) -> None:
    """The provider's events have nobody who asked, and what they leave quotes the whole payment."""
    him, scopes = {"subject": "sub-of-ada", "tenant": "acme"}, frozenset({"payments"})
    eve = Principal(subject="sub-of-eve", tenant="acme", scopes=scopes)
    for actor in (Principal(**him, scopes=scopes), eve):
        opened = OpenPayment(user_id=7, amount=100, currency="EUR", payment_method="pm_planted")
        assert do(payments, opened, actor=actor).status == "applied"
    result = AuthorizeResult(id=1, verdict="authorized", provider_id="pi_planted")
    assert do(payments, result).status == "applied"
    captured = TakeProviderEvent(
        event_id="evt_1",
        kind="captured",
        id=1,
        provider_id="pi_planted",
        is_signed=True,
        currency="EUR",
        amount=100,
        amount_captured=100,
    )
    assert do(payments, captured).status == "applied"
    # And one that is refused: its dead letter, or its entry, is about him as well.
    assert do(payments, msgspec.structs.replace(captured, event_id="evt_2", currency="USD")).status == "rejected"
    options = ("--actor", "sub-of-ada", "--tenant", "acme")
    counted = payments.json("forget", "payments", *options, "--dry-run")
    assert (counted["commands"], counted["own_rows"]["rows"], counted["own_rows"]["commands"]) == (1, 1, 4)
    told = payments.run("forget", "payments", *options, "--dry-run").stdout
    assert "1 rows are his own, of which 4 commands have left something" in told
    done = payments.json("forget", "payments", *options)
    assert (done["status"], done["own_rows"]["log_entries"]) == ("forgotten", 4)
    logs = [line for line in dump(tmp_path, "payments").splitlines() if "command_log" in line]
    assert [line for line in logs if "pi_planted" in line or "sub-of-ada" in line] == []
    assert [line for line in logs if "sub-of-eve" in line]
    assert "the rows are the service's, and are still there" in payments.run("forget", "payments", *options).stdout


def test_more_rows_of_one_person_than_one_command_takes_are_refused_in_words(
    goes_on: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    him = Principal(subject="sub-of-ada")
    for number in range(2):
        assert do(goes_on, msgspec.structs.replace(ADA, email=f"{number}@x.example"), actor=him).status == "applied"
        monkeypatch.setattr("coordinator.operate.forget_rows.ROWS_MAX", 1)
        ran = goes_on.run("forget", "users", "--actor", "sub-of-ada", "--dry-run", expect=number)
    assert "more than 1 rows of users are his: forget each by its KEY" in ran.stderr


class Nobodys(Row, table="nobodys", key="id"):
    id: int
    tenant: Personal[str | None] = None

    @classmethod
    def personal_to(cls, who: Principal) -> Mapping[str, Value]:
        return {} if who.subject == "all" else {"colour": 1} if who.subject == "wrong" else {"tenant": who.tenant}


def test_rows_that_nothing_tells_from_others_are_nobodys_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    users = registry().service("users")
    monkeypatch.setattr(users, "_models", [Nobodys, *users.models])
    for subject in ("all", "without a tenant"):
        assert world.json("forget", "users", "--actor", subject, "--dry-run")["own_rows"]["rows"] == 0
    ran = world.run("forget", "users", "--actor", "wrong", "--dry-run", expect=1)
    assert "`personal_to` of Nobodys names colour, which it has not" in ran.stderr


def test_of_a_person_who_asked_for_more_than_one_order_takes_all_is_taken_out(
    goes_on: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("coordinator.operate.forget_asked.ASKED_MAX", 2)
    monkeypatch.setattr("coordinator.operate.forget_asked.PAGE_COMMANDS", 3)
    for number in range(8):
        actor = Principal(subject="sub-of-ada" if number != 4 else "sub-of-eve")
        do(goes_on, UpdateUser(id=1, name=f"planted {number}"), actor=actor)
    told = goes_on.run("forget", "users", "--actor", "sub-of-ada").stdout
    assert "7 entries of what he asked for are emptied" in told
    assert "sub-of-ada" not in dump(tmp_path)
    goes_on.is_up = False
    ran = goes_on.run("forget", "users", "--actor", "sub-of-eve", "--wait", "0", expect=3)
    assert "not done within 0 s" in ran.stderr


def test_an_order_that_waits_is_seen_behind_any_number_of_other_acts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.operate.forget_waiting.ACTS_MAX", 2)
    world.is_up = False
    for number in range(1, 6):
        world.run("forget", "users", number, "--wait", "0", expect=3)
    for _ in range(4):
        world.run("cancel", new_command_id(), "--lane", "users")
    assert len(world.json("status", "users", "--sample-s", "0", expect=1)[0]["forgets"]) == 5


def test_what_was_seen_of_an_order_is_not_looked_for_again() -> None:
    """Pages look every few seconds, for a month; one person may be in as many orders and steps as he has commands."""
    asked, begun, steps = new_command_id(), new_command_id(), [new_command_id() for _ in range(5)]
    began = ForgetBegun(table="users", commands=400, is_row_there=False, goes_on_as=steps[0], by="ada")
    entries = {asked: entry(asked, ForgetAsked.type, ForgottenAsked(entries=1, letters=0, by="ada"))}
    entries[begun] = entry(begun, Forget.type, began)
    for step, then in pairwise(steps):
        done = ForgottenSome(entries=100, letters=0, timers=(), goes_on_as=then)
        entries[step] = entry(step, ForgetStep.type, done)
    looked: list[str] = []

    def find(command_id: str) -> LogEntry | None:
        looked.append(command_id)
        return entries.get(command_id)

    details = msgspec.json.encode({"orders": [asked, begun]}).decode()
    act = cast(OperatorAct, SimpleNamespace(details=details, done_at=now()))
    admin = cast(LaneAdmin, SimpleNamespace(acts=lambda *_: [act], find=find))
    watch = ForgetWatch()
    for expected in ([asked, begun, *steps], [asked, *steps[-2:]]):
        looked.clear()
        (waiting,) = watch.waiting(admin)
        assert (waiting.where, looked) == ("step 5 of it waits in the lane's outbox or queue", expected)
    # A copy of the database from before the orders were carried out.
    entries.clear()
    assert [each.where for each in watch.waiting(admin)] == [
        "the order waits in the lane's queue, or never came there"
    ] * 2


def entry(command_id: str, command_type: str, result: msgspec.Struct) -> LogEntry:
    return logged(command_id=command_id, type=command_type, result=msgspec.json.encode(result).decode())


@pytest.mark.parametrize("whose", [["1"], ["--actor", "sub-of-ada"]])
def test_an_order_that_nobody_could_be_given_is_not_said_to_wait(
    world: World, monkeypatch: pytest.MonkeyPatch, whose: list[str]
) -> None:
    """Such as while the broker is away: whoever gave it was told, and gives it again."""
    do(world, ADA, actor=Principal(subject="sub-of-ada"))

    def away(_: str) -> None:
        raise BrokerUnavailable("RabbitMQ cannot be reached")

    with monkeypatch.context() as patched:
        patched.setattr("coordinator.operate.giving_orders._require_queue", away)
        world.run("forget", "users", *whose, expect=1)
    assert world.json("audit", "users", "--operators") == []


def test_an_order_of_many_steps_is_not_done_before_its_last(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.operate.forget_waiting.STEPS_MAX", 0)
    do(world, ADA)
    world.run("forget", "users", "1", "--wait", "0", expect=3)
    (waiting,) = world.json("status", "users", "--sample-s", "0", expect=1)[0]["forgets"]
    assert waiting["where"] == "0 steps of it are done, and it goes on"


@pytest.mark.parametrize("key", [(), ("1",)])
def test_all_orders_are_given_though_the_lane_comes_to_them_later(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: tuple[str, ...]
) -> None:
    """It is said that the lane carries them out."""
    monkeypatch.setattr("coordinator.operate.forget_rows.ASKED_MAX", 1)
    monkeypatch.setattr("coordinator.operate.forget_asked.ASKED_MAX", 1)
    monkeypatch.setattr("coordinator.operate.forget_asked.PAGE_COMMANDS", 1)
    him = Principal(subject="sub-of-ada")
    for number in (1, 2):
        named = CreateUser(name=f"Planted {number}", email=f"{number}@planted.example")
        assert do(world, named, actor=him).status == "applied"
        assert do(world, DeleteUser(id=number), actor=him).status == "applied"
    for number in (3, 4):
        assert do(world, msgspec.structs.replace(EVE, email=f"{number}@x.example"), actor=him).status == "applied"
        assert do(world, UpdateUser(id=number, name="Planted")).status == "applied"
        assert do(world, UpdateUser(id=number, name="Eve")).status == "applied"
    world.is_up = False
    ran = world.run("forget", "users", *key, "--actor", him.subject, "--wait", "0", expect=3)
    assert "the lane carries them out when it comes to them" in ran.stderr
    world.is_up = True
    world.work()
    while world.emitted:
        world.sent()
    logs = [line for line in dump(tmp_path).splitlines() if "command_log" in line]
    assert [line for line in logs if "planted" in line or him.subject in line] == []


def test_a_trial_that_the_lane_has_not_come_to_is_no_count(world: World) -> None:
    him = Principal(subject="sub-of-ada")
    assert do(world, ADA, actor=him).status == "applied"
    world.is_up = False
    ran = world.run("forget", "users", "--actor", him.subject, "--dry-run", "--wait", "0", expect=3)
    assert "not done within 0 s" in ran.stderr


def test_an_order_that_is_not_done_yet_says_so(world: World) -> None:
    do(world, ADA)
    ran = world.run("forget", "users", "1", "--wait", "0", expect=3)
    assert "not done within 0 s" in ran.stderr
    (waiting,) = world.json("status", "users", "--sample-s", "0", expect=1)[0]["forgets"]
    assert waiting["where"] == "step 1 of it waits in the lane's outbox or queue"
    world.sent()
    assert world.json("status", "users", "--sample-s", "0", expect=1)[0]["forgets"] == []
    # It went on by itself, and nothing is left to be done.
    assert world.json("forget", "users", "1", "--dry-run")["commands"] == 0
    world.is_up = False
    assert "repeating this is safe" in world.run("forget", "users", "1", "--wait", "0", expect=3).stderr
    (waiting,) = world.json("status", "users", "--sample-s", "0", expect=1)[0]["forgets"]
    assert waiting["where"] == "the order waits in the lane's queue, or never came there"
    assert "forget" in world.run("status", "users", "--sample-s", "0", expect=1).stdout
    asked = world.json("audit", "users", "--operators")[0]
    assert (asked["act"], asked["details"]) == ("forget asked", {"orders": [waiting["order"]]})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["users"], "say whose data: the KEY of the person's row, or --actor SUBJECT"),
        (["users", "--actor", "x", "--column", "email"], "say whose data"),
        (["users", "1", "--tenant", "x"], "--tenant is that of an --actor"),
        (["users", "x"], "KEY: 'x' is no int, as id is"),
        (["users", "1", "2"], "KEY: users is found by id: give 1, not 2"),
        (["users", "1", "--column", "colour"], "--column: users has no column 'colour'"),
        (["users", "1", "--table", "nobody"], "users has no rows of 'nobody'"),
        (["users", "1", "--actor", "x" * 201], "`$.actor`"),
        (["items", "1"], "items marks no field of its rows as personal"),
    ],
)
def test_what_is_no_person_is_refused(world: World, arguments: list[str], text: str) -> None:
    assert text in world.run("forget", *arguments, expect=2).stderr


def test_a_column_by_which_nobody_is_found_is_refused_by_the_lane(world: World) -> None:
    assert "not_a_key" in world.run("forget", "users", "Ada", "--column", "name", expect=1).stderr


def test_one_of_several_classes_of_persons_is_to_be_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Row, table="others", key="id"):
        id: int
        name: Personal[str]

    users = registry().service("users")
    monkeypatch.setattr(users, "_models", [*users.models, Other])
    ran = world.run("forget", "users", "1", expect=2)
    assert "personal fields in others, users: say with --table" in ran.stderr


class Guest(VersionedRow, table="guests", key="id", unique=("card",)):
    id: UUID
    card: UUID
    name: Personal[str]


class Companion(VersionedRow, table="companions", key=("guest", "number")):
    guest: UUID
    number: int
    name: Personal[str]


class Arrive(Command, type="guests.arrive"):
    name: Personal[str]


def test_a_person_whose_key_is_a_uuid_is_forgotten() -> None:
    """In an order, which is JSON, it is a text."""

    def arrive(work: UnitOfWork, command: Arrive) -> Guest:
        own = UUID(work.command_id)
        work.add(Companion(guest=own, number=1, name=command.name))
        return work.add(Guest(id=own, card=own, name=command.name))

    handler = Handler(Arrive, arrive, of=lambda command: [])
    lane = LaneInMemory(Service("guests", models=(Guest, Companion), handlers=(handler,)))
    guest = lane.apply(Arrive(name="planted")).result(Guest)
    for table, column, value in (
        ("guests", "", guest.id),
        ("guests", "card", guest.card),
        ("companions", "", (guest.id, 1)),
    ):
        named = msgspec.Raw(msgspec.json.encode(value))
        begun = lane.apply(Forget(table=table, value=named, column=column, asked=new_command_id(), dry_run=True))
        assert begun.result(ForgetBegun).is_row_there
    for other in ("planted", [str(guest.id)], [1, 1], None):
        named = msgspec.Raw(msgspec.json.encode(other))
        assert lane.apply(Forget(table="guests", value=named, asked=new_command_id())).rejected_with("not_a_key")
    order = Forget(table="guests", value=msgspec.Raw(msgspec.json.encode(guest.id)), asked=new_command_id())
    assert lane.apply(order).applied
    lane.deliver()
    (entry,) = [each for each in lane.rows(LogEntry) if each.type == Arrive.type]
    assert entry.result is None
