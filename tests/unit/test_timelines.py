"""A command's timeline: its moments by two clocks, and where it stands, as `coordinator command` shows it."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coordinator.client.timeline import GatewayTimes, LaneTimes, Timeline, issued_at, settled_timeline, with_moments
from coordinator.operate.conditions import LaneCondition
from coordinator.operate.open import lane_admin
from coordinator.operate.timelines import queued_timeline
from coordinator.operations.settled_commands import known_command
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import LaneSettings
from coordinator.service.ids import new_command_id, replay_command_id
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.outcomes import forgotten_entry
from tests.unit.test_operate_letters import CASHIER, START, World, park_a_key, world
from tests.unit.test_operate_timers import Plan, do, planned

__all__ = ("planned", "world")

BEGAN = datetime(2026, 5, 1, 12, tzinfo=UTC)
ID = "019de368-f600-7000-8000-000000000000"
"""Made at BEGAN."""
ARGUMENTS = b'{"id": 1, "amount": 5}'


def at(ms: float) -> datetime:
    return BEGAN + timedelta(milliseconds=ms)


def shown(gateway: GatewayTimes | None, lane: LaneTimes, command_id: str = ID) -> Timeline:
    return with_moments(Timeline(command_id=command_id, standing="applied", lane="users"), gateway, lane)


def issued(message: CommandMessage) -> str:
    return message.command_id or ""


def test_an_id_with_a_time_tells_when_it_was_made_and_no_other() -> None:
    made_at = issued_at(ID)
    assert made_at == BEGAN
    now = issued_at(new_command_id())
    assert now is not None
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=60)
    assert issued_at(replay_command_id(ID)) is None


def test_an_id_with_a_time_that_no_calendar_has_tells_none(world: World) -> None:
    """A client made it up: his command is looked at like all others."""
    last = issued_at("e677ccf9-7fff-7fff-8fff-ffffffffffff")
    assert last is not None
    assert (last.year, last.day) == (9999, 30)
    command_id = "ffffffff-ffff-7fff-8fff-ffffffffffff"
    assert issued_at(command_id) is None
    world.deliver(CommandMessage(command_id=command_id, type="users.credit", arguments=ARGUMENTS, actor=CASHIER))
    assert world.json("command", command_id, "--lane", "users")["timeline"]["sequence"] == 1


def test_moments_count_from_the_first_and_say_whose_clock_they_are_by() -> None:
    gateway = GatewayTimes(received_at=at(0), published_at=at(3), outcome_at=at(9), answered_at=at(9.5))
    found = shown(gateway, LaneTimes(applied_at=at(5)))
    assert [(each.name, each.ms, each.clock, each.at_latest) for each in found.moments] == [
        ("received", 0.0, "gateway", False),
        ("published", 3.0, "gateway", False),
        ("applied", 5.0, "lane", False),
        ("committed", 9.0, "gateway", True),
        ("answered", 9.5, "gateway", False),
    ]
    assert found.clocks is None
    exact = shown(gateway, LaneTimes(delivered_at=at(4), applied_at=at(5), committing_at=at(6), committed_at=at(8)))
    assert [(each.name, each.ms, each.clock, each.at_latest) for each in exact.moments[2:-1]] == [
        ("delivered", 4.0, "lane", False),
        ("applied", 5.0, "lane", False),
        ("committing", 6.0, "lane", False),
        ("committed", 8.0, "lane", False),
    ]
    without = shown(None, LaneTimes(applied_at=at(5)))
    assert [(each.name, each.ms, each.at_latest) for each in without.moments] == [
        ("received", 0.0, True),
        ("applied", 5.0, False),
    ]
    assert shown(None, LaneTimes(), replay_command_id(ID)).moments == ()


@pytest.mark.parametrize(
    ("applied_ms", "words"),
    [(-40, "at least 40 ms behind"), (70, "at least 61 ms ahead of"), (-1, None), (10, None)],
)
def test_clocks_that_contradict_each_other_are_told(applied_ms: float, words: str | None) -> None:
    gateway = GatewayTimes(received_at=at(0), outcome_at=at(9))
    found = shown(gateway, LaneTimes(applied_at=at(applied_ms)))
    assert (found.clocks is None) == (words is None)
    assert words is None or words in (found.clocks or "")
    assert ("applied", float(applied_ms)) in [(each.name, each.ms) for each in found.moments]


def test_a_settled_command_shows_its_outcome_and_when_it_was_applied(world: World) -> None:
    command_id = new_command_id()
    world.deliver(CommandMessage(command_id=command_id, type="users.credit", arguments=ARGUMENTS, actor=CASHIER))
    found = world.json("command", command_id, "--lane", "users")
    timeline = found["timeline"]
    assert (found["status"], timeline["standing"], timeline["why"]) == (
        "rejected",
        "rejected",
        "user_not_found: there is no user 1",
    )
    assert (timeline["sequence"], timeline["epoch"], timeline["consumer"]) == (1, 1, "test")
    assert [each["name"] for each in timeline["moments"]] == ["received", "applied", "committing"]
    assert "behind" in timeline["clocks"], "the lane of the test is at the beginning of the year"
    text = world.run("command", command_id, "--lane", "users").stdout
    assert "user_not_found" in text
    assert "received at the latest (gateway's clock)" in text


def test_a_command_that_was_settled_in_the_future_tells_of_the_lanes_clock(world: World) -> None:
    """Else it looks as if it had waited for so long, and its deadline had passed."""
    command_id = new_command_id()
    world.now = datetime.now(UTC) + timedelta(hours=1)
    world.deliver(CommandMessage(command_id=command_id, type="users.credit", arguments=ARGUMENTS, actor=CASHIER))
    clocks = world.json("command", command_id, "--lane", "users")["timeline"]["clocks"] or ""
    assert re.match(r"the clock of lane users is at least 3[56]\d\d s ahead of that of this machine: ", clocks)


def test_a_command_says_of_which_batch_it_was(world: World) -> None:
    ids = [new_command_id() for _ in range(7)]
    for some in (ids[:1], ids[1:6], ids[6:]):
        world.now += timedelta(seconds=1)
        messages = [
            CommandMessage(command_id=each, type="users.credit", arguments=ARGUMENTS, actor=CASHIER) for each in some
        ]
        world.deliver(*messages)
    timelines = [world.json("command", each, "--lane", "users")["timeline"] for each in ids]
    assert [each["batch_size"] for each in timelines] == [1, 5, 5, 5, 5, 5, 1]
    assert [each["place"] for each in timelines] == [1, 1, 2, 3, 4, 5, 1]
    assert "3 of 5" in world.run("command", ids[3], "--lane", "users").stdout


def test_the_command_that_an_outcome_becomes_is_a_child(planned: World) -> None:
    message = CommandMessage(
        command_id=new_command_id(),
        type="users.credit",
        arguments=ARGUMENTS,
        origin="system",
        continuation="users.told",
    )
    planned.deliver(message)
    (child,) = planned.json("command", issued(message), "--lane", "users")["timeline"]["children"]
    assert (child["how"], child["lane"], child["type"], child["standing"]) == (
        "continuation",
        "users",
        "users.told",
        "outbox",
    )
    planned.sent()
    (child,) = planned.json("command", issued(message), "--lane", "users")["timeline"]["children"]
    assert child["standing"] == "applied"
    assert planned.json("command", child["command_id"], "--lane", "users")["type"] == "users.told"


def test_a_dead_letter_says_what_to_do_and_its_replay_is_a_child(world: World) -> None:
    message = world.bury(type="users.credit", arguments=b'{"id": 1}')
    timeline = world.json("command", issued(message), "--lane", "users")["timeline"]
    assert (timeline["standing"], timeline["letters"], timeline["children"]) == ("failed", [1], [])
    assert timeline["where"] == "failed in lane users as number 1; dead letter 1 of lane users"
    assert timeline["todo"].endswith(", then: coordinator dead replay --lane users --letter 1")
    replay_id = replay_command_id(issued(message))
    world.json("dead", "replay", issued(message), "--args", '{"id": 1, "amount": 3}')
    children = world.json("command", issued(message), "--lane", "users")["timeline"]["children"]
    assert [(each["command_id"], each["how"], each["standing"]) for each in children] == [
        (replay_id, "replay", "outbox")
    ]
    waits = world.run("command", replay_id, "--lane", "users", expect=1)
    assert "in the outbox of lane users, for lane users of its process, which has not settled it yet" in waits.stderr
    world.sent()
    (child,) = world.json("command", issued(message), "--lane", "users")["timeline"]["children"]
    assert child["standing"] == "rejected"


def test_a_timer_says_when_it_is_due(planned: World) -> None:
    do(planned, Plan(minutes=[9]))
    (timer,) = planned.json("timers", "list", "users")
    ran = planned.run("command", timer["command_id"], "--lane", "users", "--json", expect=1)
    assert '"standing":"timed"' in ran.stdout
    assert f"waits in lane users until {START + timedelta(minutes=9):%Y-%m-%d %H:%M:%SZ}" in ran.stderr


def test_what_nobody_knows_is_not_settled(world: World) -> None:
    ran = world.run("command", ID, "--lane", "users", expect=1)
    assert "lane users has not settled command" in ran.stderr
    assert "its id was made" in ran.stdout


@pytest.mark.parametrize(("state", "more"), [("idle", 0), ("unknown", LaneSettings().prefetch)])
def test_of_an_idle_lane_nothing_more_is_counted_than_its_coordinator_said(state: str, more: int) -> None:
    condition = LaneCondition(lane="users", state=state, why=None, waiting=0)
    assert queued_timeline(condition, ID).waiting_before == more


def test_a_command_behind_a_failed_one_says_which_and_how_many_are_before_it(world: World) -> None:
    failed, (first, second) = park_a_key(world, waiting=2)
    ran = world.run("command", second, "--lane", "users", "--json", expect=1)
    assert '"standing":"parked"' in ran.stdout
    assert '"waiting_before":2' in ran.stdout
    assert f"waits for its key, behind command {failed} and 1 other" in ran.stderr
    assert "coordinator release users 'users.id=1'" in ran.stderr
    assert "coordinator dead replay --lane users --letter 1; or let them go on" in ran.stderr
    assert "others" not in world.run("command", first, "--lane", "users", expect=1).stderr
    (status,) = world.json("status", "users", "--sample-s", "0", expect=1)
    assert (status["parked"], status["parked_keys"]) == (2, 1)
    said = world.run("status", "users", "--sample-s", "0", expect=1).stdout
    assert "2 commands wait for 1 key (`coordinator parked users`)" in said


def test_who_waits_behind_a_step_of_which_a_saga_was_told_is_not_advised_to_replay_it(world: World) -> None:
    _, (waiting,) = park_a_key(world, waiting=1, continuation="users.continue_purchase")
    said = world.run("command", waiting, "--lane", "users", expect=1).stderr
    assert "was told that it failed (users.continue_purchase)" in said
    assert "coordinator dead replay" not in said
    assert "coordinator release users 'users.id=1'" in said


def test_operators_are_told_the_reason_in_place_of_where_they_find_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients are told that operators find it under the command's id, and so the log has it."""
    failed, _ = park_a_key(world, waiting=1)
    reason = "this release has a defect"
    for arguments in (["command", failed, "--lane", "users"], ["status", "users", "--sample-s", "0"]):
        said = world.run(*arguments, expect=int(arguments[0] == "status")).stdout
        assert reason in said
        assert "operators find" not in said
    monkeypatch.setenv("USERS_DATABASE_URL", world.environment["USERS_DATABASE_URL"])
    with lane_admin("users") as admin:
        known = known_command(admin, "users", failed, {}, with_content=True)
        hidden = known_command(admin, "users", failed, {}, with_content=False)
    assert known is not None
    assert known.entry is not None
    assert reason in (known.entry.error_message or "")
    assert hidden is not None
    assert reason not in repr(hidden)


