"""What `coordinator status` says of how lanes do, and their calls to the outside."""

import msgspec
import pytest
from click.testing import CliRunner

from coordinator.cli import cli
from coordinator.operate.conditions import LaneCondition, none_kept
from coordinator.operate.following import unsettled_words
from coordinator.operate.lane_status import LaneLooks, LaneStatus
from coordinator.operate.looking import note_conditions
from coordinator.operate.processes import SeenProcess
from coordinator.operate.queue_depth import EffectsDepth

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
    assert ran.stdout.splitlines()[1].split()[:2] == ["users", "idle"]


def test_a_lane_that_was_not_sampled_is_not_called_idle() -> None:
    statuses = [LaneStatus(lane="seats", sequence=7, ready=0, is_paused=False, errors=[])]
    note_conditions(statuses, {}, [])
    assert (statuses[0].state, statuses[0].effects) == (None, None)


COORDINATOR = SeenProcess(url="http://c:1", lane="users", state="active")
UNASKED = "suspended only a coordinator knows, and none was asked (--coordinator, OPERATIONS_COORDINATORS)"


@pytest.mark.parametrize(
    ("processes", "is_told"),
    [
        ([], False),
        ([WORKER], False),
        ([msgspec.structs.replace(COORDINATOR, state="away")], False),
        ([msgspec.structs.replace(COORDINATOR, lane="items")], False),
        ([COORDINATOR], True),
        ([msgspec.structs.replace(COORDINATOR, state="standby")], True),
    ],
)
def test_an_idle_lane_of_which_nobody_has_told_may_be_suspended(
    monkeypatch: pytest.MonkeyPatch, processes: list[SeenProcess], is_told: bool
) -> None:
    """Its messages are with its coordinator then, and not in the queue."""
    monkeypatch.setattr("coordinator.operate.looking.ask_all", lambda _: processes)
    statuses = [LaneStatus(lane="users", sequence=7, ready=0, rate=0.0, is_paused=False, errors=[])]
    note_conditions(statuses, {}, [])
    assert (statuses[0].state, statuses[0].why) == ("idle", None if is_told else f"whether it is {UNASKED}")


def test_where_nobody_has_told_no_lane_is_said_not_to_be_suspended() -> None:
    told = LaneCondition(lane="users", state="idle", why=None, waiting=0)
    untold = [msgspec.structs.replace(told, lane=lane, is_told=False) for lane in ("items", "payments")]
    assert none_kept([told]) == "no lane is paused, suspended or stuck"
    assert none_kept([told, untold[0]]) == f"no lane is paused or stuck; whether lane items is {UNASKED}"
    assert none_kept([told, *untold]) == f"no lane is paused or stuck; whether lanes items, payments are {UNASKED}"
    said = unsettled_words("7", [told, untold[0]])
    assert said.endswith(f"; no lane is paused or stuck; whether lane items is {UNASKED}")
