"""Who asked for what waits, as an operator sees him: of an outbox, of timers and of parked commands."""

from datetime import timedelta

import msgspec
import pytest

from coordinator.operate.actors import named
from coordinator.protocol.actors import Logged
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.service.commands import Command
from coordinator.service.ids import new_command_id
from coordinator.service.principal import Principal
from coordinator.service.unit_of_work import Handler, UnitOfWork
from shared.users.commands import CreditUser
from tests.unit.test_operate_letters import World, world

__all__ = ("world",)

ADA = Principal(subject="ada@x.org", tenant="acme", scopes=frozenset({"cashier"}))
ADAS = {"subject": "ada@x.org", "tenant": "acme"}
BOB = Principal(subject="bob@x.org", scopes=frozenset({"cashier"}))


class Pass(Command, type="users.pass"):
    """Has a user credited: at once, and once more in a minute."""


def pass_on(work: UnitOfWork, command: Pass) -> None:
    work.emit(CreditUser(id=1, amount=5))
    work.emit(CreditUser(id=1, amount=6), after=timedelta(minutes=1))


def fail(work: UnitOfWork, command: CreditUser) -> None:
    raise RuntimeError("this release has a defect")


def do(world: World, command: Command, actor: Principal | None) -> None:
    world.deliver(
        CommandMessage(
            command_id=new_command_id(),
            type=command.type,
            arguments=command.arguments(),
            origin="system",
            actor=actor,
        )
    )


def test_a_subject_that_could_be_another_with_his_tenant_is_quoted() -> None:
    actors = [Logged("eve"), Logged("eve", "t"), Logged("eve (t)"), Logged('"eve'), Logged("e", "t) (t")]
    assert [named(each) for each in actors] == ["eve", "eve (t)", '"eve (t)"', '"\\"eve"', "e (t) (t)"]
    assert named(None) is None


@pytest.mark.parametrize("listed", ["outbox", "timers"])
def test_who_asked_for_what_is_emitted_is_shown_without_his_scopes(world: World, listed: str) -> None:
    users = registry().service("users")
    world.start(users.replace(handlers=(*users.handlers, Handler(Pass, pass_on))))
    for actor in (ADA, BOB, None):
        do(world, Pass(), actor)
    found = world.json(listed, "list", "users")
    entries = found["entries"] if listed == "outbox" else found
    assert [entry["actor"] for entry in entries] == [ADAS, {"subject": "bob@x.org"}, None]
    assert all("options" not in entry for entry in entries)
    text = world.run(listed, "list", "users").stdout
    last = [line.split("  ")[-1] for line in text.splitlines()[-4:]]
    assert [each.strip() for each in last] == ["ACTOR", "ada@x.org (acme)", "bob@x.org", "-"]
    assert "cashier" not in text


def test_who_asked_for_a_parked_command_is_shown(world: World) -> None:
    users = registry().service("users")
    handlers = [
        msgspec.structs.replace(handler, handle=fail, on_failure="park-key")
        if handler.command is CreditUser
        else handler
        for handler in users.handlers
    ]
    world.start(users.replace(handlers=tuple(handlers)))
    for actor in (ADA, BOB, None):
        do(world, CreditUser(id=1, amount=5), actor)
    (key,) = world.json("parked", "users")
    assert (key["actor"], key["waiting_actors"]) == (ADAS, [{"subject": "bob@x.org"}, None])
    heads, row = world.run("parked", "users").stdout.splitlines()
    assert (heads.split()[-1], row.endswith("  ada@x.org (acme)")) == ("ACTOR", True)
