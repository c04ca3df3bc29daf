"""The test kit takes the lanes that the service's application has, where one is known, and else any."""

from collections.abc import Iterator

import pytest

from coordinator import Command, Handler, Service, UnitOfWork
from coordinator.registry import App, use
from coordinator.testing import LaneInMemory, SimulationFailed, simulate
from coordinator.testing.known_targets import _targets


class Tell(Command, type="teller.tell"):
    to: str = "listener"


class Heard(Command, type="listener.heard"):
    pass


class Unheard(Command, type="nobody.heard"):
    pass


def tell(work: UnitOfWork, command: Tell) -> None:
    work.emit(Heard() if command.to == "listener" else Unheard())


def hear(work: UnitOfWork, command: Heard) -> None: ...


TELLER = Service("teller", handlers=(Handler(Tell, tell),))
LISTENER = Service("listener", handlers=(Handler(Heard, hear),))
APP = App(services={"teller": f"{__name__}:TELLER", "listener": f"{__name__}:LISTENER"})
ALONE = App(services={"listener": f"{__name__}:LISTENER"})
BROKEN = App(services={"teller": f"{__name__}:TELLER", "listener": f"{__name__}:NOTHING"})


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    monkeypatch.setenv("COORDINATOR_APP", "")
    _targets.cache_clear()
    use(f"{__name__}:{request.param}")
    yield
    _targets.cache_clear()


@pytest.mark.parametrize("app", ["APP"], indirect=True)
@pytest.mark.usefixtures("app")
def test_a_lane_that_the_application_does_not_have_is_refused_as_where_it_runs() -> None:
    lane = LaneInMemory(TELLER)
    assert lane.apply(Tell()).applied
    tried = lane.apply(Tell(to="nobody"))
    assert tried.failed_with("handler_error")
    assert "nobody.heard: there is no lane 'nobody' here; there are listener, teller: name its" in str(tried.reason)
    simulate(TELLER, [Tell()], seeds=3)
    with pytest.raises(SimulationFailed, match="there is no lane 'nobody' here"):
        simulate(TELLER, [Tell(to="nobody")], seeds=1)


@pytest.mark.parametrize("app", ["ALONE"], indirect=True)
@pytest.mark.usefixtures("app")
def test_lanes_beside_one_another_answer_also_where_the_application_has_only_one() -> None:
    teller, listener = LaneInMemory(TELLER), LaneInMemory(LISTENER)
    assert listener.apply(Heard(), continuation="teller.answered").failed_with("unknown_lane")
    teller.beside(listener)
    assert listener.apply(Heard(), continuation="teller.answered").applied
    assert listener.apply(Heard(), continuation="nobody.answered").failed_with("unknown_lane")


@pytest.mark.parametrize("app", ["BROKEN"], indirect=True)
@pytest.mark.usefixtures("app")
def test_of_an_application_that_cannot_run_nothing_is_known() -> None:
    assert LaneInMemory(TELLER).apply(Tell(to="nobody")).applied


@pytest.mark.parametrize("app", ["APP"], indirect=True)
@pytest.mark.usefixtures("app")
def test_a_service_that_is_not_of_the_application_emits_to_any_lane() -> None:
    class Say(Command, type="loner.say"):
        pass

    def say(work: UnitOfWork, command: Say) -> None:
        work.emit(Unheard())

    say.__annotations__["command"] = Say
    assert LaneInMemory(Service("loner", handlers=(Handler(Say, say),))).apply(Say()).applied
