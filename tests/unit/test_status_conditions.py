"""What `coordinator status` says of how lanes do, and their calls to the outside."""

from datetime import timedelta
from typing import Any, get_args

import msgspec
import pytest
from click.testing import CliRunner
from msgspec import UNSET, UnsetType

from coordinator.cli import cli
from coordinator.lane.delivery import SuspensionCause
from coordinator.operate.conditions import NOBODY, UNASKED, UNSAMPLED, UNSEEN_ACTIVE, LaneCondition, state_of
from coordinator.operate.effects_conditions import NAME_THEM, NO_WORKER, STUCK_S, effects_condition
from coordinator.operate.following import outside_stop, queued_stop, unsettled_words
from coordinator.operate.kept_lanes import ASK_OTHERS, waiting_words
from coordinator.operate.lane_status import LaneLooks, LaneStatus, OutboxStatus
from coordinator.operate.looking import SAMPLE_S, look_at, note_conditions
from coordinator.operate.output import now
from coordinator.operate.processes import SeenProcess, away
from coordinator.operate.queue_depth import EffectsDepth
from coordinator.operate.suspended_todo import suspended_todo

WORKER = SeenProcess(
    url="http://w:1", lane="users", state="provider_away", is_worker=True, held=2, waiting=3, oldest_s=12.0
)
DEPTH = EffectsDepth(waiting=4, consumers=1)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(looks: LaneLooks, _: float) -> list[LaneStatus]:
        looks.depths = {"users": DEPTH}
        return [LaneStatus(lane="users", sequence=7, ready=0, rate=0.0, is_paused=False, errors=[])]

    monkeypatch.setattr(LaneLooks, "look", look)
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: [WORKER])


@pytest.mark.usefixtures("told")
def test_a_provider_that_is_away_is_said_and_is_something_away() -> None:
    ran = CliRunner().invoke(
        cli, ["status", "users", "--coordinator", "http://w:1"], env={"COORDINATOR_APP": "gateways.app:APP"}
    )
    assert ran.exit_code == 1
    assert "calls outside  the provider does not answer: workers call it only now and then, until it does" in ran.stdout
    assert "7 wait, 2 under way, the oldest for 12 s" in ran.stdout
    assert ran.stdout.splitlines()[1].split()[:2] == ["users", "unknown"]


@pytest.mark.usefixtures("told")
def test_a_coordinator_that_does_not_answer_is_something_away(monkeypatch: pytest.MonkeyPatch) -> None:
    of_lane = SeenProcess(url="http://a:1", lane="users", state="active", epoch=1)
    silent = away("http://b:1", [], TimeoutError())
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: [of_lane, *silent])
    command = ["status", "users", "--coordinator", "http://a:1", "--coordinator", "http://b:1"]
    ran = CliRunner().invoke(cli, command, env={"COORDINATOR_APP": "gateways.app:APP"})
    assert (ran.exit_code, ran.stdout.splitlines()[-1]) == (1, "away  http://b:1: it does not answer")
    ran = CliRunner().invoke(cli, [*command, "--json"], env={"COORDINATOR_APP": "gateways.app:APP"})
    assert (ran.exit_code, ran.stderr) == (1, "http://b:1: it does not answer\n")
    assert [each["lane"] for each in msgspec.json.decode(ran.stdout)] == ["users"]


@pytest.mark.parametrize(("is_paused", "name"), [(False, "suspended"), (True, "away")])
def test_why_a_process_takes_nothing_is_said_once_whatever_the_lane_does(
    monkeypatch: pytest.MonkeyPatch, is_paused: bool, name: str
) -> None:
    """A paused lane has its own reason, and commands for it are refused all the same."""

    def look(looks: LaneLooks, _: float) -> list[LaneStatus]:
        looks.depths = {"users": UNSET}
        return [LaneStatus(lane="users", sequence=7, is_paused=is_paused, suspended="no room", errors=["no room"])]

    monkeypatch.setattr(LaneLooks, "look", look)
    ran = CliRunner().invoke(cli, ["status", "users"], env={"COORDINATOR_APP": "gateways.app:APP"})
    said = [each.split(maxsplit=1) for each in ran.stdout.splitlines() if "no room" in each]
    assert (ran.exit_code, said) == (1, [[name, "no room"]])


