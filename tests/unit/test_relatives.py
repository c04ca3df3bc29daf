"""What led to a command and what it led to, across commands of a lane, as `coordinator command` and `find` show it."""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from coordinator.client.timeline import Related
from coordinator.lane.control import DeadEffect, ReplayLetter
from coordinator.operate.conditions import LaneCondition, full_queues
from coordinator.operate.effects_conditions import NO_WORKER, EffectsCondition
from coordinator.operate.following import GIVEN_UP, emitted_stop, held_up, kept_answer_stop
from coordinator.operate.lane_status import LaneStatus, OutboxStatus
from coordinator.operate.log_times import first_since
from coordinator.operate.open import lane_admin
from coordinator.operate.output import now
from coordinator.operate.places import PlaceKind, Stop
from coordinator.operate.processes import SeenProcess
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.service.ids import derived_command_id, new_command_id
from coordinator.service.options import Origin
from coordinator.service.outside_calls import Effect
from coordinator.service.unit_of_work import Handler, UnitOfWork
from shared.items.commands import QuoteItem
from shared.users.commands import CreditUser
from tests.unit.test_operate_letters import CASHIER, START, World, world

__all__ = ("world",)


LATER = 60
"""So much credit asks for its call in an hour."""


class Call(Effect, type="users.call"):
    number: int


def ask(work: UnitOfWork, command: CreditUser) -> None:
    work.emit(Call(number=command.amount), after=timedelta(hours=1) if command.amount == LATER else None)


def quote_item(work: UnitOfWork, command: CreditUser) -> None:
    work.emit(QuoteItem(id=command.id))


@pytest.fixture
def asking(world: World) -> World:
    """Each credit asks for a call."""
    users = registry().service("users")
    handlers = [each for each in users.handlers if each.command is not CreditUser]
    world.start(users.replace(handlers=(*handlers, Handler(CreditUser, ask))))
    return world


def credit(world: World, amount: int = 5) -> str:
    command_id = new_command_id()
    arguments = b'{"id": 1, "amount": %d}' % amount
    world.deliver(CommandMessage(command_id=command_id, type="users.credit", arguments=arguments, actor=CASHIER))
    return command_id


def shown(world: World, command_id: str) -> dict[str, Any]:
    found: dict[str, Any] = world.json("command", command_id, "--lane", "users")
    timeline: dict[str, Any] = found["timeline"]
    return timeline


def condition(**fields: Any) -> LaneCondition:
    return LaneCondition(**({"lane": "users", "state": "idle", "why": None, "waiting": 0} | fields))


def test_an_effect_is_a_child_and_says_whether_the_broker_has_it(asking: World) -> None:
    command_id = credit(asking)
    (child,) = shown(asking, command_id)["children"]
    assert (child["how"], child["lane"], child["type"], child["standing"]) == (
        "effect",
        "effects.users",
        "users.call",
        "outbox",
    )
    emitted, asking.emitted = asking.emitted, []
    asking.lane.confirm(emitted)
    credit(asking)
    (child,) = shown(asking, command_id)["children"]
    assert child["standing"] == "outside"


def test_an_effect_that_the_broker_has_is_found_by_the_command_that_asked_for_it(asking: World) -> None:
    command_id = credit(asking)
    (effect,) = asking.emitted
    asking.lane.confirm([effect])
    asking.emitted = []
    credit(asking)
    ran = asking.run("command", effect.command_id, "--lane", "users", "--json", expect=1)
    assert '"standing":"outside"' in ran.stdout
    assert f'"parent":{{"command_id":"{command_id}","how":"effect","lane":"users"' in ran.stdout
    assert "with the workers of effects.users, or done" in ran.stderr


