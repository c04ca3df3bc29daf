"""How an effect is tried, and when it is given up."""

import asyncio

import pytest

from coordinator.effects.attempts import Attempts
from shared.effects import EffectRetry
from shared.settings import EffectSettings
from tests.support.courier import Courier, ParcelTold, TakeAway

EFFECT = TakeAway(id=7)


async def carried_out(
    courier: Courier, *, chance: float = 1.0, may_have_happened: bool = False, **settings: float
) -> tuple[str, list[float]]:
    pauses: list[float] = []

    async def pause(delay_s: float) -> None:
        pauses.append(delay_s)

    attempts = Attempts(EffectSettings(**settings), lambda: chance, pause)  # type: ignore[arg-type]
    (handler,) = courier.handlers
    told = await attempts.carry_out(handler, EFFECT, "key", may_have_happened=may_have_happened)
    assert isinstance(told, ParcelTold)
    return told.state, pauses


def busy(after_s: float | None = None, *, may_have_happened: bool = False) -> EffectRetry:
    return EffectRetry("busy", after_s=after_s, may_have_happened=may_have_happened)


async def test_a_call_that_succeeds_is_made_once() -> None:
    courier = Courier([])
    assert await carried_out(courier) == ("taken", [])
    assert courier.keys == ["key"]


async def test_every_attempt_has_the_same_key_and_the_pauses_grow_to_a_limit() -> None:
    courier = Courier([busy() for _ in range(6)])
    state, pauses = await carried_out(courier, retry_delay_s=0.5, retry_delay_s_max=3.0)
    assert (state, pauses) == ("taken", [0.5, 1.0, 2.0, 3.0, 3.0, 3.0])
    assert courier.keys == ["key"] * 7


async def test_pauses_are_drawn_from_nothing_up() -> None:
    _, pauses = await carried_out(Courier([busy(), busy()]), chance=0.25, retry_delay_s=1.0)
    assert pauses == [0.25, 0.5]


@pytest.mark.parametrize(("asked_s", "waited_s"), [(None, 0.1), (0.01, 0.1), (2.0, 2.0), (99.0, 5.0)])
async def test_who_asks_for_a_pause_gets_it_within_the_limit(asked_s: float | None, waited_s: float) -> None:
    courier = Courier([busy(asked_s)])
    _, pauses = await carried_out(courier, retry_delay_s=0.1, retry_delay_s_max=5.0)
    assert pauses == [waited_s]


@pytest.mark.parametrize(
    ("failures", "before", "state"),
    [
        ([False, False, False], False, "left"),
        ([False, True, False], False, "unsure"),
        ([False, False, False], True, "unsure"),
    ],
)
async def test_after_the_last_attempt_it_is_given_up_and_says_what_may_have_happened(
    failures: list[bool], before: bool, state: str
) -> None:
    courier = Courier([busy(may_have_happened=each) for each in failures])
    told, pauses = await carried_out(courier, attempts_max=3, may_have_happened=before)
    assert (told, len(pauses), courier.keys) == (state, 2, ["key"] * 3)


async def test_a_call_without_an_answer_may_have_happened() -> None:
    courier = Courier([])
    courier.may_go.clear()
    assert (await carried_out(courier, attempts_max=1, call_timeout_s=0.01))[0] == "unsure"


async def test_a_handler_that_crashes_is_tried_again() -> None:
    courier = Courier([RuntimeError("a defect")])
    assert (await carried_out(courier))[0] == "taken"
    courier = Courier([RuntimeError("a defect")] * 3)
    assert (await carried_out(courier, attempts_max=3))[0] == "unsure"


async def test_a_cancellation_gets_through() -> None:
    courier = Courier([])
    courier.may_go.clear()
    running = asyncio.create_task(carried_out(courier))
    await courier.arrived.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
