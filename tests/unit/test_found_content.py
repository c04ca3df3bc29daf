"""What a viewer is told of what was found: the place, and not the words of what commands hold."""

from datetime import UTC, datetime

import pytest
from msgspec import structs

from coordinator.operate.conditions import LaneCondition
from coordinator.operate.effects_conditions import effects_condition
from coordinator.operate.finding import Finder
from coordinator.operate.found import Found, FoundCommand, FoundRow, FoundSaga
from coordinator.operate.open import lane_admin, lane_api_keys
from coordinator.operate.places import Known, PlaceKind, Stop, known_in, stops_of
from coordinator.operate.processes import SeenProcess
from coordinator.operate.queue_depth import EffectsDepth
from coordinator.operate.timelines import timeline_in
from coordinator.operations.content import (
    HIDDEN_REASON,
    conditions_seen,
    found_without_content,
    timeline_without_content,
    view_without_content,
)
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.service.commands import Command
from coordinator.service.ids import command_id_for, new_command_id
from coordinator.service.json_text import to_json
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.unit_of_work import UnitOfWork
from coordinator.stores.admin import OnItsWay
from coordinator.stores.idempotency import new_secret
from coordinator.stores.lane_tables import LogEntry
from shared.users.commands import CreateUser, CreditUser
from shared.users.model import User
from tests.unit.test_operate_commands import logged
from tests.unit.test_operate_letters import CASHIER, World, world
from tests.unit.test_repeating import view

__all__ = ("world",)

IDLE = LaneCondition(lane="users", state="idle", why=None, waiting=0)
ARGUMENTS = b'{"id": 1, "amount": 5}'
SECRET = "alice.secret@example.org has it"


def stop(kind: PlaceKind, lane: str = "users", why: str | None = SECRET, said: str | None = None) -> Stop:
    return Stop(kind=kind, lane=lane, text="here", why=why, said=said)


def command(*stops: Stop) -> FoundCommand:
    last = stops[-1]
    return FoundCommand(
        lane="users", command_id="0", stops=list(stops), is_stuck=True, where="here", why=last.why, todo=None
    )


def saga(*stops: Stop, why: str) -> FoundSaga:
    step = SagaStep(
        command_id="0",
        saga="purchase",
        saga_id=17,
        number=1,
        name="credit",
        direction="do",
        command_type="users.credit",
        status="rejected",
        error_code="no",
        error_message=SECRET,
        began_at=datetime.now(UTC),
    )
    return FoundSaga(
        lane="users",
        saga="purchase",
        id=17,
        status="running",
        reason=f"code: {SECRET}",
        began_at=None,
        ended_at=None,
        declared=(),
        steps=[step],
        stops=list(stops),
        is_stuck=True,
        where="here",
        why=why,
        todo=None,
    )


FOUND = Found(
    asked="17",
    sagas=[saga(stop("dead_letter"), why=SECRET), saga(why=f"code: {SECRET}")],
    commands=[command(stop("settled", why=None, said=SECRET), stop("dead_letter")), command(stop("outside"))],
    rows=[FoundRow(lane="users", table="users", key="17", row=None, is_stuck=True, where="x", why=SECRET, todo=None)],
)


def test_a_viewer_is_told_none_of_it_and_an_operator_all() -> None:
    assert SECRET.encode() not in to_json(found_without_content(FOUND, ()))
    assert SECRET.encode() not in to_json(found_without_content(FOUND, {"orders"}))
    assert found_without_content(FOUND, {"users"}) == FOUND
    assert found_without_content(FOUND, ()).commands[0].why == HIDDEN_REASON


@pytest.mark.parametrize("kind", ["queue", "timer", "outbox", "parked", "away"])
def test_a_lane_s_own_reason_is_told(kind: PlaceKind) -> None:
    paused = command(stop(kind, why="lane users is paused: a release"))
    assert found_without_content(Found(asked="17", commands=[paused]), ()).commands[0].why == paused.why


def test_of_a_lane_that_may_only_be_looked_at_the_words_of_an_error_are_not_told() -> None:
    """Nor that lane's, where something waits for it in a lane that whoever asks may act on."""
    said = "blocked by command 7 (users.credit)"
    lanes = {lane: LaneCondition(lane=lane, state="suspended", why=f"{said}: {SECRET}", waiting=1) for lane in "abc"}
    found = conditions_seen(lanes, {"a", "b"}, {"b"})
    assert {lane: each.why for lane, each in found.items()} == {"a": said, "b": f"{said}: {SECRET}"}