@pytest.mark.parametrize(
    ("named", "said"),
    [((), "lane items cannot be looked into"), (("--lane", "users"), "sent to items, of which nothing is known here")],
)
def test_of_what_was_emitted_to_a_lane_that_is_away_nobody_knows_whether_it_is_settled(
    world: World, named: tuple[str, ...], said: str
) -> None:
    users = registry().service("users")
    handlers = [each for each in users.handlers if each.command is not CreditUser]
    world.start(users.replace(handlers=(*handlers, Handler(CreditUser, quote_item))))
    credit(world)
    (quote,) = world.emitted
    take(world)
    world.environment["ITEMS_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:9/items"
    ran = world.run("command", quote.command_id, *named, "--json", expect=1)
    assert said in ran.stdout
    if not named:
        assert '"standing":"unknown"' in ran.stdout


def test_what_waits_is_told_though_another_lane_has_no_address(asking: World) -> None:
    credit(asking)
    (call,) = asking.emitted
    asking.environment["ITEMS_DATABASE_URL"] = "nowhere://items"
    ran = asking.run("command", call.command_id, expect=1)
    assert "outbox" in ran.stdout


@pytest.mark.parametrize("passed_on", [False, True])
def test_the_result_of_an_effect_is_linked_to_it_and_it_to_that(asking: World, passed_on: bool) -> None:
    command_id = credit(asking)
    (effect,) = asking.emitted
    asking.lane.confirm([effect])
    named = f"{effect.type} {effect.command_id}"
    result_id, body = derived_command_id(named, 0, b""), b'{"id": 1, "amount": 3}' if not passed_on else b'{"id": 1}'
    result = CommandMessage(result_id, "users.credit", body, origin="system", result_of=named)
    asking.emitted = []
    asking.deliver(result)
    if passed_on:
        # It failed, and what an operator has replayed is the result, too.
        asking.json("dead", "replay", result_id, "--args", '{"id": 1, "amount": 3}')
        (again,) = asking.emitted
        asking.sent()
        result_id = again.command_id
    parent = shown(asking, result_id)["parent"]
    assert (parent["how"], parent["command_id"], parent["lane"], parent["standing"]) == (
        *("result", effect.command_id),
        *("effects.users", "carried_out"),
    )
    called, *results = shown(asking, command_id)["children"]
    assert (called["how"], called["standing"]) == ("effect", "carried_out")
    assert (results[-1]["how"], results[-1]["command_id"], results[-1]["standing"]) == ("result", result_id, "applied")
    ran = asking.run("command", effect.command_id, "--lane", "users", "--json", expect=1)
    assert f"its result is users.credit {results[0]['command_id']}" in ran.stderr


def kept(world: World, command_id: str, **effects: Any) -> Stop:
    """Where a command stands whose answer a row keeps."""
    idle: dict[str, Any] = {"state": "idle", "waiting": 0, "under_way": 0, "oldest_s": 0.0}
    known = EffectsCondition(**(idle | effects))
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in world.environment.items():
            patch.setenv(name, value)
        admin = stack.enter_context(lane_admin("users"))
        return kept_answer_stop(admin, condition(effects=known), "row 7 keeps it", command_id, "users.credit")


def take(world: World) -> None:
    """The broker has taken what the lane has emitted."""
    world.lane.confirm(world.emitted)
    world.emitted = []
    world.lane.sweep()


def bury(world: World, effect_id: str, code: str, origin: Origin = "system") -> None:
    """A letter of an effect."""
    dead = DeadEffect(command_id=effect_id, effect_type="users.call", body="{}", code=code, reason="no", origin=origin)
    world.deliver(CommandMessage(new_command_id(), dead.type, dead.arguments(), origin="system"))


def test_what_waits_for_a_call_whose_result_failed_is_found_at_the_letter_of_that(asking: World) -> None:
    command_id = credit(asking)
    (effect,) = asking.emitted
    take(asking)
    assert kept(asking, command_id).kind == "outside"
    named = f"{effect.type} {effect.command_id}"
    result_id = derived_command_id(named, 0, b"")
    asking.deliver(CommandMessage(result_id, "users.credit", b'{"id": 1}', origin="system", result_of=named))
    stop = kept(asking, command_id)
    assert (stop.kind, stop.command_id, stop.letter) == ("dead_letter", result_id, 1)
    assert stop.text.endswith("made, and its result (users.credit) is dead letter 1 of lane users")
    assert stop.todo is not None
    assert stop.todo.endswith(", then: coordinator dead replay --lane users --letter 1")
    asking.json("dead", "replay", result_id, "--args", '{"id": 1, "amount": 3}')
    asking.sent()
    # Its own call is over. What else the row waits for nobody knows.
    stop = kept(asking, command_id, state="working", oldest_s=600.0, under_way=1)
    assert stop.why is None
    assert "its call to the outside is carried out by the workers of effects.users: its result is" in stop.text


def test_what_waits_for_a_call_whose_result_was_given_up_says_so(asking: World) -> None:
    command_id = credit(asking)
    (effect,) = asking.emitted
    take(asking)
    named = f"{effect.type} {effect.command_id}"
    result_id = derived_command_id(named, 0, b"")
    asking.deliver(CommandMessage(result_id, "users.credit", b'{"id": 1}', origin="system", result_of=named))
    asking.json("dead", "discard", result_id)
    stop = kept(asking, command_id)
    assert (stop.kind, stop.why) == ("outside", GIVEN_UP)
    assert "coordinator audit users --operators" in (stop.todo or "")


def test_what_waits_for_a_call_that_failed_is_found_at_its_own_letter(asking: World) -> None:
    ids = credit(asking), credit(asking)
    own, other = asking.emitted
    take(asking)
    bury(asking, other.command_id, "of another call")
    stop = kept(asking, ids[0], state="working", under_way=1)
    assert stop.kind == "outside"
    assert "letter" not in (stop.why or "")
    bury(asking, own.command_id, "of a stranger", origin="public")
    assert kept(asking, ids[0]).kind == "outside"
    bury(asking, own.command_id, "of its own")
    stop = kept(asking, ids[0], state="working", under_way=1)
    assert (stop.kind, stop.command_id, stop.letter) == ("dead_letter", own.command_id, 3)
    assert stop.why == "users.call failed (of its own): no"
    assert stop.todo == "mend the cause, then: coordinator dead replay --lane users --letter 3"


def test_where_nobody_knows_whose_a_letter_is_it_may_be_that_of_the_call(asking: World) -> None:
    """Such as where the command that asked for the call is another one. While calls are made nobody can tell."""
    bury(asking, new_command_id(), "some")
    unknown = new_command_id()
    assert kept(asking, unknown).why == "effects.users has dead letters, and one may be its call: some: no"
    assert kept(asking, unknown, state="working", under_way=1).why is None


def test_a_call_that_its_lane_has_not_sent_is_found_there(asking: World) -> None:
    asking.now = now() - timedelta(seconds=10)
    command_id = credit(asking)
    stop = kept(asking, command_id, state="no_worker", why="no effect worker runs")
    assert (stop.kind, stop.why) == ("outbox", "no effect worker runs")
    assert "a call to the outside (effects.users) is in the outbox of lane users, for effects.users" in stop.text
    refused = kept(asking, command_id)
    assert (refused.kind, refused.text) == ("outbox", stop.text)
    assert (refused.why or "").startswith("the broker has not taken it")
    take(asking)
    assert kept(asking, command_id).kind == "outside"
    stop = kept(asking, credit(asking, LATER), state="provider_away", why="away")
    assert (stop.kind, stop.why, stop.target) == ("timer", None, "effects.users")
    assert "a call to the outside (effects.users) waits in lane users until" in stop.text


def test_how_long_a_call_has_had_no_result_is_said_of_its_own(asking: World) -> None:
    asking.now = now() - timedelta(seconds=30)
    old = credit(asking)
    asking.now = now()
    new = credit(asking)
    take(asking)
    busy = {"state": "working", "under_way": 2, "oldest_s": 30.0}
    assert (kept(asking, old, **busy).why or "").startswith("its call to the outside has had no result for 30 s")
    assert kept(asking, new, **busy).why is None


def test_the_parent_of_a_replay_is_the_order_that_had_it_replayed(world: World) -> None:
    message = world.bury(type="users.credit", arguments=b'{"id": 1}')
    world.json("dead", "replay", message.command_id or "", "--args", '{"id": 1, "amount": 3}')
    (emitted,) = world.emitted
    world.sent()
    parent = shown(world, emitted.command_id)["parent"]
    assert (parent["how"], parent["type"], parent["standing"]) == ("replay", ReplayLetter.type, "applied")


def test_why_a_command_waits_is_asked_of_the_coordinators_that_are_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its own words advise where none was."""
    asked: list[str] = []

    def ask_all(urls: Sequence[str]) -> list[SeenProcess]:
        asked.extend(urls)
        return []

    monkeypatch.setattr("coordinator.operate.looking.ask_all", ask_all)
    world.run("command", new_command_id(), "--lane", "users", "--coordinator", "http://c:1", expect=1)
    assert set(asked) == {"http://c:1"}


def test_a_client_s_command_has_no_parent(asking: World) -> None:
    assert shown(asking, credit(asking))["parent"] is None


def test_a_time_is_found_in_the_log(asking: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in asking.environment.items():
        monkeypatch.setenv(name, value)
    for _ in range(5):
        asking.now += timedelta(seconds=10)
        credit(asking)
    with lane_admin("users") as admin:
        found = [first_since(admin, START + timedelta(seconds=seconds)) for seconds in (0, 10, 11, 50, 51)]
    assert found == [1, 1, 2, 5, 6]


@pytest.mark.parametrize(
    ("state", "words", "todo"),
    [
        ("provider_away", "the provider does not answer", "nothing is lost"),
        ("no_worker", NO_WORKER, "coordinator effects users"),
        # It runs, and is cut off.
        ("no_worker", "no effect worker can work: RabbitMQ is away", "the workers go on by themselves"),
    ],
)
def test_an_effect_says_why_there_is_no_answer(state: str, words: str, todo: str) -> None:
    effects = EffectsCondition(state=state, why=words, waiting=7, under_way=2)
    child = Related(command_id="0", how="effect", lane="effects.users", type="users.call")
    stop = emitted_stop(child, (), {"users": condition(effects=effects)})
    assert (stop.kind, stop.why) == ("outside", words)
    assert todo in (stop.todo or "")
    assert "7 wait in their queue and 2 are under way" in stop.text


def test_an_entry_of_an_outbox_says_what_keeps_it_there() -> None:
    stop = Stop(kind="outbox", lane="users", text="here", target="items")
    full = condition(lane="items", full="its queue is full", state="stuck", why="nothing is settled")
    assert held_up(stop, {"users": condition()}).why is None
    assert held_up(stop, {"users": condition(state="paused", why="a release")}).why == (
        "lane users is paused: a release"
    )
    kept = held_up(stop, {"users": condition(), "items": full})
    assert "the queue of lane items takes nothing more: its queue is full; lane items is stuck" in (kept.why or "")
    assert "/readyz" in (kept.todo or "")
    stuck = condition(state="stuck", why="1 waits, and nothing is settled")
    assert held_up(stop, {"users": stuck}).why == "lane users is stuck: 1 waits, and nothing is settled"


def test_an_entry_of_an_outbox_names_its_lane_and_that_for_which_it_is_where_both_keep_it() -> None:
    """Whoever mends what is named finds nothing that he was not told of."""
    stop = Stop(kind="outbox", lane="users", text="here", target="items")
    paused = condition(state="paused", why="a release")
    suspended = condition(lane="items", state="suspended", why="no space", cause="database")
    held = held_up(stop, {"users": paused, "items": suspended})
    assert held.why == "lane users is paused: a release; lane items is suspended: no space"
    assert held.todo is not None
    assert held.todo.startswith("once the reason is over: coordinator resume users; and for lane items: ")
    # A full queue comes first: what is emitted leaves its lane whatever that settles.
    full = replace(suspended, full="its queue is full")
    held = held_up(stop, {"users": paused, "items": full})
    assert held.why == (
        "the queue of lane items takes nothing more: its queue is full; lane items is suspended: no space; "
        "lane users is paused: a release"
    )
    assert (held.todo or "").endswith("; and for lane users: once the reason is over: coordinator resume users")


@pytest.mark.parametrize("kind", ["parked", "dead_letter"])
def test_what_an_operator_mends_in_a_lane_that_is_kept_names_the_lane_too(kind: PlaceKind) -> None:
    """His order waits there like any command."""
    stop = Stop(kind=kind, lane="users", text="here", why="users.credit failed", todo="coordinator dead replay")
    assert held_up(stop, {"users": condition()}) == stop
    held = held_up(stop, {"users": condition(state="paused", why="a release")})
    assert held.why == "users.credit failed; lane users is paused: a release"
    assert held.todo == (
        "coordinator dead replay; and for lane users: once the reason is over: coordinator resume users"
    )


def test_a_call_of_which_nothing_is_known_names_its_lane_where_that_is_kept() -> None:
    child = Related(command_id="0", how="effect", lane="effects.users", type="users.call")
    stop = emitted_stop(child, (), {"users": condition(state="paused", why="a release")})
    assert stop.why == "lane users is paused: a release"


@pytest.mark.parametrize("state", ["provider_away", "working", "no_worker"])
def test_a_call_that_is_kept_names_its_lane_too_where_that_is_kept(state: str) -> None:
    """Its result waits there."""
    effects = EffectsCondition(state=state, why="it has waited 7 s for the provider", oldest_s=7.0)
    child = Related(command_id="0", how="effect", lane="effects.users", type="users.call")
    stop = emitted_stop(child, (), {"users": condition(effects=effects, state="paused", why="a release")})
    assert stop.why == "it has waited 7 s for the provider; lane users is paused: a release"
    assert (stop.todo or "").endswith("; and for lane users: once the reason is over: coordinator resume users")


def test_what_the_broker_has_refused_says_so_until_its_lane_tries_again() -> None:
    """The queue has room again, and the lane waits for its next try."""
    stop = Stop(kind="outbox", lane="users", text="here", target="items", at=now() - timedelta(seconds=2))
    idle = {"users": condition(), "items": condition(lane="items")}
    assert held_up(stop, idle).why is None
    late = replace(stop, at=now() - timedelta(seconds=4))
    held = held_up(late, idle)
    why = "the broker has not taken it, or what is before it: it has no room, or the queue was full, or is not there"
    assert held.why == why
    assert "lane users tries again by itself, after pauses that grow to 30 s" in (held.todo or "")
    nobody = condition(lane="items", state="stuck", why="no coordinator consumes its queue")
    held = held_up(late, idle | {"items": nobody})
    assert (held.why or "").endswith("; lane items is stuck: no coordinator consumes its queue")
    assert held.todo == "start one, with its account: coordinator run items"
    # A call to the outside that one process has handed over to its worker was refused by nobody.
    local = condition(is_local=True)
    assert held_up(replace(late, target="effects.users"), {"users": local}).why is None
    # What goes to a lane that runs elsewhere goes by the broker, also from there.
    assert held_up(late, idle | {"users": local}).why == why


def test_a_call_that_is_with_the_worker_of_its_process_says_why_there_is_no_answer() -> None:
    """It stays in the outbox until it is carried out, and no broker has to do with it."""
    at = now() - timedelta(seconds=9)
    stop = Stop(kind="outbox", lane="users", text="the broker has not taken it", target="effects.users", at=at)
    effects = EffectsCondition(state="working", why="the last 6 calls had no answer", waiting=1, oldest_s=9.0)
    held = held_up(stop, {"users": condition(is_local=True, effects=effects)})
    assert (
        held.text == "with the worker of effects.users in the process of lane users, which has not carried it out yet"
    )
    assert held.why == "its call to the outside has had no result for 9 s; the last 6 calls had no answer"
    assert "at the log of the process" in (held.todo or "")


def test_what_waits_for_a_lane_of_the_same_process_is_kept_by_that() -> None:
    """It stays in the outbox until it is settled there: no broker has refused it."""
    stop = Stop(kind="outbox", lane="users", text="in the outbox: the broker has not taken it", target="items")
    users = condition(is_local=True)
    items = condition(lane="items", is_local=True, state="paused", why="a release", waiting=1)
    handed = held_up(stop, {"users": users, "items": items})
    assert handed.text == "in the outbox of lane users, for lane items of its process, which has not settled it yet"
    assert (handed.why, handed.todo) == (
        "lane items is paused: a release",
        "once the reason is over: coordinator resume items",
    )
    # Nor is a queue full whose commands are handed over so.
    waits = LaneStatus(lane="users", outbox=[OutboxStatus(target="items", entries=1, oldest_at=START)])
    statuses = {"users": waits, "items": LaneStatus(lane="items", ready=1)}
    assert full_queues(statuses, ("users", "items")) == {}
    assert list(full_queues(statuses, ())) == list(full_queues(statuses, ("items",))) == ["items"]


@pytest.mark.parametrize(("minutes", "is_kept"), [(-1, True), (1, False)])
def test_a_timer_is_kept_by_its_lane_once_it_is_due(minutes: int, is_kept: bool) -> None:
    stop = Stop(kind="timer", lane="users", text="here", due_at=now() + timedelta(minutes=minutes))
    assert (held_up(stop, {"users": condition(state="paused", why="x")}).why is not None) == is_kept
