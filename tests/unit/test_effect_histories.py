"""Random histories of one call to the provider: copies of its effect, crashes, lost answers, forgotten keys.

Whatever happens, the call has its effect once at most, and the payment is told nothing that is wrong.
"""

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
import pytest
from msgspec import Struct

from coordinator.effects.attempts import Attempts, EffectResult
from coordinator.protocol.attempted import Attempted, attempted_of
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import EffectSettings
from coordinator.service.commands import Command
from coordinator.service.outside_calls import Effect, EffectRetry
from shared.payments.commands import CapturePayment, RefundPayment, ReversePayment
from shared.payments.effects import PaymentEffects
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, VoidResult
from tests.support.payment_lane import AMOUNT, PROVIDER_ID, PaymentLane
from tests.support.provider import Answer, FakeProvider, Held

KEY: Final = "0b0e7b6e-6d4e-8a57-9a5e-3f5d9f3c9b11"
SEEDS: Final = range(100)
STEPS_MAX: Final = 5000
BEGAN_S: Final = 1_790_000_000.0
DAY_S: Final = 86_400.0
KEY_LIFETIME_S: Final = 23 * 3600.0
FAILED: Final = {"authorize_failed", "capture_failed", "void_failed", "refund_failed"}


class Provider(FakeProvider):
    """Fails before and after the deed, with a doubt or without, for a while and then less; forgets keys after a day."""

    def __init__(self, chance: random.Random, now: Callable[[], float]) -> None:
        super().__init__()
        self._draw = chance
        self._now = now
        self._bad_until_s = BEGAN_S + chance.choice([0.0, 60.0, 3600.0, 20 * 3600.0, 2 * DAY_S])
        self._bad_rate = chance.choice([0.9, 0.99, 1.0])
        self._doubt = chance.choice([0.0, 0.5])
        self._used_at_s: dict[str, float] = {}
        self.turn = 0
        self.done_at: int | None = None

    async def authorize(self, **asked: Any) -> Any:
        asked_at: datetime = asked["asked_at"]
        is_old = self._now() - asked_at.timestamp() > KEY_LIFETIME_S
        return await self._call(super().authorize, **(asked | {"is_repeated": asked["is_repeated"] or is_old}))

    async def capture(self, **asked: Any) -> Any:
        return await self._call(super().capture, **asked)

    async def void(self, **asked: Any) -> Any:
        return await self._call(super().void, **asked)

    async def refund(self, **asked: Any) -> Any:
        return await self._call(super().refund, **asked)

    def has_done(self, action: str) -> bool:
        held = self.payments.get(PROVIDER_ID)
        if action == "authorize":
            return bool(self._made)
        assert held is not None
        return {"capture": held.status == "succeeded", "void": held.status == "canceled"}.get(
            action, KEY in held.refunds
        )

    def _fail(self, action: str) -> None:
        """Before a look-up."""
        if self._draw.random() < min(self._rate, 0.5):
            raise EffectRetry("503")

    @property
    def _rate(self) -> float:
        return self._bad_rate if self._now() < self._bad_until_s else 0.2

    async def _call(self, call: Callable[..., Any], **asked: Any) -> Any:
        key = asked["key"]
        self._used_at_s.setdefault(key, self._now())
        if self._now() - self._used_at_s[key] > DAY_S and self._draw.random() < 0.5:
            self.forget()
        await asyncio.sleep(0)
        if self._draw.random() < self._rate:
            raise EffectRetry("no", may_have_happened=self._draw.random() < self._doubt)
        self.turn += 1
        before = len(self.payments), self.kept, self.is_holding
        answer = await call(**asked)
        if before != (len(self.payments), self.kept, self.is_holding):
            self.done_at = self.turn
        await asyncio.sleep(0)
        if self._draw.random() < self._rate:
            raise EffectRetry("the answer was lost", may_have_happened=True)
        return answer

    def _once(self, action: str, key: str, deed: Callable[[], Answer]) -> Answer:
        if key not in self._answers:
            self._answers[key] = deed()
        answer: Answer = msgspec.structs.replace(self._answers[key])
        return answer