def test_a_provider_that_hangs_is_named_before_it_counts_as_away() -> None:
    reason = "it has waited 5 s for the provider"
    worker = msgspec.structs.replace(WORKER, state="working", reason=reason)
    effects = effects_condition(DEPTH, [worker], None)
    assert effects is not None
    assert (effects.state, effects.why) == ("working", reason)
    condition = LaneCondition(lane="users", state="idle", why=None, waiting=0, effects=effects)
    stop = outside_stop(condition, "with the workers", "17", "users.call")
    assert stop.why == f"a call to the outside has had no result for 12 s; {reason}"
    assert stop.todo is not None
    # What was so of the last call is no news of a worker that has nothing to do.
    done = effects_condition(
        EffectsDepth(waiting=0, consumers=1), [msgspec.structs.replace(worker, held=0, waiting=0)], None
    )
    assert done is not None
    assert (done.state, done.why) == ("idle", None)


@pytest.mark.parametrize(
    ("cause", "todo"),
    [
        ("database", "bring its database back"),
        ("blocked", "coordinator cancel ID --lane users"),
        ("commits_lost", "A database has lost acknowledged commands"),
        ("newer_release", "start a coordinator of the newer release"),
        ("conflict", "end the session that has the lock"),
        ("move", "the same `coordinator move users` again"),
        (None, "mend what it waits for"),
    ],
)
@pytest.mark.usefixtures("told")
def test_what_helps_a_suspended_lane_is_said_by_its_cause(
    monkeypatch: pytest.MonkeyPatch, cause: Any, todo: str
) -> None:
    said = SeenProcess(url="http://c:1", lane="users", state="unready", epoch=1, reason="no", cause=cause)
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: [said])
    stop = queued_stop(look_at(["users"], [])["users"], "17", None)
    assert stop.why == "lane users is suspended: no"
    assert todo in (stop.todo or "")