def test_a_forgotten_command_says_so() -> None:
    entry = LogEntry(
        command_id=ID,
        sequence=1,
        epoch=1,
        type="users.credit",
        fingerprint="f",
        status="applied",
        result="{}",
        error_code=None,
        error_message=None,
        settled_at=BEGAN,
    )
    found = settled_timeline("users", forgotten_entry(entry, without_actor=True))
    assert (found.standing, found.sequence) == ("applied", 1)
    assert "is forgotten" in (found.why or "")


@pytest.mark.parametrize("digits", ["ffffffffffff", "e677d21fdc00"])
def test_an_id_beyond_the_calendar_tells_no_time(digits: str) -> None:
    """Whoever chooses his command's id must not make it one that nobody can look at."""
    assert issued_at(f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000") is None


def test_what_a_lane_that_is_away_may_have_to_do_with_a_command_is_not_said_to_be_nothing(
    world: World, tmp_path: Path
) -> None:
    world.environment |= {f"{lane}_DATABASE_URL": f"sqlite:///{tmp_path}/no/such" for lane in ("ITEMS", "PAYMENTS")}
    settled = world.bury()
    ran = world.run("command", settled.command_id)
    assert ran.stderr.count("coordinator: not looked into: ") == 2
    assert world.run("command", settled.command_id, "--lane", "users").stderr == ""
