"""`coordinator cancel` of what a lane has emitted: only where a command is to be applied can it be kept from that."""

from datetime import timedelta
from typing import Any

import pytest

from coordinator.operate.output import CommandRefused
from coordinator.operations import acts
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.service.commands import Command
from coordinator.service.ids import new_command_id
from coordinator.service.unit_of_work import Handler, UnitOfWork
from shared.items.commands import QuoteItem
from shared.payments.effects import VoidAtProvider
from shared.users.commands import CreditUser
from tests.unit.test_operate_letters import World, world

__all__ = ("world",)


class Ask(Command, type="users.ask"):
    """Emit something, at once or later."""

    what: str
    is_later: bool


def ask(work: UnitOfWork, command: Ask) -> None:
    emitted: dict[str, Any] = {
        "items": QuoteItem(id=1),
        "effects.payments": VoidAtProvider(id=1, provider_id="p"),
        "users": CreditUser(id=1, amount=5),
    }
    work.emit(emitted[command.what], after=timedelta(minutes=5) if command.is_later else None)


def asked(world: World, what: str, *, is_later: bool) -> str:
    """The id of what was emitted."""
    users = registry().service("users")
    world.start(users.replace(handlers=(*users.handlers, Handler(Ask, ask))))
    command = Ask(what=what, is_later=is_later)
    message = CommandMessage(
        command_id=new_command_id(), type=command.type, arguments=command.arguments(), origin="system"
    )
    (outcome,) = world.deliver(message)
    assert outcome.status == "applied", outcome
    found = world.json("timers", "list", "users") if is_later else world.json("outbox", "list", "users")["entries"]
    return str(found[0]["command_id"])


@pytest.mark.parametrize("is_later", [False, True])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("items", "coordinator cancel {} --lane items"),
        ("effects.payments", "{} is a call to the outside (effects.payments)"),
    ],
)
def test_what_goes_elsewhere_is_not_said_to_be_cancelled_here(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str, words: str, *, is_later: bool
) -> None:
    command_id = asked(world, what, is_later=is_later)
    said = world.run("cancel", command_id, "--lane", "users", expect=1).stderr
    assert words.format(command_id) in said
    assert (f"coordinator timers cancel users {command_id}" in said) == is_later
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CommandRefused, match=command_id):
        acts.cancel("users", "ada", "wrong", command_id)
    assert world.json("audit", "users", "--operators") == []


@pytest.mark.parametrize(
    ("what", "words"),
    [("items", "coordinator cancel {} --lane items"), ("effects.payments", "no command keeps a worker from making it")],
)
def test_what_the_broker_has_is_not_said_to_be_cancelled_here_either(world: World, what: str, words: str) -> None:
    """A moment after it was emitted only the lane's log tells where it went."""
    command_id = asked(world, what, is_later=False)
    world.lane.confirm(world.emitted)
    world.deliver(CommandMessage(command_id=new_command_id(), type="users.ghost", arguments=b"{}"))
    assert world.json("outbox", "list", "users")["entries"] == []
    said = world.run("cancel", command_id, "--lane", "users", expect=1).stderr
    assert words.format(command_id) in said


@pytest.mark.parametrize("is_later", [False, True])
def test_what_comes_back_to_the_lane_is_cancelled(world: World, *, is_later: bool) -> None:
    command_id = asked(world, "users", is_later=is_later)
    said = world.run("cancel", command_id, "--lane", "users").stdout
    assert f"lane users will not apply command {command_id}; it is one that a lane has emitted" in said


def test_of_an_id_that_a_client_has_made_only_its_lane_is_said(world: World) -> None:
    command_id = new_command_id()
    assert (
        world.run("cancel", command_id, "--lane", "users").stdout == f"lane users will not apply command {command_id}\n"
    )
