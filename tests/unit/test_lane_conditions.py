"""What a lane does, in words, from what is known of it."""

from typing import Any

import pytest

from coordinator.lane.publisher_order import SESSION_GAP
from coordinator.operate.conditions import UNASKED, UNSEEN_ACTIVE, LaneCondition, own_processes, state_of
from coordinator.operate.kept_lanes import lane_todo
from coordinator.operate.lane_status import LaneStatus
from coordinator.operate.processes import SeenProcess
from coordinator.stores.clocks import ahead_words


@pytest.mark.parametrize(
    ("sequence", "rate", "state"),
    [(7, 500.0, "running"), (7, 0.0, "unknown"), (7, None, "unknown"), (None, None, "unknown")],
)
def test_a_lane_that_settles_commands_runs_whatever_cannot_be_reached(
    sequence: int | None, rate: float | None, state: str
) -> None:
    # Such as one in an application's process, which takes no orders.
    status = LaneStatus(lane="warehouse", sequence=sequence, rate=rate, errors=["nothing listens"])
    assert state_of(status, None, [], 0.0, is_local=True) == (state, "nothing listens")


def test_only_the_process_of_a_lane_says_that_it_is_suspended() -> None:
    status = LaneStatus(lane="warehouse", sequence=7, rate=0.0, ready=3, errors=["no room"], suspended="no room")
    assert state_of(status, 3, [], 0.0, is_local=True) == ("suspended", "no room")


def coordinator(state: str, url: str = "http://c:1", **fields: Any) -> SeenProcess:
    return SeenProcess(**{"url": url, "lane": "users", "state": state} | fields)


AWAY = coordinator("away")


@pytest.mark.parametrize(
    ("processes", "state", "why"),
    [
        ([coordinator("active")], "idle", None),
        # It is not known whether the active one is suspended, or what it holds.
        ([coordinator("standby")], "unknown", UNSEEN_ACTIVE),
        ([coordinator("active"), coordinator("away", "http://c:2")], "idle", None),
        ([AWAY], "unknown", "its coordinator at http://c:1 does not answer"),
        # A standby does not know whether the active one works.
        ([coordinator("standby", "http://c:2"), AWAY], "unknown", "its coordinator at http://c:1 does not answer"),
        ([], "unknown", UNASKED),
    ],
)
def test_a_lane_is_idle_only_where_its_coordinator_says_so(
    processes: list[SeenProcess], state: str, why: str | None
) -> None:
    status = LaneStatus(lane="users", sequence=7, rate=0.0, ready=0, consumers=1, errors=[])
    assert state_of(status, 0, processes, 0.0, is_local=False) == (state, why)


@pytest.mark.parametrize(("rate", "state"), [(500.0, "running"), (0.0, "idle")])
def test_what_keeps_a_standby_does_not_suspend_the_lane(rate: float, state: str) -> None:
    status = LaneStatus(lane="users", sequence=7, rate=rate, ready=0, consumers=1, errors=[])
    broken = coordinator("unready", "http://c:2", reason="the database does not take its password")
    assert state_of(status, 0, [coordinator("active"), broken], 0.0, is_local=False) == (state, None)
    # Nor where nobody has named the active one, as long as the lane settles commands.
    alone = ("running", None) if rate else ("suspended", broken.reason)
    assert state_of(status, 0, [broken], 0.0, is_local=False) == alone
    late = coordinator("unready", "http://c:2", epoch=3, reason="it waits for an answer")
    assert state_of(status, 0, [late], 0.0, is_local=False) == ("suspended", late.reason)


def test_a_lane_that_does_not_settle_what_waits_names_the_coordinator_that_does_not_answer() -> None:
    status = LaneStatus(lane="users", sequence=7, rate=0.0, ready=2, consumers=1, errors=[])
    why = "2 wait, and its coordinator at http://c:1 does not answer"
    assert state_of(status, 2, [AWAY], 5.0, is_local=False) == ("stuck", why)


