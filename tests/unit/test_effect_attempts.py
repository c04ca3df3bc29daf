"""How an effect is tried, and what the lane is told when it is given up."""

import asyncio

import msgspec
import pytest
from prometheus_client import REGISTRY

from coordinator.effects.attempts import Attempts, EffectResult, PutOff
from coordinator.protocol.attempted import Attempted, attempted_of
from coordinator.runtime.awaited import LATE_S
from coordinator.runtime.settings import EffectSettings
from coordinator.service.outside_calls import EffectHandler, EffectRetry, GivenUp
from tests.support.courier import Courier, ParcelResult, TakeAway

EFFECT = TakeAway(id=7)
STEPS_MAX = 1000


class Clock:
    """Time goes on by pauses alone."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Trying:
    """One effect, attempt after attempt."""

    def __init__(self, courier: Courier, *, chance: float = 1.0, **settings: float) -> None:
        self.clock = Clock()
        self.courier = courier
        self.pauses: list[float] = []
        self.attempted = Attempted(asked_at_s=self.clock.now_s, first_at_s=self.clock.now_s)
        given = {"breaker_failures": 1000} | settings
        self.attempts = Attempts("courier", EffectSettings(**given), lambda: chance, self.clock, self.clock)  # type: ignore[arg-type]
        (self.handler,) = courier.handlers

    async def step(self) -> EffectResult | PutOff:
        done = await self.attempts.attempt(self.handler, EFFECT, "key", self.attempted)
        if isinstance(done, PutOff):
            self.pauses.append(done.delay_s)
            self.clock.now_s += done.delay_s
        return done

    async def end(self) -> tuple[str, bool]:
        """What the lane is told, and whether that is a fact."""
        for _ in range(STEPS_MAX):
            done = await self.step()
            if isinstance(done, EffectResult):
                assert isinstance(done.command, ParcelResult)
                return done.command.state, done.is_fact
        raise AssertionError("it does not end")


def busy(after_s: float | None = None, *, may_have_happened: bool = False) -> EffectRetry:
    return EffectRetry("busy", after_s=after_s, may_have_happened=may_have_happened)


def away() -> EffectRetry:
    return EffectRetry("connection refused")


async def test_a_call_that_succeeds_is_made_once() -> None:
    trying = Trying(Courier([]))
    assert await trying.end() == ("taken", True)
    assert (trying.courier.keys, trying.pauses) == (["key"], [])


async def test_every_attempt_has_the_same_key_and_the_pauses_grow_to_a_limit() -> None:
    trying = Trying(Courier([busy() for _ in range(6)]), retry_delay_s=0.5, retry_delay_s_max=3.0)
    assert await trying.end() == ("taken", True)
    assert trying.pauses == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]
    assert trying.courier.keys == ["key"] * 7


async def test_pauses_are_drawn_from_nothing_up() -> None:
    trying = Trying(Courier([busy(), busy()]), chance=0.25, retry_delay_s=1.0)
    await trying.end()
    assert trying.pauses == [0.25, 0.5]


@pytest.mark.parametrize(("asked_s", "waited_s"), [(None, 0.1), (0.01, 0.1), (2.0, 2.0), (99.0, 99.0)])
async def test_who_asks_for_a_pause_gets_it(asked_s: float | None, waited_s: float) -> None:
    trying = Trying(Courier([busy(asked_s)]), retry_delay_s=0.1, retry_delay_s_max=5.0)
    await trying.end()
    assert trying.pauses == [waited_s]


async def test_by_default_a_call_is_made_again_for_a_day() -> None:
    trying = Trying(Courier([busy() for _ in range(STEPS_MAX)]))
    assert await trying.end() == ("left", False)
    assert 140 < len(trying.courier.keys) < 160
    assert sum(trying.pauses) == 86_400


@pytest.mark.parametrize("after_s", [None, 1e9])
async def test_what_is_asked_for_is_no_way_past_the_day(after_s: float | None) -> None:
    trying = Trying(Courier([busy(after_s) for _ in range(STEPS_MAX)]), give_up_after_s=60.0)
    await trying.end()
    assert sum(trying.pauses) == 60.0


@pytest.mark.parametrize(
    ("failures", "before", "state"),
    [
        ([False, False, False], False, "left"),
        ([False, True, False], False, "unsure"),
        ([False, False, False], True, "unsure"),
    ],
)
async def test_what_is_given_up_says_whether_it_may_have_happened(
    failures: list[bool], before: bool, state: str
) -> None:
    trying = Trying(Courier([busy(may_have_happened=each) for each in failures]), retry_delay_s=1.0, give_up_after_s=7)
    trying.attempted.may_have_happened = before
    assert await trying.end() == (state, False)
    assert (trying.pauses, trying.courier.looked_up) == ([1.0, 2.0, 4.0], 1)


async def test_before_it_is_given_up_the_other_side_is_asked_and_what_it_knows_is_the_result() -> None:
    trying = Trying(Courier([busy(may_have_happened=True) for _ in range(STEPS_MAX)]), give_up_after_s=7)
    trying.courier.taken.add("key")
    assert await trying.end() == ("taken", True)


async def test_who_gives_no_answer_to_that_is_asked_for_a_while_yet() -> None:
    courier = Courier([busy() for _ in range(STEPS_MAX)], look_ups=[busy(), RuntimeError("a defect")])
    trying = Trying(courier, give_up_after_s=600)
    courier.taken.add("key")
    assert await trying.end() == ("taken", True)
    assert courier.looked_up == 3
    assert 600 < sum(trying.pauses) <= 660


async def test_without_an_answer_to_that_it_may_have_happened() -> None:
    """Though every call certainly failed: another worker's copy may have got through."""
    courier = Courier([busy() for _ in range(STEPS_MAX)], look_ups=[busy() for _ in range(STEPS_MAX)])
    assert await Trying(courier, give_up_after_s=600).end() == ("unsure", False)


