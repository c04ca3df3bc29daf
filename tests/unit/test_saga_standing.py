"""What is said of a saga that stands still: why, for operators, and the line that takes it up again."""

import shlex
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any, Literal, cast
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import create_engine, insert

from coordinator.operate.conditions import UNASKED, LaneCondition
from coordinator.operate.effects_conditions import EffectsCondition
from coordinator.operate.finding import Finder
from coordinator.operate.following import Follower, outside_stop
from coordinator.operate.found import FoundSaga
from coordinator.operate.open import lane_admin, lane_api_keys
from coordinator.operate.output import now
from coordinator.operate.places import Known, Stop
from coordinator.operate.saga_standing import standing_of
from coordinator.registry import registry
from coordinator.service.rows import Row
from coordinator.service.saga_timeline import SagaStep
from coordinator.stores.admin import EmittedSummary, OnItsWay
from shared.users.model import metadata
from shared.users.purchases.model import Purchase
from tests.unit.test_operate_letters import World, world

__all__ = ("world",)

STEP = str(uuid4())


@pytest.fixture
def known(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    return world


def keep(
    world: World, direction: Literal["do", "undo"] = "do", command_type: str = "users.ghost", **fields: Any
) -> None:
    purchase = Purchase(id=23, user_id=1, item_id=1, quantity=1, payment_method="pm", created_at=now(), **fields)
    step = SagaStep(
        command_id=STEP,
        saga="purchase",
        saga_id=23,
        number=1,
        name="quote",
        direction=direction,
        command_type=command_type,
        status="failed" if fields else "waiting",
        began_at=now() - timedelta(seconds=10),
    )
    engine = create_engine(world.environment["USERS_DATABASE_URL"])
    rows: tuple[Row, ...] = (purchase, step)
    with engine.begin() as connection:
        for row in rows:
            connection.execute(insert(metadata.tables[row.table]).values(msgspec.structs.asdict(row)))
    engine.dispose()


def waits_for_a_payment(since: datetime) -> tuple[Purchase, SagaStep]:
    step = SagaStep(
        command_id=STEP,
        saga="purchase",
        saga_id=23,
        number=1,
        name="authorize",
        direction="do",
        command_type="payments.open",
        status="waiting",
        began_at=since,
    )
    return Purchase(id=23, user_id=1, item_id=1, quantity=1, payment_method="pm", created_at=now()), step


def found(**fields: Any) -> FoundSaga:
    condition = LaneCondition(**({"lane": "users", "state": "idle", "why": None, "waiting": 0} | fields))
    finder = Finder({"users": condition}, registry().service, lane_admin, lane_api_keys)
    (saga,) = finder.find("purchase 23", ["users"], frozenset(["users"])).sagas
    return saga


def test_a_saga_that_needs_a_review_names_the_letter_s_reason_and_the_line_that_sends_the_verdict(known: World) -> None:
    known.bury(command_id=STEP)
    keep(known, status="needs_review", reason_code="row_unreadable", reason="operators find the reason under its id")
    saga = found()
    assert saga.why is not None
    assert saga.why.startswith("users.ghost failed (unknown_command_type): ")
    line = f'coordinator send users.resume_purchase \'{{"id":23,"step":"{STEP}","verdict":"…","reason":"…"}}\''
    verdicts = (
        '(verdict: done, with its "result" if the saga takes something from that; not_done; or again, which asks for '
        "the step anew, and takes back nothing of what was done)"
    )
    assert saga.todo == f"find out whether that step was done, and send the verdict on it: {line} {verdicts}"
    # Pasted as it is, it says nothing of the step, and is refused.
    sent = known.run(*shlex.split(line)[1:], expect=2)
    assert "nothing was sent" in sent.stderr
    assert [stop.kind for stop in saga.stops] == ["dead_letter"]


def test_a_saga_that_has_gone_back_for_a_defect_names_the_letter_s_reason(known: World) -> None:
    """Its own reason tells the owner that operators find it elsewhere."""
    known.bury(command_id=STEP)
    keep(known, status="compensated", reason_code="handler_error", reason="operators find the reason under its id")
    saga = found()
    assert (saga.is_stuck, saga.todo) == (False, None)
    assert (saga.why or "").startswith("users.ghost failed (unknown_command_type): ")
    assert [stop.kind for stop in saga.stops] == ["dead_letter"]


def test_a_saga_that_has_gone_back_is_nowhere_once_its_letter_is_discarded(known: World) -> None:
    keep(known, status="compensated", reason_code="handler_error", reason="operators find the reason under its id")
    saga = found()
    assert (saga.why, saga.stops) == ("handler_error: operators find the reason under its id", [])


def test_a_saga_that_has_gone_back_for_a_rule_keeps_its_own_reason(known: World) -> None:
    known.bury(command_id=STEP)
    keep(known, status="compensated", reason_code="out_of_stock", reason="item 1 has 0 in stock")
    saga = found()
    assert (saga.why, saga.stops) == ("out_of_stock: item 1 has 0 in stock", [])


def test_a_saga_that_needs_a_review_without_a_letter_keeps_its_own_reason(known: World) -> None:
    keep(known, status="needs_review", reason_code="answer_lost", reason="nobody knows")
    assert found().why == "answer_lost: nobody knows"


def test_a_saga_whose_step_another_lane_refused_says_that_it_is_to_be_settled_there_first(known: World) -> None:
    """Money may be held there: asked for anew, it is held twice."""
    reason = "payment 7 is needs_review"
    keep(known, "do", "payments.open", status="needs_review", reason_code="payment_needs_review", reason=reason)
    todo = found().todo or ""
    assert todo.startswith(
        "first settle what needs a review in lane payments (docs/OPERATING.md, What needs a person); then find out "
        "whether that step was done, and send the verdict on it: coordinator send users.resume_purchase "
    )
    assert todo.endswith("again, which asks for the step anew, and takes back nothing of what was done)")


def test_of_a_step_that_could_not_be_undone_no_verdict_is_offered_that_is_refused(known: World) -> None:
    reason = "payment 7 is needs_review"
    keep(known, "undo", "payments.reverse", status="needs_review", reason_code="payment_needs_review", reason=reason)
    todo = found().todo or ""
    assert "; then find out whether that step is undone, and send the verdict on it: coordinator send " in todo
    assert todo.endswith("(verdict: done, or again, which has it undone anew)")


def test_a_saga_that_needs_a_review_names_its_lane_where_that_takes_no_verdict_now(known: World) -> None:
    keep(known, status="needs_review", reason_code="answer_lost", reason="nobody knows")
    saga = found(state="paused", why="a release", waiting=0)
    assert saga.why == "answer_lost: nobody knows"
    assert (saga.todo or "").endswith(
        "; lane users is paused (a release), and 0 messages wait there "
        "(once the reason is over: coordinator resume users)"
    )


def test_a_step_that_nobody_has_any_more_is_said_to_be_withdrawn_or_lost(known: World) -> None:
    keep(known)
    saga = found()
    assert saga.is_stuck
    assert (saga.why or "").startswith("nobody has it: lane users is idle, and nothing waits in its queue.")
    assert "see by whom (coordinator audit users --operators)" in (saga.todo or "")
    assert '"even_if_running":true' in (saga.todo or "")
    assert "coordinator send users.resume_purchase" in (saga.todo or "")


def test_a_cancelled_step_that_its_sender_still_has_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lane answers it once it comes."""
    at = now() - timedelta(seconds=60)
    emitted = EmittedSummary(
        id=1, target="payments", command_id=STEP, type="payments.open", created_at=at, continuation=None, options=None
    )
    ways = {"payments": OnItsWay(cancelled_at=at), "users": OnItsWay(emitted=emitted)}

    def known_in(_: object, lane: str, command_id: str) -> Known:
        return Known(
            lane=lane,
            command_id=command_id,
            entry=None,
            replay=None,
            letters=[],
            parked=None,
            parked_letter=None,
            keeps=None,
            way=ways[lane],
        )

    monkeypatch.setattr("coordinator.operate.following.known_in", known_in)
    idle = {lane: LaneCondition(lane=lane, state="idle", why=None, waiting=0) for lane in ways}
    purchase, step = waits_for_a_payment(at)
    follower = Follower(lambda _: nullcontext(cast(Any, None)), idle)

    def said() -> dict[str, Any]:
        stops = list(follower.command("payments", STEP, "payments.open", "users"))
        return standing_of("purchase", purchase, [step], stops, registry().service("users"), idle)

    assert "nobody has it" not in (said()["why"] or "")
    assert "In the outbox of lane users, for payments" in said()["where"]
    ways["users"] = OnItsWay()
    assert (said()["why"] or "").startswith("nobody has it: lane payments is idle")
    # No lane has an outcome that could be told again.
    assert said()["todo"].endswith(
        "Where the database of lane payments was restored from a backup: docs/OPERATING.md, Backups"
    )


def test_an_answer_that_a_restored_lane_has_lost_is_to_be_told_again() -> None:
    at = now() - timedelta(seconds=60)
    purchase, step = waits_for_a_payment(at)
    stops = [Stop(kind="settled", lane="payments", text="applied", command_id=STEP, status="applied", at=at)]
    stops.append(Stop(kind="queue", lane="users", text="not settled yet", command_id=str(uuid4())))
    idle = {lane: LaneCondition(lane=lane, state="idle", why=None, waiting=0) for lane in ("users", "payments")}
    said = standing_of("purchase", purchase, [step], stops, registry().service("users"), idle)
    assert said["why"].startswith("nobody has it: lane users is idle")
    assert said["todo"].endswith("After a restored backup: coordinator continue")


@pytest.mark.parametrize("asked_ago_s", [60, 1])
@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("failed", "has failed, and has no dead letter: that was discarded, or a replay is on its way"),
        ("rejected", "was rejected"),
    ],
)
def test_a_saga_whose_answer_was_given_up_is_stuck(status: str, why: str, asked_ago_s: int) -> None:
    """Its dead letter was discarded, or an operator has cancelled it: nobody goes on with the saga, also in a lane that
    has much to do."""
    at = now() - timedelta(seconds=asked_ago_s)
    purchase, step = waits_for_a_payment(at)
    stops = [Stop(kind="settled", lane="payments", text="applied", command_id=STEP, status="applied", at=at)]
    busy = {lane: LaneCondition(lane=lane, state="running", why=None, waiting=7) for lane in ("users", "payments")}
    users = registry().service("users")
    assert not standing_of("purchase", purchase, [step], stops, users, busy)["is_stuck"]
    stops.append(Stop(kind="settled", lane="users", text="17", command_id=str(uuid4()), status=status, at=at))
    said = standing_of("purchase", purchase, [step], stops, users, busy)
    assert said["is_stuck"] == (asked_ago_s == 60)
    if said["is_stuck"]:
        assert said["why"] == f"nobody goes on with it: the answer to it {why}"
        assert "coordinator audit users --operators" in said["todo"]
        assert '"even_if_running":true' in said["todo"]


@pytest.mark.parametrize(
    ("fields", "is_lost"),
    [
        ({}, True),
        ({"state": "working", "under_way": 1}, False),
        ({"state": "unknown", "why": "a worker does not answer", "is_whole": False}, False),
        # It was put back, and may be between two queues.
        ({"oldest_s": 61.0}, False),
        # Others have calls, which were asked for later.
        ({"oldest_s": 7.0}, True),
        ({"state": "working", "under_way": 2, "oldest_s": 30.0, "why": "it has waited 30 s for the provider"}, True),
        ({"state": "provider_away", "under_way": 1, "oldest_s": 30.0, "why": "the provider does not answer"}, True),
        # The clocks of the lane and of the worker may be apart, and it may be one that waits, or is not seen.
        ({"state": "working", "under_way": 1, "oldest_s": 50.0}, False),
        ({"state": "working", "under_way": 1, "oldest_s": 30.0, "waiting": 1}, False),
        ({"state": "working", "under_way": 1, "oldest_s": 30.0, "is_whole": False}, False),
    ],
)
@pytest.mark.parametrize("asked_ago_s", [60, 1, None])
@pytest.mark.parametrize("state", ["idle", "running"])
def test_a_call_that_nobody_has_any_more_is_said_to_be_lost(
    state: str, fields: dict[str, Any], is_lost: bool, asked_ago_s: int | None
) -> None:
    """One of which nobody knows when it was asked for may be none: a row may keep an answer for another reason."""
    asked_at = None if asked_ago_s is None else now() - timedelta(seconds=asked_ago_s)
    purchase, step = waits_for_a_payment(now() - timedelta(seconds=60))
    stops = [Stop(kind="settled", lane="payments", text="applied", at=asked_at)]
    known: dict[str, Any] = {"state": "idle", "waiting": 0, "under_way": 0, "oldest_s": 0.0, "is_whole": True}
    effects = EffectsCondition(**(known | fields))
    payments = LaneCondition(lane="payments", state=state, why=None, waiting=0, effects=effects)
    stops.append(outside_stop(payments, "row 7 keeps the answer", STEP, "payments.open", asked_at=asked_at))
    said = standing_of("purchase", purchase, [step], stops, registry().service("users"), {"payments": payments})
    is_said = (said["why"] or "").startswith("nobody has its call: ")
    assert is_said == (is_lost and asked_ago_s == 60)
    if is_said:
        assert said["is_stuck"]
        assert said["why"].endswith("; nothing waits in the queue of lane payments. It was withdrawn, or lost")
        assert "coordinator audit payments --operators" in said["todo"]
        assert '"even_if_running":true' in said["todo"]
        assert said["todo"].endswith("lane payments was restored from a backup: docs/OPERATING.md, Backups")


def test_what_keeps_the_answer_of_a_step_that_failed_is_named_before_its_letter(known: World) -> None:
    """The answer takes the saga back: that the step is a dead letter keeps nothing."""
    known.bury(command_id=STEP)
    keep(known)
    saga = found(state="paused", why="a release", waiting=3)
    assert [stop.kind for stop in saga.stops] == ["dead_letter", "queue"]
    assert (saga.why, saga.todo) == (
        "lane users is paused: a release",
        "once the reason is over: coordinator resume users",
    )
    assert (found(state="running").why or "").startswith("users.ghost failed (unknown_command_type)")
    # The clock of this lane is behind: it failed long ago, and nobody has the answer.
    assert (found().why or "").startswith("nobody has it: lane users is idle")


def test_a_saga_names_its_own_lane_too_where_that_takes_no_answer_now() -> None:
    """Once the provider is back, it would go on no further."""
    row, step = waits_for_a_payment(now())
    stop = Stop(kind="outside", lane="payments", text="here", why="the provider does not answer", todo="look at it")
    service = registry().service("users")
    paused = LaneCondition(lane="users", state="paused", why="a release", waiting=0)
    said = standing_of("purchase", row, [step], [stop], service, {"users": paused})
    assert said["why"] == "the provider does not answer; lane users is paused: a release"
    assert said["todo"] == "look at it; and for lane users: once the reason is over: coordinator resume users"
    # Once: its answer waits there.
    waits = msgspec.structs.replace(stop, lane="users", why="lane users is paused: a release", todo="resume it")
    said = standing_of("purchase", row, [step], [waits], service, {"users": paused})
    assert (said["why"], said["todo"]) == (waits.why, waits.todo)
    # Nor is a cause said again that keeps both.
    silent = msgspec.structs.replace(paused, state="suspended", why="the broker does not answer")
    waits = msgspec.structs.replace(stop, why="lane payments is suspended: the broker does not answer")
    said = standing_of("purchase", row, [step], [waits], service, {"users": silent})
    assert (said["why"], said["todo"]) == (waits.why, waits.todo)


@pytest.mark.parametrize(
    "fields", [{"waiting": 1}, {"waiting": None}, {"state": "running"}, {"state": "unknown", "why": UNASKED}]
)
def test_a_step_that_may_be_in_a_queue_is_not_said_to_be_lost(known: World, fields: dict[str, Any]) -> None:
    keep(known)
    assert "nobody has it" not in (found(**fields).why or "")