def test_of_a_lane_that_may_only_be_looked_at_what_a_provider_said_is_not_told() -> None:
    said = "the last call to the provider had no answer"
    worker = SeenProcess(
        url="http://w:1", lane="users", state="working", is_worker=True, held=1, reason=f"{said}: {SECRET}"
    )
    effects = effects_condition(EffectsDepth(waiting=1, consumers=1), [worker], None)
    assert effects is not None
    assert effects.why == worker.reason
    seen = view_without_content(structs.replace(view(0.0), effects=effects, processes=[worker]))
    assert seen.effects is not None
    assert (seen.effects.why, seen.processes[0].reason) == (said, said)
    # Of a lane without a broker the status has it.
    local = view(0.0)
    local = view_without_content(structs.replace(local, status=structs.replace(local.status, effects=effects)))
    assert local.status.effects == seen.effects
    lanes = {"users": structs.replace(IDLE, effects=effects)}
    assert conditions_seen(lanes, {"users"}, ())["users"].effects == seen.effects
    assert conditions_seen(lanes, {"users"}, {"users"}) == lanes


def test_the_words_of_an_outcome_are_told_to_operators_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They quote what commands hold: here whose user there is none of."""
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    message = CommandMessage(command_id=new_command_id(), type="users.credit", arguments=ARGUMENTS, actor=CASHIER)
    world.deliver(message)
    finder = Finder({"users": IDLE}, registry().service, lane_admin, lane_api_keys)
    found = finder.find(message.command_id or "", ["users"], frozenset({"users"}))
    words = "there is no user 1"
    (command,) = found.commands
    assert command.why == f"user_not_found: {words}"
    assert words.encode() not in to_json(found_without_content(found, ()))
    assert found_without_content(found, ("users",)) == found


@pytest.mark.parametrize("asked", ["users.credit", "CreditUser"])
def test_commands_of_a_type_are_found_those_that_failed_before_those_that_were_settled(
    world: World, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    finder = Finder({"users": IDLE}, registry().service, lane_admin, lane_api_keys)
    assert "no command of type" in (finder.find(asked, ["users"], frozenset()).nothing or "")
    settled, failed, other = new_command_id(), new_command_id(), new_command_id()
    world.deliver(CommandMessage(command_id=settled, type="users.credit", arguments=ARGUMENTS, actor=CASHIER))
    world.deliver(CommandMessage(command_id=failed, type="users.credit", arguments=b"[]", actor=CASHIER))
    world.deliver(CommandMessage(command_id=other, type="users.delete", arguments=b'{"id": 1}', actor=CASHIER))
    found = finder.find(asked, ["users"], frozenset())
    assert [(each.command_id, each.is_stuck) for each in found.commands] == [(failed, True), (settled, False)]


@pytest.mark.parametrize("asked", ["users/999", "order-1", "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"])
def test_what_waits_in_a_paused_lane_is_nowhere_and_the_lane_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    condition = LaneCondition(lane="users", state="paused", why="a release", waiting=1)
    finder = Finder({"users": condition}, registry().service, lane_admin, lane_api_keys)
    found = finder.find(asked, ["users"], frozenset({"users"}))
    said = "lane users is paused (a release), and 1 message waits there (once the reason is over: coordinator resume"
    assert said in (found.nothing or "")


def finder_of_broken_credits(world: World, monkeypatch: pytest.MonkeyPatch) -> Finder:
    """The handler of a credit has a defect from now on."""
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    users = registry().service("users")

    def fail(work: UnitOfWork, command: Command) -> None:
        raise RuntimeError(SECRET)

    broken = [structs.replace(each, handle=fail) if each.command is CreditUser else each for each in users.handlers]
    world.start(users.replace(handlers=tuple(broken)))
    return Finder({"users": IDLE}, registry().service, lane_admin, lane_api_keys)


def test_a_row_whose_command_failed_is_found_with_its_letter_by_operators(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = finder_of_broken_credits(world, monkeypatch)
    for name in ("ada", "bob"):
        arguments = CreateUser(name=name, email=f"{name}@example.org").arguments()
        world.deliver(CommandMessage(command_id=new_command_id(), type=CreateUser.type, arguments=arguments))
    # The first letters have the key in their arguments, and are for another row, of another type, or none at all.
    for arguments in (b'{"id": 1, "amount": 2}', b'{"id": 22, "amount": 1}', b'{"id": 2, "amount": "x"}'):
        world.bury(type=CreditUser.type, arguments=arguments, actor=CASHIER)
    assert finder.find("users/2", ["users"], frozenset({"users"})).rows[0].why is None
    world.bury(type=CreditUser.type, arguments=b'{"amount": 5, "id": 2}', actor=CASHIER)
    (row,) = finder.find("users/2", ["users"], frozenset({"users"})).rows
    assert row.is_stuck
    assert row.why == f"users.credit for it failed (handler_error): RuntimeError: {SECRET}"
    assert row.todo == (
        "mend the cause (its traceback: coordinator dead show --lane users --letter 4), then: "
        "coordinator dead replay --lane users --letter 4"
    )
    assert finder.find("users/2", ["users"], frozenset()).rows[0].why is None
    # Its replay waits in the lane like any command.
    paused = LaneCondition(lane="users", state="paused", why="a release", waiting=0)
    finder = Finder({"users": paused}, registry().service, lane_admin, lane_api_keys)
    (kept,) = finder.find("users/2", ["users"], frozenset({"users"})).rows
    assert kept.why == f"{row.why}; lane users is paused: a release"
    assert kept.todo == f"{row.todo}; and for lane users: once the reason is over: coordinator resume users"


def test_a_row_that_keeps_the_id_of_a_command_that_nobody_can_read_is_found_with_its_letter(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of its timer, whose class was changed without a new version: no target says for which row it was."""
    finder = finder_of_broken_credits(world, monkeypatch)
    timer = world.bury(type=CreditUser.type, arguments=b'{"user": 1, "amount": 2}', actor=CASHIER).command_id or ""
    for name in (timer, new_command_id()):
        arguments = CreateUser(name=name, email=f"{name}@example.org").arguments()
        world.deliver(CommandMessage(command_id=new_command_id(), type=CreateUser.type, arguments=arguments))
    keeps, other = (finder.find(f"users/{key}", ["users"], frozenset({"users"})).rows[0] for key in (1, 2))
    assert keeps.why is not None
    assert keeps.why.startswith("users.credit, whose id is its name, failed (invalid_arguments): Object contains")
    assert keeps.todo is not None
    assert "a version of the class, with an upgrade" in keeps.todo
    assert (other.why, other.is_stuck) == (None, False)


