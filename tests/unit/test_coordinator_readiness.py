"""What `/readyz` of a coordinator says: on call somebody reads which server, and where."""

import pytest
from msgspec.structs import replace

from coordinator.lane.delivery import Suspension
from coordinator.registry import registry
from coordinator.runtime.awaited import Late
from coordinator.runtime.health import Readiness
from coordinator.worker.process import CoordinatorProcess

PLACE = "(the database at 127.0.0.1:9, by PAYMENTS_DATABASE_URL)"
LATE = Late("the database (begin)", 0.0, 25.0)
AWAY = Suspension(1.0, "Can't connect to MySQL server on '127.0.0.1'")


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> CoordinatorProcess:
    monkeypatch.setenv("PAYMENTS_DATABASE_URL", "mysql://nobody:secret@127.0.0.1:9/payments")
    return CoordinatorProcess(registry().service("payments"), is_watched=False)


def test_a_command_that_waits_for_an_earlier_one_of_its_session_is_told_and_the_process_is_ready(
    process: CoordinatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = process._lane_thread._loop
    monkeypatch.setattr(type(process._transport), "unready_reason", None)
    for early_s, said in [(0.0, None), (2.9, None), (4.0, "a command has waited 4 s ")]:
        monkeypatch.setattr(loop._lane._order, "waited_s", lambda _, waited_s=early_s: waited_s)
        assert process.readiness() == Readiness(True, None)  # another consumer has the lane
        loop._lane._tenancy.channel_number = 0
        readiness = process.readiness()
        assert readiness.is_ready
        assert readiness.reason is None if said is None else str(readiness.reason).startswith(said)
        loop._lane._tenancy.channel_number = None


def test_a_clock_that_is_wrong_is_told_and_the_process_is_ready(
    process: CoordinatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(process._transport), "unready_reason", None)
    process._database_watch._note(-3600.0)
    wrong = "the clock of its machine is 3600 s behind that of its database: correct the one that is wrong"
    assert process.readiness() == Readiness(True, wrong)
    process._database_watch._note(0.2)
    assert process.readiness() == Readiness(True, None)


@pytest.mark.parametrize(
    ("late", "suspension", "said"),
    [
        (LATE, None, f"it has waited 25 s for the database (begin) {PLACE}"),
        (replace(LATE, what="its own code"), None, "it has waited 25 s for its own code"),
        (None, AWAY, f"Can't connect to MySQL server on '127.0.0.1' {PLACE}"),
        (None, replace(AWAY, cause="paused", reason="a move"), "a move"),
    ],
)
def test_a_database_that_is_away_is_named_by_host_and_port(
    process: CoordinatorProcess,
    monkeypatch: pytest.MonkeyPatch,
    late: Late | None,
    suspension: Suspension | None,
    said: str,
) -> None:
    monkeypatch.setattr(type(process._late), "late", property(lambda _: late))
    process._lane_thread._loop.suspension = suspension
    readiness = process.readiness()
    assert (readiness.is_ready, readiness.reason) == (False, said)
