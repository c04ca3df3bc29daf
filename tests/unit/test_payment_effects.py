"""What the provider answers, and what the lane is told of it."""

from typing import Any

import pytest

from coordinator.effects.attempts import Attempts
from shared.commands import Command
from shared.effects import Effect, EffectRetry, Effects
from shared.payments.effects import (
    AuthorizeAtProvider,
    CaptureAtProvider,
    PaymentEffects,
    RefundAtProvider,
    VoidAtProvider,
)
from shared.payments.provider import Authorized, Captured, Declined, Refunded, Refused, Voided
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, VoidResult
from shared.settings import EffectSettings

AUTHORIZE = AuthorizeAtProvider(id=1, amount=1230, currency="KWD", payment_method="pm_x")
CAPTURE = CaptureAtProvider(id=1, provider_id="pi_1", amount=1230, currency="KWD")
VOID = VoidAtProvider(id=1, provider_id="pi_1")
REFUND = RefundAtProvider(id=1, refund_id=2, provider_id="pi_1", amount=30, currency="KWD")
NO = {"code": "no", "message": "not this one"}


class FakeProvider:
    """Gives one answer to everything, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def authorize(self, **asked: Any) -> Any:
        return self._answer("authorize", asked)

    async def capture(self, **asked: Any) -> Any:
        return self._answer("capture", asked)

    async def void(self, **asked: Any) -> Any:
        return self._answer("void", asked)

    async def refund(self, **asked: Any) -> Any:
        return self._answer("refund", asked)

    async def close(self) -> None:
        self.calls.append(("close", {}))

    def _answer(self, name: str, asked: dict[str, Any]) -> Any:
        self.calls.append((name, asked))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def told(provider: FakeProvider, effect: Effect) -> Command:
    async def pause(_: float) -> None:
        pass

    effects: Effects = PaymentEffects(provider)
    (handler,) = (each for each in effects.handlers if each.effect is type(effect))
    attempts = Attempts(EffectSettings(attempts_max=3), lambda: 0.0, pause)
    return await attempts.carry_out(handler, effect, "key", may_have_happened=False)


@pytest.mark.parametrize(
    ("effect", "answer", "result"),
    [
        (AUTHORIZE, Authorized(provider_id="pi_1"), AuthorizeResult(id=1, verdict="authorized", provider_id="pi_1")),
        (AUTHORIZE, Declined(**NO), AuthorizeResult(id=1, verdict="declined", **NO)),
        (AUTHORIZE, Refused(**NO), AuthorizeResult(id=1, verdict="authorize_failed", **NO)),
        (CAPTURE, Captured(amount=1230), CaptureResult(id=1, verdict="captured", amount=1230)),
        (CAPTURE, Refused(**NO, status="canceled"), CaptureResult(id=1, verdict="voided", **NO)),
        (CAPTURE, Refused(**NO), CaptureResult(id=1, verdict="capture_failed", **NO)),
        (VOID, Voided(), VoidResult(id=1, verdict="voided")),
        (VOID, Refused(**NO, status="succeeded"), VoidResult(id=1, verdict="captured", **NO)),
        (VOID, Refused(**NO), VoidResult(id=1, verdict="void_failed", **NO)),
        (
            REFUND,
            Refunded(refund_id="re_1", amount=30),
            RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_1"),
        ),
        (REFUND, Refused(**NO), RefundResult(id=1, refund_id=2, verdict="refund_failed", **NO)),
    ],
)
async def test_an_answer_becomes_a_command(effect: Effect, answer: Any, result: Command) -> None:
    provider = FakeProvider(answer)
    assert await told(provider, effect) == result
    ((_, asked),) = provider.calls
    assert asked["key"] == "key"


@pytest.mark.parametrize(
    ("effect", "failed"),
    [
        (AUTHORIZE, "authorize_failed"),
        (CAPTURE, "capture_failed"),
        (VOID, "void_failed"),
        (REFUND, "refund_failed"),
    ],
)
@pytest.mark.parametrize("may_have_happened", [False, True])
async def test_after_the_last_attempt_the_lane_is_told_whether_money_may_have_moved(
    effect: Effect, failed: str, *, may_have_happened: bool
) -> None:
    provider = FakeProvider(EffectRetry("status 503", may_have_happened=may_have_happened))
    result: Any = await told(provider, effect)
    assert result.verdict == ("answer_lost" if may_have_happened else failed)
    assert result.code == ("answer_lost" if may_have_happened else "provider_unavailable")
    assert "attempt 3" in result.message
    assert "status 503" in result.message
    assert [asked["key"] for _, asked in provider.calls] == ["key"] * 3


async def test_the_provider_is_asked_for_what_the_effect_says() -> None:
    provider = FakeProvider(Authorized(provider_id="pi_1"))
    await told(provider, AUTHORIZE)
    asked = {"payment_id": 1, "amount": 1230, "currency": "KWD", "payment_method": "pm_x", "key": "key"}
    assert provider.calls == [("authorize", asked)]
    await PaymentEffects(provider).close()
    assert provider.calls[-1] == ("close", {})