def known_by(entry: LogEntry, replay: Known | None = None) -> Known:
    """What a database has of a command that has no letters, nor waits anywhere."""
    return Known(
        lane="users",
        command_id=entry.command_id,
        entry=entry,
        replay=replay,
        letters=[],
        parked=None,
        parked_letter=None,
        keeps=None,
        way=OnItsWay(),
    )


def test_a_replay_says_what_came_of_it_as_the_first_try_does() -> None:
    failed = logged(status="failed", error_code="handler_error", error_message="see its letter")
    replay = logged(status="rejected", error_code="taken", error_message=SECRET)
    first, again = stops_of(known_by(failed, known_by(replay)))
    assert (first.said, again.said) == ("handler_error: see its letter", f"taken: {SECRET}")
    assert SECRET not in again.text
    hidden = found_without_content(Found(asked="17", commands=[command(first, again)]), ())
    assert SECRET.encode() not in to_json(hidden)


def test_a_replay_that_failed_again_stands_at_its_own_letter(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    finder = finder_of_broken_credits(world, monkeypatch)
    arguments = CreateUser(name="ada", email="ada@example.org").arguments()
    world.deliver(CommandMessage(command_id=new_command_id(), type=CreateUser.type, arguments=arguments))
    command_id = world.bury(type=CreditUser.type, arguments=ARGUMENTS, actor=CASHIER).command_id or ""

    def found() -> FoundCommand:
        return finder.find(command_id, ["users"], frozenset({"users"})).commands[0]

    for letter in (2, 3):
        world.json("dead", "replay", "--letter", letter - 1, "--lane", "users")
        assert found().where == "its replay is in the outbox of lane users, for users: the broker has not taken it"
        world.sent()
        again = found()
        assert (again.is_stuck, again.where) == (True, f"its replay is dead letter {letter} of lane users")
        assert again.todo is not None
        assert again.todo.endswith(f", then: coordinator dead replay --lane users --letter {letter}")
        shown = world.run("command", command_id, "--lane", "users").stdout
        assert f"its replay is dead letter {letter} of lane users" in shown
    world.start(registry().service("users"))
    world.json("dead", "replay", "--letter", 3, "--lane", "users")
    world.sent()
    again = found()
    assert (again.is_stuck, again.stops[-1].status) == (False, "applied")
    assert again.where.startswith("replayed, and applied as number ")
    assert f"; {again.where}" in world.run("command", command_id, "--lane", "users").stdout


def test_a_viewer_is_not_told_the_key_for_which_a_replay_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    users = registry().service("users")

    def fail(work: UnitOfWork, command: Command) -> None:
        raise RuntimeError(SECRET)

    broken = [
        structs.replace(each, handle=fail, on_failure="park-key", target=lambda command: User.at(command.id))
        if each.command is CreditUser
        else each
        for each in users.handlers
    ]
    world.start(users.replace(handlers=tuple(broken)))
    command_id = world.bury(type=CreditUser.type, arguments=ARGUMENTS, actor=CASHIER).command_id or ""
    world.run("release", "users", "users.id=1")
    world.bury(type=CreditUser.type, arguments=ARGUMENTS, actor=CASHIER)
    world.run("dead", "replay", command_id)
    world.sent()
    with lane_admin("users") as admin:
        timeline = timeline_in(admin, "users", command_id, {})
        stop = stops_of(known_in(admin, "users", command_id))[-1]
    assert timeline is not None
    assert "its replay waits for its key" in (timeline.where or "")
    assert SECRET in (stop.said or ""), "why the command failed behind which it waits"
    assert SECRET not in f"{stop.text} {stop.why} {timeline.where} {timeline.why}"
    assert b"users.id" not in to_json(timeline_without_content(timeline))


def test_a_step_whose_saga_was_told_that_it_failed_is_not_to_be_replayed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    users = registry().service("users")

    def fail(work: UnitOfWork, command: Command) -> None:
        raise RuntimeError(SECRET)

    broken = [structs.replace(each, handle=fail) if each.command is CreditUser else each for each in users.handlers]
    world.start(users.replace(handlers=tuple(broken)))
    finder = Finder({"users": IDLE}, registry().service, lane_admin, lane_api_keys)
    arguments = CreateUser(name="ada", email="ada@example.org").arguments()
    world.deliver(CommandMessage(command_id=new_command_id(), type=CreateUser.type, arguments=arguments))
    told = "users.continue_purchase"
    step = world.bury(type=CreditUser.type, arguments=ARGUMENTS, origin="system", continuation=told)
    (row,) = finder.find("users/1", ["users"], frozenset({"users"})).rows
    (command,) = finder.find(step.command_id or "", ["users"], frozenset({"users"})).commands
    for todo in (row.todo or "", command.todo or ""):
        assert f"was told that it failed ({told})" in todo
        assert "A replay would be applied alone" in todo
        assert "coordinator dead discard --lane users --letter 1" in todo
    shown = world.run("dead", "show", "--letter", 1, "--lane", "users").stdout
    assert f"{told}, of the failure: a replay would be applied alone" in shown


def test_a_key_of_a_client_whom_nobody_asked_is_found_though_the_lane_has_a_secret(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    with lane_api_keys("users") as keys:
        if not keys.secrets():
            keys.add_secret(new_secret(1))
        assert all(each.secret for each in keys.secrets())
    command_id = command_id_for("users", "order-17")
    arguments = CreateUser(name="ada", email="ada@example.org").arguments()
    world.deliver(CommandMessage(command_id=command_id, type=CreateUser.type, arguments=arguments))
    finder = Finder({"users": IDLE}, registry().service, lane_admin, lane_api_keys)
    (command,) = finder.find("order-17", ["users"], frozenset({"users"})).commands
    assert command.command_id == command_id
    assert finder.find("order-17", ["users"], frozenset({"users"}), subject="ada").is_empty


def test_a_letter_that_nobody_can_read_is_replayed_as_it_is_advised(world: World) -> None:
    command_id = new_command_id()
    world.deliver(CommandMessage(command_id=command_id, type=CreditUser.type, arguments=b"{not json"))
    shown = world.run("command", command_id, "--lane", "users").stdout
    assert "replay it with arguments of yours: coordinator dead replay --lane users --letter 1 --args JSON" in shown
    world.json("dead", "replay", "--lane", "users", "--letter", 1, "--args", '{"id": 1, "amount": 5}')
