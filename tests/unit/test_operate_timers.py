"""Timers as an operator sees them and takes them back: the real lane on SQLite, and no broker."""

from datetime import timedelta

import pytest

from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.service.commands import Command
from coordinator.service.continuation import Continuation
from coordinator.service.ids import new_command_id
from coordinator.service.unit_of_work import Handler, UnitOfWork
from shared.users.commands import CreditUser
from tests.unit.test_operate_letters import START, World, world

__all__ = ("world",)


class Plan(Command, type="users.plan"):
    """Credit a user so many minutes from now, with or without a limit for the answer."""

    minutes: list[int]
    is_limited: bool = False


class Told(Continuation, type="users.told"):
    pass


def plan(work: UnitOfWork, command: Plan) -> None:
    for minutes in command.minutes:
        work.emit(
            CreditUser(id=1, amount=5),
            after=timedelta(minutes=minutes),
            continuation=Told if command.is_limited else None,
            limit=timedelta(hours=1) if command.is_limited else None,
        )


@pytest.fixture
def planned(world: World) -> World:  # the fixture
    users = registry().service("users")
    told = Handler(Told, lambda _, __: None, is_internal=True)
    world.start(users.replace(handlers=(*users.handlers, Handler(Plan, plan), told)))
    return world


def do(world: World, command: Command) -> None:
    message = CommandMessage(
        command_id=new_command_id(), type=command.type, arguments=command.arguments(), origin="system"
    )
    (outcome,) = world.deliver(message)
    assert outcome.status == "applied", outcome


def test_timers_are_listed_by_due_time_and_counted(planned: World) -> None:
    assert planned.json("timers", "list", "users") == []
    do(planned, Plan(minutes=[9, 3, 6]))
    listed = planned.json("timers", "list", "users")
    assert [timer["due_at"] for timer in listed] == [
        "2026-01-01T00:03:00.000000Z",
        "2026-01-01T00:06:00.000000Z",
        "2026-01-01T00:09:00.000000Z",
    ]
    assert {(timer["lane"], timer["target"], timer["type"]) for timer in listed} == {("users", "users", "users.credit")}
    first = planned.run("timers", "list", "users", "--limit", 2)
    assert f"there are more: coordinator timers list users --after {listed[1]['id']}" in first.stderr
    assert listed[0]["command_id"] in first.stdout
    assert planned.json("timers", "list", "users", "--after", listed[1]["id"]) == listed[2:]


def test_status_says_how_many_wait_and_when_the_next_is_due(planned: World) -> None:
    do(planned, Plan(minutes=[9, 3]))
    ran = planned.run("status", "users", "--sample-s", 0, expect=1)
    assert "2 wait, the next is due at 2026-01-01 00:03:00Z" in ran.stdout
    (status,) = planned.json("status", "users", "--sample-s", 0, expect=1)
    assert (status["timers"], status["next_timer_at"]) == (2, "2026-01-01T00:03:00.000000Z")


def test_an_operator_takes_timers_back(planned: World) -> None:
    do(planned, Plan(minutes=[3, 6]))
    first, second = planned.json("timers", "list", "users")
    assert planned.json("timers", "cancel", "users", first["command_id"].upper()) == [first | {"cancelled": True}]
    assert planned.json("timers", "list", "users") == [second]
    refused = planned.run("timers", "cancel", "users", first["command_id"], second["command_id"], expect=1)
    assert f"no timer of users has the command id '{first['command_id']}'" in refused.stderr
    planned.now = START + timedelta(days=1)
    assert planned.json("timers", "list", "users") == [second]
    planned.is_up = False
    pending = planned.run("timers", "cancel", "users", second["command_id"], "--wait", 0, expect=3)
    assert "1 not done within 0 s" in pending.stderr
    assert "0 of 1 are taken back" in pending.stdout


def test_a_limit_is_shown_with_the_command_whose_answer_it_waits_for(planned: World) -> None:
    do(planned, Plan(minutes=[3], is_limited=True))
    credit, limit = planned.json("timers", "list", "users")
    assert (limit["type"], limit["about"], limit["due_at"]) == (
        "users.told",
        credit["command_id"],
        "2026-01-01T01:03:00.000000Z",
    )
    assert credit["about"] == credit["command_id"] != limit["command_id"]
    heads, *printed = planned.run("timers", "list", "users").stdout.splitlines()
    assert heads.split()[-4:] == ["SET", "UNLESS", "ANSWERED", "ACTOR"]
    assert printed[0].split()[-2:] == ["00:00:00.000000Z", "-"]
    assert "  users.credit  " in printed[0]
    assert "  users.told    " in printed[1]
    assert printed[1].endswith(f"Z  {credit['command_id']}  -")
    planned.run("timers", "cancel", "users", limit["command_id"])
    assert planned.json("timers", "list", "users") == [credit]