def test_a_lane_whose_batches_take_long_is_not_called_stuck_after_a_short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing settled within half a second is no sign: it is looked at again, as long as the pages do."""
    samples: list[float] = []
    settles = True

    def look(looks: LaneLooks, sample_s: float) -> list[LaneStatus]:
        samples.append(sample_s)
        looks.depths = {"users": None}
        rate = 1.0 if settles and len(samples) > 1 else 0.0
        return [LaneStatus(lane="users", sequence=7, ready=3, consumers=1, rate=rate, is_paused=False, errors=[])]

    monkeypatch.setattr(LaneLooks, "look", look)
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: [])
    assert look_at(["users"], [])["users"].state == "running"
    assert samples == [SAMPLE_S, STUCK_S]
    samples.clear()
    status = ["status", "users", "--sample-s", "1"]
    ran = CliRunner().invoke(cli, status, env={"COORDINATOR_APP": "gateways.app:APP"})
    assert (ran.stdout.splitlines()[1].split()[:2], samples) == (["users", "running"], [1.0, STUCK_S])
    settles = False
    stuck = look_at(["users"], [])["users"]
    assert (stuck.state, stuck.why) == ("stuck", "3 wait, and nothing is settled")
    assert "its /readyz and its log say why)" in waiting_words([stuck])
    local = msgspec.structs.replace(stuck, is_local=True)
    assert "or the first command waits for an earlier command of its publisher session" in waiting_words([local])


def test_a_queue_that_is_full_is_said_of_its_lane() -> None:
    """Also where that is paused: what others emit for it waits in their outboxes."""
    waits = OutboxStatus(target="users", entries=2, oldest_at=now() - timedelta(seconds=60))
    paused = LaneStatus(lane="users", ready=7, rate=0.0, is_paused=True, paused="a release")
    note_conditions([paused, LaneStatus(lane="items", ready=0, rate=0.0, outbox=[waits])], {"users": None}, [])
    assert paused.state == "paused"
    assert (paused.full or "").startswith("its queue is full for 2 commands of lane items, the first for 60 s")


def test_a_worker_that_hangs_is_named_once_the_broker_has_given_it_up() -> None:
    """And what helps is said: another one."""
    hangs = away("http://w:1", [WORKER], TimeoutError())
    effects = effects_condition(EffectsDepth(waiting=1, consumers=0), hangs, None)
    assert effects is not None
    assert (effects.state, effects.why) == ("no_worker", f"{NO_WORKER}; http://w:1 does not answer")
    condition = LaneCondition(lane="users", state="idle", why=None, waiting=0, effects=effects)
    stop = outside_stop(condition, "with the workers", "17", "users.call")
    assert (stop.why, stop.todo) == (effects.why, "start one, with its account: coordinator effects users")


@pytest.mark.parametrize(
    ("depth", "processes", "is_whole"),
    [
        (EffectsDepth(waiting=0, consumers=1), [WORKER], True),
        (EffectsDepth(waiting=0, consumers=2), [WORKER], False),
        (EffectsDepth(waiting=0, consumers=1), away("http://w:1", [WORKER], TimeoutError()), False),
        (UNSET, [WORKER], False),
    ],
)
def test_calls_are_all_known_where_the_broker_and_every_worker_say_theirs(
    depth: EffectsDepth | UnsetType, processes: list[SeenProcess], is_whole: bool
) -> None:
    """Whatever keeps these from their answers."""
    found = effects_condition(depth, processes, None)
    assert found is not None
    assert found.is_whole == is_whole


def test_every_cause_of_a_suspension_has_what_helps() -> None:
    assert all(suspended_todo("users", cause) for cause in get_args(SuspensionCause))


def test_a_database_that_is_another_one_is_first_a_wrong_address() -> None:
    """No copy of it has the rest where the address of its processes leads elsewhere."""
    todo = suspended_todo("users-acme", "commits_lost")
    assert todo.startswith("look first whether USERS_ACME_DATABASE_URL of its processes leads to the right database")


def test_calls_are_idle_only_where_every_worker_says_so() -> None:
    """One that hangs, or that nobody asked, may carry some out."""

    def said(*processes: SeenProcess, consumers: int = 2) -> tuple[str, str | None]:
        found = effects_condition(EffectsDepth(waiting=0, consumers=consumers), processes, None)
        assert found is not None
        return found.state, found.why

    idle = SeenProcess(url="http://w:1", lane="users", state="working", is_worker=True)
    other = msgspec.structs.replace(idle, url="http://w:2")
    unknown = "whether calls are under way is not known: "
    assert said(idle, other) == ("idle", None)
    assert said(consumers=0) == ("idle", None)
    assert said(idle) == ("unknown", f"{unknown}1 worker was not asked: {NAME_THEM}")
    assert said(idle, *away("http://w:2", [other], TimeoutError())) == (
        "unknown",
        f"{unknown}http://w:2 does not answer",
    )
    # Who asks once does not know that it is a worker.
    silent = away("http://w:2", [], TimeoutError())
    assert said(idle, *silent) == ("unknown", f"{unknown}http://w:2 does not answer")
    assert said(msgspec.structs.replace(idle, held=1), *silent) == ("working", None)
    condition = LaneCondition(
        lane="users",
        state="idle",
        why=None,
        waiting=0,
        effects=effects_condition(EffectsDepth(waiting=0, consumers=1), silent, None),
    )
    stop = outside_stop(condition, "with the workers", "17", "users.call")
    assert (stop.why, stop.todo) == (f"{unknown}http://w:2 does not answer", ASK_OTHERS)


@pytest.mark.usefixtures("told")
def test_a_worker_that_never_answered_may_carry_out_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = away("http://w:1", [], TimeoutError())
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: silent)
    status = LaneStatus(lane="users", sequence=7, ready=0, rate=0.0, is_paused=False, errors=[])
    note_conditions([status], {"users": EffectsDepth(waiting=0, consumers=1)}, ["http://w:1"])
    assert status.effects is not None
    assert (status.effects.state, status.effects.why) == (
        "unknown",
        "whether calls are under way is not known: http://w:1 does not answer",
    )


def test_a_lane_that_was_not_sampled_is_not_called_idle() -> None:
    statuses = [LaneStatus(lane="seats", sequence=7, ready=0, is_paused=False, errors=[])]
    note_conditions(statuses, {}, [])
    assert (statuses[0].state, statuses[0].why, statuses[0].effects) == ("unknown", UNSAMPLED, None)


@pytest.mark.usefixtures("told")
def test_a_lane_whose_coordinator_nobody_asked_is_not_called_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be suspended, and hold what was delivered to it."""

    def state() -> tuple[str | None, str | None]:
        (status,) = LaneLooks(["users"]).look(0.0)
        note_conditions([status], {"users": DEPTH}, [])
        return status.state, status.why

    assert state() == ("unknown", UNASKED)
    coordinator = SeenProcess(url="http://c:1", lane="users", state="active")
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: [coordinator])
    assert state() == ("idle", None)
    # A standby knows neither how the active one does, nor what that holds.
    standby = msgspec.structs.replace(coordinator, state="standby")
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: [standby])
    assert state() == ("unknown", UNSEEN_ACTIVE)
    # All that are named answer: there is nothing to bring back.
    unseen = LaneCondition(lane="users", state="unknown", why=UNSEEN_ACTIVE, waiting=0)
    assert (queued_stop(unseen, "17", None).todo or "").startswith(
        "send the lane a command, and look again: coordinator drain users --timeout-s 5; or name the coordinator"
    )
    (status,) = LaneLooks(["users"]).look(0.0)
    note_conditions([status], {"users": DEPTH}, [])
    assert status.held is None
    # It is named, and does not answer: whose it is nobody can say who asks once.
    away = SeenProcess(url="http://c:1", lane=None, state="away")
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: [away])
    why = "none of the coordinators that answer has it, and http://c:1 does not answer"
    assert state() == ("unknown", why)
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: [away, coordinator])
    assert state() == ("idle", None)