async def test_what_is_told_of_an_effect_that_is_given_up_is_short_and_can_be_stored() -> None:
    """Of whatever text: of a page of 2 MB, of a defect's exception, of the answer to who asks what became of it."""
    nonsense = "\x00 \ud83d" + "x" * 2_000_000
    failures: list[EffectRetry | Exception] = [EffectRetry(nonsense), ValueError(nonsense)] * STEPS_MAX
    courier = Courier(failures, look_ups=[ValueError(nonsense) for _ in range(STEPS_MAX)])
    trying = Trying(courier, give_up_after_s=7)
    given: list[GivenUp] = []
    (handler,) = courier.handlers

    def give_up(effect: TakeAway, given_up: GivenUp) -> ParcelResult:
        given.append(given_up)
        return ParcelResult(id=effect.id, state="unsure")

    trying.handler = EffectHandler(TakeAway, handler.perform, give_up, handler.look_up)
    assert await trying.end() == ("unsure", False)
    (given_up,) = given
    assert len(given_up.reason) <= 500
    assert "asked what became of it" in given_up.reason
    assert "\x00" not in given_up.reason
    given_up.reason.encode()


async def test_a_copy_that_comes_while_it_is_looked_up_counts() -> None:
    trying = Trying(Courier([busy() for _ in range(STEPS_MAX)]), give_up_after_s=7)
    (handler,) = trying.courier.handlers

    async def look_up(*_: object) -> None:
        trying.attempted.join(Attempted(asked_at_s=5.0, first_at_s=6.0, may_have_happened=True))

    trying.handler = EffectHandler(TakeAway, handler.perform, handler.give_up, look_up)
    assert await trying.end() == ("unsure", False)


async def test_without_a_way_to_ask_the_calls_alone_tell() -> None:
    trying = Trying(Courier([busy() for _ in range(STEPS_MAX)]), give_up_after_s=7)
    (handler,) = trying.courier.handlers
    trying.handler = EffectHandler(TakeAway, handler.perform, handler.give_up)
    assert await trying.end() == ("left", False)


async def test_a_call_is_told_whether_there_may_have_been_one_before() -> None:
    trying = Trying(Courier([busy(), busy(may_have_happened=True), busy()]))
    await trying.end()
    assert [call.is_repeated for call in trying.courier.calls] == [False, False, True, True]
    assert {call.asked_at.timestamp() for call in trying.courier.calls} == {1_000_000.0}