class Copy(Struct, frozen=True):
    """One message in a queue: what it says of the attempts, and whether it was delivered before."""

    headers: dict[str, Any] = {}
    is_again: bool = False


class World:
    """A lane, a queue, workers and a provider; time goes on by leaps."""

    def __init__(self, action: str, seed: int) -> None:
        self.chance = random.Random(f"{action} {seed}")
        self.now_s = BEGAN_S
        self.provider = Provider(self.chance, lambda: self.now_s)
        self.action = action
        self.lane = PaymentLane()
        self.effect = self._asked_for(action)
        settings = EffectSettings(breaker_failures=self.chance.choice([1, 3, 1000]))
        effects = PaymentEffects(self.provider)
        (self.handler,) = (each for each in effects.handlers if each.effect is type(self.effect))
        self.workers = [
            Attempts("payments", settings, self.chance.random, lambda: self.now_s, lambda: self.now_s) for _ in range(2)
        ]
        self.queue = [Copy()] * self.chance.choice([1, 1, 2])
        self.brought: dict[str, Command] = {}
        self.facts: list[Command] = []
        self.crashes_left = self.chance.choice([0, 2, 10])

    def _asked_for(self, action: str) -> Effect:
        lane = self.lane
        if action == "authorize":
            lane.opened(waits=False)
        elif action == "refund":
            lane.captured()
            lane.applied(RefundPayment(id=1, amount=300))
        else:
            lane.authorized()
            lane.applied(CapturePayment(id=1) if action == "capture" else ReversePayment(id=1))
        if action != "authorize":
            self.provider.payments[PROVIDER_ID] = Held(1, AMOUNT)
        if action == "refund":
            self.provider.payments[PROVIDER_ID].status = "succeeded"
            self.provider.payments[PROVIDER_ID].captured = AMOUNT
        return lane.calls[-1]

    async def run(self) -> None:
        for _ in range(STEPS_MAX):
            if not self.queue:
                return
            if self.chance.random() < 0.3:
                self.now_s += self.chance.choice([0.1, 5.0, 600.0, 5 * 3600.0])
            if self.crashes_left and self.chance.random() < 0.02:
                self.queue.append(Copy())  # the outbox does not know that it was taken
                self.crashes_left -= 1
            self.chance.shuffle(self.queue)
            taken = [self.queue.pop() for _ in range(min(len(self.queue), self.chance.choice([1, 2])))]
            await asyncio.gather(*(self._work(worker, copy) for worker, copy in zip(self.workers, taken, strict=False)))
        raise AssertionError("it does not end")

    async def _work(self, worker: Attempts, copy: Copy) -> None:
        """One delivery; what a crash leaves is delivered again."""
        again = Copy(copy.headers, is_again=True)
        attempted = attempted_of(copy.headers, self.now_s, published_at_s=BEGAN_S, is_again=copy.is_again)
        if self._crashes():
            self.queue.append(again)
            return
        began = self.provider.turn
        done = await worker.attempt(self.handler, self.effect, KEY, attempted)
        if self._crashes():
            self.queue.append(again)
            return
        if isinstance(done, EffectResult):
            self._bring(done, began)
        else:
            self.queue.append(Copy(attempted.headers()))
        if self._crashes():  # before the acknowledgement
            self.queue.append(again)

    def _crashes(self) -> bool:
        if self.crashes_left and self.chance.random() < 0.1:
            self.crashes_left -= 1
            return True
        return False

    def _bring(self, result: EffectResult, began: int) -> None:
        """The lane takes the first of each id; with other content it is a dead letter, which must be no fact.

        `began`: the turn of the provider's when the attempt began.
        """
        verdict = getattr(result.command, "verdict", "")
        if not result.is_fact and verdict in FAILED:
            was_done = self.provider.done_at is not None and self.provider.done_at <= began
            assert not was_done, "it was told that it did not happen, and it had"
        if result.is_fact:
            self.facts.append(result.command)
        command_id = result.command_id(CommandMessage(command_id=KEY, type=self.effect.type, arguments=b"{}"), None)
        known = self.brought.setdefault(command_id, result.command)
        if known is result.command:
            self.lane.do(result.command)
        elif result.is_fact:
            assert known == result.command, "two facts"

    def check(self) -> None:
        has_done = self.provider.has_done(self.action)
        holds = len(self.provider.payments)
        assert holds <= 1, "held twice"
        assert self.brought, "nothing was brought"
        payment = self.lane.payment
        if not has_done:
            assert payment.captured in {0, AMOUNT if self.action == "refund" else 0}
            assert payment.status != {"authorize": "authorized", "capture": "captured", "void": "voided"}.get(
                self.action
            )
            return
        if not self.facts:
            assert payment.status == "needs_review", "it happened, and nobody is to look"
        elif self.action == "authorize":
            is_let_go = payment.status == "failed" and payment.pending_action == "void"
            assert payment.status == "authorized" or is_let_go
        elif self.action == "refund":
            assert payment.refunded == 300
        else:
            assert payment.status == {"capture": "captured", "void": "voided"}[self.action]