def test_where_only_this_program_does_not_reach_the_broker_the_lane_is_not_called_suspended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its coordinator knows, and what nobody could count is not called none."""

    def condition(*processes: SeenProcess) -> LaneCondition:
        status = LaneStatus(lane="users", sequence=7, rate=0.0, is_paused=False, errors=["RabbitMQ is away"])
        monkeypatch.setattr(LaneLooks, "look", lambda looks, _: [status] if look(looks) else [])
        monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: list(processes))
        return look_at(["users"], [])["users"]

    def look(looks: LaneLooks) -> bool:
        looks.depths = {"users": UNSET}
        return True

    unasked = condition()
    assert (unasked.state, unasked.why, unasked.waiting) == ("unknown", "RabbitMQ is away", None)
    assert waiting_words([unasked]) == "how lane users does is not known: RabbitMQ is away"
    assert queued_stop(unasked, "17", None).why == "how lane users does is not known: RabbitMQ is away"
    ready = SeenProcess(url="http://c:1", lane="users", state="active")
    assert condition(ready).state == "idle"
    assert condition(msgspec.structs.replace(ready, held=3)).state == "unknown"
    unready = msgspec.structs.replace(ready, state="unready", reason="RabbitMQ is away from there, too")
    suspended = condition(unready)
    assert suspended.state == "suspended"
    assert "and how many messages wait there is not known" in waiting_words([suspended])
    worker = msgspec.structs.replace(WORKER, state="working", held=0, waiting=0)
    effects = condition(ready, worker).effects
    assert effects is not None
    assert (effects.state, effects.waiting) == ("unknown", None)


def test_of_a_service_without_calls_to_the_outside_none_are_said_to_be_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also while the broker says nothing."""
    monkeypatch.setenv("AMQP_URL", "amqp://127.0.0.1:9/")
    monkeypatch.setenv("USERS_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/users")
    monkeypatch.setenv("PAYMENTS_DATABASE_URL", "mysql://nobody@127.0.0.1:9/payments")
    looks = LaneLooks(["users", "payments"])
    looks.look(0.0)
    assert looks.depths == {"users": None, "payments": UNSET}
    assert effects_condition(looks.depths["users"], [], None) is None


