"""What a newcomer gets wrong about calls to the outside is refused in words that say what is missing."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator import (
    Call,
    Command,
    ConfigurationError,
    Continuation,
    Deferred,
    Effect,
    EffectHandler,
    EffectRetry,
    GivenUp,
    Id,
    Service,
    UnitOfWork,
)
from coordinator.effects.attempts import Attempts
from coordinator.protocol.attempted import Attempted
from coordinator.runtime.settings import EffectSettings
from coordinator.service.defects import defects_of
from coordinator.service.effect_defects import check_effects, opened_effects
from coordinator.service.targets import Targets
from coordinator.stores.open import open_store
from coordinator.stores.sqlite.store import create_schema
from coordinator.testing import LaneInMemory, SimulationFailed, simulate
from coordinator.worker.inprocess import InProcessWrites
from tests.support.uncalled import Uncalled


class Ask(Command, type="tills.ask"):
    id: Id = 1


class Pay(Effect, type="tills.pay"):
    id: Id = 1


class Ship(Effect, type="depot.ship"):
    id: Id = 1


class Paid(Command, type="tills.paid"):
    id: Id = 1


class GoOn(Continuation, type="tills.go_on"):
    pass


async def pay(effect: Pay, call: Call) -> Command:
    return Paid(id=effect.id)


def pay_at_once(effect: Pay, call: Call) -> Paid:
    return Paid(id=effect.id)


async def pay_without_call(effect: Pay) -> Command:
    return Paid(id=effect.id)


def give_up(effect: Pay, why: GivenUp) -> Command:
    return Paid(id=effect.id)


async def give_up_later(effect: Pay, why: GivenUp) -> Command:
    return Paid(id=effect.id)


async def forget(effect: Pay, call: Call) -> Any:
    return None


def tills(ask: Callable[[UnitOfWork], Any], **how: Any) -> Service:
    """A service whose command does this."""
    service = Service("tills", **how)

    @service.handles(Ask)
    def asked(work: UnitOfWork, command: Ask) -> None:
        ask(work)

    @service.handles(Paid)
    def paid(work: UnitOfWork, command: Paid) -> None: ...

    return service


def failure(ask: Callable[[UnitOfWork], Any], **how: Any) -> str:
    tried = LaneInMemory(tills(ask, **how)).apply(Ask())
    assert tried.failed_with("handler_error"), tried
    return str(tried.reason)


def test_an_effect_of_a_service_that_has_none_is_refused_as_where_it_runs() -> None:
    lacking = 'tills.pay: nobody makes the calls of tills: give the service its effects, Service("tills", effects=…)'
    assert lacking in failure(lambda work: work.emit(Pay()))
    with pytest.raises(SimulationFailed, match=re.escape(lacking)):
        simulate(tills(lambda work: work.emit(Pay())), [Ask()], seeds=1, elsewhere=False)
    assert LaneInMemory(tills(lambda work: work.emit(Pay()), effects=Uncalled)).apply(Ask()).applied


def test_an_effect_of_another_service_of_the_application_needs_one_that_makes_calls() -> None:
    targets = Targets("tills", {"tills", "effects.tills"})
    with pytest.raises(ValueError, match=r"depot\.ship: no service 'depot' that makes calls to the outside is here"):
        targets.check("depot.ship", Ship.lane())


def test_an_effect_has_no_continuation() -> None:
    """A saga whose step were one would wait for ever."""
    reason = failure(lambda work: work.emit(Pay(), continuation=GoOn), effects=Uncalled)
    assert "tills.pay with the continuation tills.go_on: an effect has no outcome" in reason


@pytest.mark.parametrize("given", ["a text", None])
def test_only_what_was_deferred_is_resumed(given: Any) -> None:
    reason = failure(lambda work: work.resume(given, None))
    assert "work.resume takes what work.defer returned where it was not None" in reason
    assert f"and was given {given!r}" in reason


@pytest.mark.parametrize("text", ["", "a text", "more words than there are", None])
def test_only_the_text_of_a_deferred_is_decoded(text: Any) -> None:
    with pytest.raises(ValueError, match="from the text that its encode"):
        Deferred.decode(text)


@pytest.mark.parametrize(
    ("opening", "defect"),
    [
        (Uncalled(), "no function: give the class, or a function that makes the object"),
        (lambda url: Uncalled(), "which takes (url), and is called with nothing"),
        (pay, "effects is pay, which is async: it must return the object at once"),
    ],
)
def test_effects_are_opened_by_a_function_of_nothing(opening: Any, defect: str) -> None:
    assert defect in "\n".join(defects_of(Service("tills", effects=opening)))
    assert defects_of(Service("tills", effects=Uncalled)) == []


def test_what_opening_the_effects_raises_is_told_with_its_line() -> None:
    def reach() -> Uncalled:
        raise KeyError("PROVIDER_URL")

    told = r"of service tills cannot be opened: .*reach raised KeyError: 'PROVIDER_URL' \(.*test_wrong_effects\.py:"
    with pytest.raises(ConfigurationError, match=told):
        opened_effects(Service("tills", effects=reach))
    with pytest.raises(ConfigurationError, match="service tills makes no calls to the outside: give it effects=…"):
        opened_effects(Service("tills"))
    assert isinstance(opened_effects(Service("tills", effects=Uncalled)), Uncalled)


async def test_a_process_does_not_start_with_effects_that_are_declared_wrongly(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tills.sqlite"
    wrong: Any = Service("tills", effects=Unclosed)  # type: ignore[arg-type]
    create_schema(f"{tmp_path}/tills.sqlite", wrong)
    with pytest.raises(ConfigurationError, match="Unclosed has no `async def close"):
        await InProcessWrites({"tills": open_store(url, wrong)}, [wrong]).start()


def test_no_lane_applies_an_effect() -> None:
    service = Service("tills", effects=Uncalled)

    @service.handles(Pay)
    def handle(work: UnitOfWork, command: Pay) -> None: ...

    (defect,) = defects_of(service)
    assert "handles Pay, which is an effect: no lane applies one. Have an EffectHandler perform it" in defect


class Calling(Uncalled):
    """Effects with these handlers."""

    def __init__(self, *handlers: Any) -> None:
        self.handlers = handlers


class Unclosed:
    handlers = ()


RIGHT: Any = EffectHandler(Pay, pay, give_up)


@pytest.mark.parametrize(
    ("effects", "defect"),
    [
        (Unclosed(), "Unclosed has no `async def close(self)`"),
        (object(), "object.handlers is None, and must be a tuple of EffectHandlers"),
        (Calling(Pay), "is no EffectHandler"),
        (Calling(EffectHandler(Paid, pay, give_up)), "has an EffectHandler, and is no class of effects"),
        (Calling(EffectHandler(Ship, pay, give_up)), "'depot.ship', and must begin with tills."),
        (Calling(RIGHT, RIGHT), "tills.pay has two EffectHandlers"),
        (Calling(EffectHandler(Pay, pay_at_once, give_up)), "perform of Pay is not async"),  # type: ignore[arg-type]
        (Calling(EffectHandler(Pay, pay_without_call, give_up)), "perform of Pay is called with (effect, call)"),  # type: ignore[arg-type]
        (Calling(EffectHandler(Pay, pay, give_up_later)), "give_up of Pay is async"),  # type: ignore[arg-type]
        (Calling(EffectHandler(Pay, pay, give_up, 7)), "look_up of Pay is 7, and no function"),  # type: ignore[arg-type]
    ],
)
def test_the_object_that_makes_the_calls_is_looked_at_when_it_is_opened(effects: Any, defect: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_effects("tills", effects, [])
    assert defect in str(refused.value)
    check_effects("tills-acme", Calling(RIGHT), [])


async def test_a_call_that_makes_no_command_may_have_happened() -> None:
    attempts, now = Attempts("tills", EffectSettings(), lambda: 1.0), Attempted(asked_at_s=0.0, first_at_s=0.0)
    await attempts.attempt(EffectHandler(Pay, forget, give_up), Pay(), "key", now)
    assert (now.calls, now.reason, now.may_have_happened) == (1, "a defect of its handler (TypeError)", True)


async def test_who_gives_up_without_a_command_is_told_so() -> None:
    attempts = Attempts("tills", EffectSettings(), lambda: 1.0)
    over = Attempted(asked_at_s=0.0, first_at_s=0.0, not_before_s=1.0)
    handler: Any = EffectHandler(Pay, pay, lambda effect, why: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match=r"give_up of tills.pay returned None: it returns the command with the result"):
        await attempts.attempt(handler, Pay(), "key", over)


def test_an_answer_of_a_test_is_a_command_of_an_effect() -> None:
    lane = LaneInMemory(tills(lambda work: work.emit(Pay()), effects=Uncalled))
    assert lane.apply(Ask()).applied
    with pytest.raises(LookupError, match=r"tills.pay was emitted, .*: give one to its class"):
        lane.deliver()
    with pytest.raises(TypeError, match=r"takes a class of effects, then its answers, and was given 'tills.pay'"):
        lane.outside.answers("tills.pay", Paid())  # type: ignore[arg-type]
    for answer in (None, lambda effect, call: None):
        lane.apply(Ask())
        lane.outside.answers(Pay, EffectRetry("no answer"), answer)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"tills.pay: an answer is a command, .* not None"):
            lane.deliver()