@pytest.mark.parametrize("action", ["authorize", "capture", "void", "refund"])
def test_whatever_happens_it_happens_once_at_most_and_nothing_wrong_is_told(action: str) -> None:
    ends: set[str] = set()
    for seed in SEEDS:
        world = World(action, seed)
        try:
            asyncio.run(world.run())
            world.check()
        except AssertionError as error:
            raise AssertionError(f"{action}, seed {seed}: {error}") from error
        ends |= {str(getattr(command, "verdict", "")) for command in world.brought.values()}
    # The histories reach every end.
    assert len(ends) == 3, ends


@pytest.mark.parametrize("guess", ["failed", "lost"])
@pytest.mark.parametrize("action", ["authorize", "capture", "void", "refund"])
def test_a_fact_overrules_a_guess_and_no_guess_a_fact(action: str, guess: str) -> None:
    verdict = "answer_lost" if guess == "lost" else f"{action}_failed"
    for order in ("guess first", "fact first"):
        world = World(action, 0)
        handler = world.handler
        fact, guessed = _fact_of(world), _guess_of(world, verdict)
        assert handler.effect is type(world.effect)
        for command in (guessed, fact) if order == "guess first" else (fact, guessed):
            world.lane.do(command)
        payment = world.lane.payment
        if action == "authorize":
            # Everybody was told that it failed: the hold is let go, not used.
            is_let_go = order == "guess first" and guess == "failed"
            expected = ("failed", "void") if is_let_go else ("authorized", None)
            assert (payment.status, payment.pending_action, payment.provider_id) == (*expected, PROVIDER_ID)
        elif action == "capture":
            # Likewise it is given back, if the hold could not be let go before it was taken.
            assert (payment.status, payment.captured) == ("captured", AMOUNT)
            is_given_back = order == "guess first" and guess == "failed"
            assert payment.pending_action == ("refund" if is_given_back else None)
        elif action == "void":
            assert (payment.status, payment.pending_action) == ("voided", None)
        else:
            assert (payment.status, payment.refunded, payment.refund_id) == ("captured", 300, None)
            assert world.lane.refunds[0].status == "succeeded"


def _fact_of(world: World) -> Command:
    async def answered() -> Command:
        world.provider._bad_until_s = 0.0
        attempted = Attempted(asked_at_s=BEGAN_S, first_at_s=BEGAN_S)
        while True:
            done = await world.workers[0].attempt(world.handler, world.effect, KEY, attempted)
            world.now_s += 700.0
            if isinstance(done, EffectResult):
                assert done.is_fact
                return done.command

    return asyncio.run(answered())


def _guess_of(world: World, verdict: Any) -> Command:
    results: dict[str, Command] = {
        "authorize": AuthorizeResult(id=1, verdict=verdict),
        "capture": CaptureResult(id=1, verdict=verdict),
        "void": VoidResult(id=1, verdict=verdict),
        "refund": RefundResult(id=1, refund_id=1, verdict=verdict),
    }
    return results[world.action]