def test_a_lane_that_nobody_consumes_says_so_also_while_nothing_waits() -> None:
    statuses = [
        LaneStatus(lane="seats", sequence=7, ready=0, consumers=0, rate=0.0, is_paused=False, errors=[]),
    ]
    note_conditions(statuses, {"seats": None}, [])
    assert (statuses[0].state, statuses[0].why) == ("stuck", NOBODY)


def test_a_lane_without_a_broker_was_asked_itself() -> None:
    status = LaneStatus(lane="seats", sequence=7, ready=0, rate=0.0, is_paused=False, errors=[])
    note_conditions([status], {}, [])
    assert (status.state, status.why) == ("idle", None)
    note_conditions([status := LaneStatus(lane="seats", sequence=7, rate=0.0, errors=["nothing listens"])], {}, [])
    assert (status.state, status.why) == ("unknown", "nothing listens")


@pytest.mark.parametrize(
    ("processes", "said"),
    [
        ([], "up to LANE_PREFETCH messages more; how many its coordinator knows: --coordinator URL"),
        ([SeenProcess(url="http://c:1", lane="users", state="unready", held=7)], "7 messages more"),
    ],
)
def test_a_paused_lane_is_said_to_hold_what_is_known(
    monkeypatch: pytest.MonkeyPatch, processes: list[SeenProcess], said: str
) -> None:
    def look(_: LaneLooks, __: float) -> list[LaneStatus]:
        return [LaneStatus(lane="users", sequence=7, ready=0, consumers=1, is_paused=True, paused="a move", errors=[])]

    monkeypatch.setattr(LaneLooks, "look", look)
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: processes)
    ran = CliRunner().invoke(cli, ["status", "users"], env={"COORDINATOR_APP": "gateways.app:APP"})
    assert ran.stdout.splitlines()[-2:] == ["  paused  a move", f"  held    {said}"]
    assert "0+" not in ran.stdout


def test_what_nobody_was_asked_is_not_said_of_where_a_command_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: [])
    monkeypatch.setattr(
        LaneLooks,
        "look",
        lambda looks, _: [
            LaneStatus(lane=lane, sequence=7, ready=0, rate=0.0, is_paused=False, errors=[])
            for lane in ("seats", "users")
        ],
    )
    (of_seats, of_users) = look_at([], []).values()
    assert waiting_words([of_seats]) == "no lane is paused, suspended or stuck", "without a broker it was asked itself"
    unasked = msgspec.structs.replace(of_users, state="unknown", why=UNASKED)
    also = msgspec.structs.replace(unasked, lane="items")
    words = unsettled_words("17", [of_seats, unasked, also])
    assert f"how lanes users, items do is not known: {UNASKED}" in words
    assert "no lane is paused" not in words
    assert "does its gateway reach the broker?" in words


def test_a_paused_lane_says_that_its_coordinator_does_not_answer() -> None:
    """RabbitMQ counts a consumer that hangs until its heartbeats are missed."""
    paused = LaneStatus(lane="users", sequence=7, ready=1, consumers=1, rate=0.0, is_paused=True, paused="a release")
    away = SeenProcess(url="http://c:1", lane="users", state="away", reason="it does not answer")
    answers = SeenProcess(url="http://c:2", lane="users", state="unready", reason="paused by an operator: a release")
    both = "a release; its coordinator at http://c:1 does not answer"
    assert state_of(paused, 1, [away], 0.0, is_local=False) == ("paused", both)
    assert state_of(paused, 1, [away, answers], 0.0, is_local=False) == ("paused", "a release")