async def test_a_call_without_an_answer_may_have_happened() -> None:
    trying = Trying(Courier([]), call_timeout_s=0.01)
    trying.courier.may_go.clear()
    assert isinstance(await trying.step(), PutOff)
    assert (trying.attempted.may_have_happened, trying.attempted.reason) == (True, "no answer within 0.01 s")


async def test_a_handler_that_crashes_is_tried_again() -> None:
    trying = Trying(Courier([RuntimeError("a defect")]))
    assert await trying.end() == ("taken", True)
    assert trying.courier.calls[1].is_repeated


async def test_a_cancellation_gets_through() -> None:
    trying = Trying(Courier([]))
    trying.courier.may_go.clear()
    running = asyncio.create_task(trying.end())
    await trying.courier.arrived.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_is_not_due_yet_is_put_off_without_a_call() -> None:
    trying = Trying(Courier([]))
    trying.attempted.not_before_s = trying.clock.now_s + 5
    assert await trying.step() == PutOff(5.0)
    assert trying.courier.keys == []


@pytest.mark.parametrize("is_carried", [True, False])
async def test_a_clock_that_was_ahead_makes_a_pause_no_longer_than_it_was_to_be(is_carried: bool) -> None:
    trying = Trying(Courier([busy(30.0)]))
    right_s, trying.clock.now_s = trying.clock.now_s, trying.clock.now_s + 10 * 365 * 86_400
    trying.attempted.first_at_s = trying.attempted.asked_at_s = trying.clock.now_s
    assert await trying.step() == PutOff(30.0)
    trying.clock.now_s = right_s
    if is_carried:
        headers = trying.attempted.headers()
        trying.attempted = attempted_of(headers, right_s, published_at_s=right_s, is_again=False)
    assert await trying.step() == PutOff(30.0)
    assert isinstance(await trying.step(), EffectResult)
    assert len(trying.courier.keys) == 2
    # The other side does not remember the key for longer than it does, and the call is given up in time.
    assert (trying.attempted.asked_at_s, trying.attempted.first_at_s) == (right_s, right_s)


async def test_a_pause_of_a_release_that_does_not_say_its_length_lasts_a_day_at_most() -> None:
    trying = Trying(Courier([]))
    headers = trying.attempted.headers() | {"not-before-ms": int((trying.clock.now_s + 1e9) * 1000)}
    del headers["pause-ms"]
    trying.attempted = attempted_of(headers, trying.clock.now_s, published_at_s=None, is_again=False)
    assert await trying.step() == PutOff(86_400.0)


async def test_a_provider_that_is_away_is_asked_now_and_then_and_not_by_every_effect() -> None:
    trying = Trying(
        Courier([away() for _ in range(STEPS_MAX)]), breaker_failures=3, breaker_pause_s_max=60, retry_delay_s_max=1
    )
    effects = [Attempted(asked_at_s=0.0, first_at_s=trying.clock.now_s) for _ in range(100)]
    for _ in range(600):
        for each in effects:
            await trying.attempts.attempt(trying.handler, EFFECT, "key", each)
        trying.clock.now_s += 1
    # Three to find out; then after 1, 2, 4, … 60 s, and every 60 s.
    assert 3 + 6 + 7 <= len(trying.courier.keys) <= 3 + 7 + 10
    assert not any(each.may_have_happened for each in effects)
    assert sum(each.calls for each in effects) == len(trying.courier.keys)


async def test_one_answer_ends_the_pause_for_all() -> None:
    trying = Trying(Courier([away() for _ in range(3)]), breaker_failures=3, retry_delay_s_max=1)
    effects = [Attempted(asked_at_s=0.0, first_at_s=trying.clock.now_s) for _ in range(100)]
    for each in effects:
        await trying.attempts.attempt(trying.handler, EFFECT, "key", each)
    assert len(trying.courier.keys) == 3
    trying.clock.now_s += 2
    told = [await trying.attempts.attempt(trying.handler, EFFECT, "key", each) for each in effects]
    assert all(isinstance(each, EffectResult) for each in told)


async def test_what_is_about_one_call_says_nothing_of_the_provider() -> None:
    in_use = EffectRetry("key in use", may_have_happened=True, is_about_call=True)
    trying = Trying(Courier([in_use for _ in range(50)]), breaker_failures=3, retry_delay_s_max=1)
    await trying.end()
    assert len(trying.courier.keys) == 51


