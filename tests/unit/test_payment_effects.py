"""What the provider answers, and what the lane is told of it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from coordinator.effects.attempts import Attempts, EffectResult
from coordinator.effects.effect_spans import EffectSpan
from coordinator.protocol.attempted import Attempted
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import EffectSettings
from coordinator.service.commands import Command
from coordinator.service.outside_calls import Effect, EffectRetry, Effects
from shared.payments.effects import (
    AuthorizeAtProvider,
    CaptureAtProvider,
    PaymentEffects,
    RefundAtProvider,
    VoidAtProvider,
)
from shared.payments.provider import Authorized, Captured, Declined, Refunded, Refused, Voided
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, VoidResult

AUTHORIZE = AuthorizeAtProvider(id=1, amount=1230, currency="KWD", payment_method="pm_x")
CAPTURE = CaptureAtProvider(id=1, provider_id="pi_1", amount=1230, currency="KWD")
VOID = VoidAtProvider(id=1, provider_id="pi_1")
REFUND = RefundAtProvider(id=1, refund_id=2, provider_id="pi_1", amount=30, currency="KWD")
ASKED_AT = datetime(2026, 11, 26, tzinfo=UTC)
TRACE = f"00-{'1' * 32}-{'a' * 16}-01"
NO: dict[str, Any] = {"code": "no", "message": "not this one"}


class FakeProvider:
    """Gives one answer to everything, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.known: Any = None
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def authorize(self, **asked: Any) -> Any:
        return self._answer("authorize", asked)

    async def capture(self, **asked: Any) -> Any:
        return self._answer("capture", asked)

    async def void(self, **asked: Any) -> Any:
        return self._answer("void", asked)

    async def refund(self, **asked: Any) -> Any:
        return self._answer("refund", asked)

    async def look_up_authorization(self, **asked: Any) -> Any:
        return self._known("authorize", asked)

    async def look_up_capture(self, **asked: Any) -> Any:
        return self._known("capture", asked)

    async def look_up_void(self, **asked: Any) -> Any:
        return self._known("void", asked)

    async def look_up_refund(self, **asked: Any) -> Any:
        return self._known("refund", asked)

    async def close(self) -> None:
        self.calls.append(("close", {}))

    def _known(self, name: str, asked: dict[str, Any]) -> Any:
        self.calls.append((f"look up {name}", asked))
        if isinstance(self.known, Exception):
            raise self.known
        return self.known

    def _answer(self, name: str, asked: dict[str, Any]) -> Any:
        self.calls.append((name, asked))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def result_of(provider: FakeProvider, effect: Effect) -> EffectResult:
    """Until it is told; a minute passes by pauses alone."""
    effects: Effects = PaymentEffects(provider)
    (handler,) = (each for each in effects.handlers if each.effect is type(effect))
    now_s = ASKED_AT.timestamp()
    attempts = Attempts("payments", EffectSettings(give_up_after_s=60.0), lambda: 1.0, lambda: now_s, lambda: now_s)
    attempted = Attempted(asked_at_s=now_s, first_at_s=now_s)
    span = EffectSpan("payments", CommandMessage("key", effect.type, b"{}", traceparent=TRACE))
    while True:
        done = await attempts.attempt(handler, effect, "key", attempted, span)
        if isinstance(done, EffectResult):
            return done
        now_s += done.delay_s


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
        (VOID, Captured(amount=30), VoidResult(id=1, verdict="captured", amount=30)),
        (VOID, Refused(**NO), VoidResult(id=1, verdict="void_failed", **NO)),
        (
            REFUND,
            Refunded(refund_id="re_1", amount=30, total=70),
            RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_1", total=70),
        ),
        (REFUND, Refused(**NO), RefundResult(id=1, refund_id=2, verdict="refund_failed", **NO)),
    ],
)
async def test_an_answer_becomes_a_command(effect: Effect, answer: Any, result: Command) -> None:
    provider = FakeProvider(answer)
    assert await result_of(provider, effect) == EffectResult(command=result, is_fact=True)
    ((_, asked),) = provider.calls
    assert asked["key"] == "key"


@pytest.mark.parametrize(
    ("effect", "known", "result"),
    [
        (AUTHORIZE, Authorized(provider_id="pi_1"), AuthorizeResult(id=1, verdict="authorized", provider_id="pi_1")),
        (AUTHORIZE, Declined(**NO), AuthorizeResult(id=1, verdict="declined", **NO)),
        (CAPTURE, Captured(amount=1230), CaptureResult(id=1, verdict="captured", amount=1230)),
        (CAPTURE, Refused(**NO, status="canceled"), CaptureResult(id=1, verdict="voided", **NO)),
        (VOID, Voided(), VoidResult(id=1, verdict="voided")),
        (VOID, Captured(amount=30), VoidResult(id=1, verdict="captured", amount=30)),
        (
            REFUND,
            Refunded(refund_id="re_1", amount=30, total=70),
            RefundResult(id=1, refund_id=2, verdict="refunded", provider_id="re_1", total=70),
        ),
    ],
)
async def test_what_the_provider_knows_in_the_end_is_the_result(effect: Effect, known: Any, result: Command) -> None:
    provider = FakeProvider(EffectRetry("status 503", may_have_happened=True))
    provider.known = known
    assert await result_of(provider, effect) == EffectResult(command=result, is_fact=True)
    assert provider.calls[-1][0].startswith("look up")


@pytest.mark.parametrize(
    ("effect", "failed"),
    [
        (AUTHORIZE, "authorize_failed"),
        (CAPTURE, "capture_failed"),
        (VOID, "void_failed"),
        (REFUND, "refund_failed"),
    ],
)
@pytest.mark.parametrize(
    ("may_have_happened", "known", "is_lost"),
    [
        (False, None, False),
        (True, None, True),
        (False, EffectRetry("status 503"), True),
    ],
    ids=["it certainly did not", "it may have", "nobody knows"],
)
async def test_when_it_is_given_up_the_lane_is_told_whether_money_may_have_moved(
    effect: Effect, failed: str, may_have_happened: bool, known: Any, is_lost: bool
) -> None:
    provider = FakeProvider(EffectRetry("status 503", may_have_happened=may_have_happened))
    provider.known = known
    done = await result_of(provider, effect)
    result: Any = done.command
    assert not done.is_fact
    assert result.verdict == ("answer_lost" if is_lost else failed)
    assert result.code == ("answer_lost" if is_lost else "provider_unavailable")
    assert "attempt 7" in result.message
    assert "status 503" not in result.message, "the payment shows it to its user"
    keys = [asked["key"] for name, asked in provider.calls if not name.startswith("look up")]
    assert keys == ["key"] * 7


async def test_the_provider_is_asked_for_what_the_effect_says() -> None:
    provider = FakeProvider(Authorized(provider_id="pi_1"))
    await result_of(provider, AUTHORIZE)
    asked = {"payment_id": 1, "amount": 1230, "currency": "KWD", "payment_method": "pm_x", "key": "key"}
    assert provider.calls == [("authorize", asked | {"asked_at": ASKED_AT, "is_repeated": False, "traceparent": TRACE})]
    await PaymentEffects(provider).close()
    assert provider.calls[-1] == ("close", {})
