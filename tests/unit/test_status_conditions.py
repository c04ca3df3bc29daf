"""What `coordinator status` says of how lanes do, and their calls to the outside."""

import pytest
from click.testing import CliRunner

from coordinator.cli import cli
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