def test_what_is_known_travels_with_the_effect() -> None:
    known = Attempted(
        asked_at_s=900.5, first_at_s=1000.25, calls=3, may_have_happened=True, not_before_s=1010.0, reason="\ud800 no"
    )
    known.pause_s = 12.5
    headers = known.headers()
    carried = attempted_of(headers, 1005.0, published_at_s=None, is_again=False)
    assert carried == Attempted(
        asked_at_s=900.5,
        first_at_s=1000.25,
        calls=3,
        may_have_happened=True,
        not_before_s=1010.0,
        pause_s=12.5,
        reason="? no",
    )


@pytest.mark.parametrize("nonsense", ["soon", -1, 1 << 70, None, b"\xff", [1], {"a": 1}, float("nan")])
def test_headers_that_make_no_sense_are_taken_for_the_worst(nonsense: object) -> None:
    headers = dict.fromkeys(Attempted(asked_at_s=1.0, first_at_s=1.0).headers(), nonsense)
    known = attempted_of(headers, 10_000_000.0, published_at_s=None, is_again=False)
    assert known.first_at_s == 10_000_000.0
    assert known.asked_at_s < 10_000_000.0 - 86_400
    assert known.may_have_happened is bool(nonsense)


async def test_calls_are_measured_by_their_end() -> None:
    def counted() -> dict[str, float]:
        return {
            result: REGISTRY.get_sample_value(
                "coordinator_effects_call_seconds_count",
                {"service": "courier", "type": EFFECT.type, "result": result},
            )
            or 0
            for result in ("answered", "no_answer", "defect")
        }

    before = counted()
    trying = Trying(Courier([away(), ValueError("a defect"), away()]))
    assert await trying.end() == ("taken", True)
    assert {result: count - before[result] for result, count in counted().items()} == {
        "answered": 1,
        "no_answer": 2,
        "defect": 1,
    }


async def test_a_provider_that_says_nothing_is_late_long_before_the_call_has_had_its_time() -> None:
    has_begun, goes_on = asyncio.Event(), asyncio.Event()

    async def perform(_: TakeAway, __: object) -> ParcelResult:
        has_begun.set()
        await goes_on.wait()
        return ParcelResult(id=7, state="taken")

    trying = Trying(Courier([]))
    trying.handler = msgspec.structs.replace(trying.handler, perform=perform)
    calling = asyncio.create_task(trying.step())
    await has_begun.wait()
    seen = [trying.attempts.late]
    trying.clock.now_s += LATE_S
    seen.append(trying.attempts.late)
    goes_on.set()
    assert isinstance(await calling, EffectResult)
    seen.append(trying.attempts.late)
    assert [late is not None for late in seen] == [False, True, False]


async def test_a_provider_that_refuses_at_once_is_not_late_while_it_counts_as_away() -> None:
    """Whoever is told of an answer that is late looks for something that hangs."""
    trying = Trying(Courier([away(), away(), away()]), breaker_failures=3)
    for _ in range(3):
        await trying.step()
    assert trying.attempts.is_away
    trying.clock.now_s += 60.0
    assert trying.attempts.late is None
    assert (trying.attempts.unanswered or "").endswith("to the provider had no answer: connection refused")


async def test_what_the_provider_did_not_answer_is_known_until_it_answers() -> None:
    """Ten in a row open the breaker: until then nothing else would tell, and one call at a time takes minutes."""
    trying = Trying(Courier([away(), away(), EffectRetry("no such parcel", is_about_call=True), away()]))

    def said() -> str | None:
        return trying.attempts.unanswered

    assert said() is None
    await trying.step()
    assert said() == "the last call to the provider had no answer: connection refused"
    trying.clock.now_s += 9.5
    assert said() == "the last call (10 s ago) to the provider had no answer: connection refused"
    await trying.step()
    assert said() == "the last 2 calls to the provider had no answer: connection refused"
    # Whoever has mended the provider learns that it was not asked since.
    trying.clock.now_s += 69
    assert said() == "the last 2 calls (the last one 70 s ago) to the provider had no answer: connection refused"
    await trying.step()
    assert said() is None, "it has refused one"
    await trying.step()
    assert said() is not None
    assert await trying.end() == ("taken", True)
    assert said() is None