@pytest.mark.parametrize(
    ("rate", "still_s", "state", "why"),
    [(5.0, 0.0, "running", ""), (0.0, 0.0, "idle", ""), (0.0, 5.0, "stuck", "2 wait, and ")],
)
def test_what_waits_for_an_earlier_command_of_its_session_is_said(
    rate: float, still_s: float, state: str, why: str
) -> None:
    waits = f"a command has waited 12 s {SESSION_GAP}"
    status = LaneStatus(lane="users", sequence=7, rate=rate, ready=2, consumers=1, errors=[])
    found = state_of(status, 2, [coordinator("active", reason=waits)], still_s, is_local=False)
    assert found == (state, why + waits)
    condition = LaneCondition(lane="users", state=state, why=found[1], waiting=2)
    assert ("sent" in (lane_todo(condition) or "")) == (state == "stuck")


@pytest.mark.parametrize(
    ("rate", "still_s", "state", "why"),
    [(5.0, 0.0, "running", ""), (0.0, 0.0, "idle", ""), (0.0, 5.0, "stuck", "2 wait, and nothing is settled; ")],
)
def test_a_clock_that_is_wrong_is_said_and_is_not_why_a_lane_settles_nothing(
    rate: float, still_s: float, state: str, why: str
) -> None:
    wrong = ahead_words(3600.0)
    assert wrong is not None
    status = LaneStatus(lane="users", sequence=7, rate=rate, ready=2, consumers=1, errors=[])
    found = state_of(status, 2, [coordinator("active", reason=wrong)], still_s, is_local=False)
    assert found == (state, why + wrong)


@pytest.mark.parametrize(("backlog", "waits"), [(0, ""), (2, "2 wait, and ")])
def test_a_lane_that_nobody_consumes_names_what_does_not_answer(backlog: int, waits: str) -> None:
    """RabbitMQ ends the connection of a coordinator that hangs, and that is the cause still."""
    status = LaneStatus(lane="users", sequence=7, rate=0.0, ready=backlog, consumers=0, errors=[])
    nobody = f"{waits}no coordinator consumes its queue"
    assert state_of(status, backlog, [], 5.0, is_local=False) == ("stuck", nobody)
    why = f"{nobody}; http://c:1 does not answer"
    assert state_of(status, backlog, [AWAY], 5.0, is_local=False) == ("stuck", why)


def test_a_paused_lane_that_nobody_consumes_says_both() -> None:
    """Resumed, it would go on no further."""
    status = LaneStatus(lane="users", sequence=7, rate=0.0, consumers=1, is_paused=True, paused="a release", errors=[])
    answering = [AWAY, coordinator("standby", lane="users")]
    assert state_of(status, 0, answering, 0.0, is_local=False) == ("paused", "a release")
    hangs = "a release; its coordinator at http://c:1 does not answer"
    assert state_of(status, 0, [AWAY], 0.0, is_local=False) == ("paused", hangs)
    status.consumers = status.ready = 0
    state, why = state_of(status, 0, [AWAY], 0.0, is_local=False)
    assert (state, why) == ("paused", "a release; no coordinator consumes its queue; http://c:1 does not answer")
    assert lane_todo(LaneCondition(lane="users", state=state, why=why, waiting=0)) == (
        "start one, with its account: coordinator run users; and once the reason is over: coordinator resume users"
    )
    # So does one whose process hangs.
    status.consumers = status.ready = None
    status.errors = ["the process does not answer"]
    assert state_of(status, None, [], 0.0, is_local=True) == ("paused", "a release; the process does not answer")


def test_whose_a_process_is_that_never_answered_nobody_knows() -> None:
    unknown = coordinator("away", lane=None)
    others = [coordinator("active", lane="items"), coordinator("standby", lane=None)]
    assert own_processes("users", [AWAY, unknown, *others]) == [AWAY, unknown]
