"""The calls to the provider, and the commands that their answers become."""

from typing import Any, Final

from coordinator import Call, Command, Effect, EffectHandler, GivenUp, Id
from shared.payments.model import Action, Payment, Refund
from shared.payments.provider import Authorized, Captured, Declined, PaymentProvider, Refunded, Refused, Voided
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, VoidResult

ANSWER_LOST: Final = "answer_lost"
PROVIDER_UNAVAILABLE: Final = "provider_unavailable"

# The provider's statuses of a payment that is let go, and of one that is taken.
_CANCELED: Final = "canceled"


class AuthorizeAtProvider(Effect, type="payments.effects.authorize"):
    """Hold an amount."""

    id: Id
    amount: int
    currency: str
    payment_method: str


class CaptureAtProvider(Effect, type="payments.effects.capture"):
    """Take the held amount."""

    id: Id
    provider_id: str
    amount: int
    currency: str


class VoidAtProvider(Effect, type="payments.effects.void"):
    """Let go of the hold."""

    id: Id
    provider_id: str


class RefundAtProvider(Effect, type="payments.effects.refund"):
    """Give back the money that was taken, or a part of it."""

    id: Id
    refund_id: Id
    provider_id: str
    amount: int
    currency: str


def effect_for(payment: Payment, action: Action, refund: Refund | None = None) -> Effect:
    """The call for a payment's action; `refund` is the refund to make."""
    if action == "authorize":
        return AuthorizeAtProvider(
            id=payment.id,
            amount=payment.amount,
            currency=payment.currency,
            payment_method=payment.payment_method or "",
        )
    provider_id = payment.provider_id or ""
    if action == "void":
        return VoidAtProvider(id=payment.id, provider_id=provider_id)
    if refund is None:
        return CaptureAtProvider(
            id=payment.id, provider_id=provider_id, amount=payment.amount, currency=payment.currency
        )
    return RefundAtProvider(
        id=payment.id,
        refund_id=refund.id,
        provider_id=provider_id,
        amount=refund.amount,
        currency=payment.currency,
    )


class PaymentEffects:
    """Implements `coordinator.service.outside_calls.Effects` with a provider."""

    def __init__(self, provider: PaymentProvider) -> None:
        self._provider = provider

    @property
    def handlers(self) -> tuple[EffectHandler[Any], ...]:
        return (
            EffectHandler(AuthorizeAtProvider, self._authorize, _authorize_given_up, self._look_up_authorization),
            EffectHandler(CaptureAtProvider, self._capture, _capture_given_up, self._look_up_capture),
            EffectHandler(VoidAtProvider, self._void, _void_given_up, self._look_up_void),
            EffectHandler(RefundAtProvider, self._refund, _refund_given_up, self._look_up_refund),
        )

    async def close(self) -> None:
        await self._provider.close()

    async def _authorize(self, effect: AuthorizeAtProvider, call: Call) -> Command:
        answer = await self._provider.authorize(
            payment_id=effect.id,
            amount=effect.amount,
            currency=effect.currency,
            payment_method=effect.payment_method,
            key=call.key,
            asked_at=call.asked_at,
            is_repeated=call.is_repeated,
            traceparent=call.traceparent,
        )
        return _authorize_result(effect, answer)

    async def _look_up_authorization(self, effect: AuthorizeAtProvider, call: Call) -> Command | None:
        answer = await self._provider.look_up_authorization(
            payment_id=effect.id,
            amount=effect.amount,
            currency=effect.currency,
            key=call.key,
            asked_at=call.asked_at,
        )
        return None if answer is None else _authorize_result(effect, answer)

    async def _capture(self, effect: CaptureAtProvider, call: Call) -> Command:
        answer = await self._provider.capture(
            payment_id=effect.id,
            provider_id=effect.provider_id,
            amount=effect.amount,
            currency=effect.currency,
            key=call.key,
        )
        return _capture_result(effect, answer)

    async def _look_up_capture(self, effect: CaptureAtProvider, call: Call) -> Command | None:  # noqa: ARG002
        answer = await self._provider.look_up_capture(payment_id=effect.id, provider_id=effect.provider_id)
        return None if answer is None else _capture_result(effect, answer)

    async def _void(self, effect: VoidAtProvider, call: Call) -> Command:
        answer = await self._provider.void(payment_id=effect.id, provider_id=effect.provider_id, key=call.key)
        return _void_result(effect, answer)

    async def _look_up_void(self, effect: VoidAtProvider, call: Call) -> Command | None:  # noqa: ARG002
        answer = await self._provider.look_up_void(payment_id=effect.id, provider_id=effect.provider_id)
        return None if answer is None else _void_result(effect, answer)

    async def _refund(self, effect: RefundAtProvider, call: Call) -> Command:
        answer = await self._provider.refund(
            payment_id=effect.id,
            refund_id=effect.refund_id,
            provider_id=effect.provider_id,
            amount=effect.amount,
            currency=effect.currency,
            key=call.key,
            asked_at=call.asked_at,
            is_repeated=call.is_repeated,
            traceparent=call.traceparent,
        )
        return _refund_result(effect, answer)

    async def _look_up_refund(self, effect: RefundAtProvider, call: Call) -> Command | None:
        answer = await self._provider.look_up_refund(
            payment_id=effect.id, refund_id=effect.refund_id, provider_id=effect.provider_id, key=call.key
        )
        return None if answer is None else _refund_result(effect, answer)


def _authorize_result(effect: AuthorizeAtProvider, answer: Authorized | Declined | Refused) -> Command:
    if isinstance(answer, Authorized):
        return AuthorizeResult(id=effect.id, verdict="authorized", provider_id=answer.provider_id)
    return AuthorizeResult(
        id=effect.id,
        verdict="declined" if isinstance(answer, Declined) else "authorize_failed",
        code=answer.code,
        message=answer.message,
    )


def _capture_result(effect: CaptureAtProvider, answer: Captured | Refused) -> Command:
    if isinstance(answer, Captured):
        return CaptureResult(id=effect.id, verdict="captured", amount=answer.amount)
    return CaptureResult(
        id=effect.id,
        verdict="voided" if answer.status == _CANCELED else "capture_failed",
        code=answer.code,
        message=answer.message,
    )


def _void_result(effect: VoidAtProvider, answer: Voided | Captured | Refused) -> Command:
    if isinstance(answer, Voided):
        return VoidResult(id=effect.id, verdict="voided")
    if isinstance(answer, Captured):
        return VoidResult(id=effect.id, verdict="captured", amount=answer.amount)
    return VoidResult(id=effect.id, verdict="void_failed", code=answer.code, message=answer.message)


def _refund_result(effect: RefundAtProvider, answer: Refunded | Refused) -> Command:
    if isinstance(answer, Refunded):
        return RefundResult(
            id=effect.id,
            refund_id=effect.refund_id,
            verdict="refunded",
            provider_id=answer.refund_id,
            total=answer.total,
        )
    return RefundResult(
        id=effect.id, refund_id=effect.refund_id, verdict="refund_failed", code=answer.code, message=answer.message
    )


def _authorize_given_up(effect: AuthorizeAtProvider, given_up: GivenUp) -> Command:
    return AuthorizeResult(
        id=effect.id,
        verdict="answer_lost" if given_up.may_have_happened else "authorize_failed",
        code=_code(given_up),
        message=_message(given_up),
    )


def _capture_given_up(effect: CaptureAtProvider, given_up: GivenUp) -> Command:
    return CaptureResult(
        id=effect.id,
        verdict="answer_lost" if given_up.may_have_happened else "capture_failed",
        code=_code(given_up),
        message=_message(given_up),
    )


def _void_given_up(effect: VoidAtProvider, given_up: GivenUp) -> Command:
    return VoidResult(
        id=effect.id,
        verdict="answer_lost" if given_up.may_have_happened else "void_failed",
        code=_code(given_up),
        message=_message(given_up),
    )


def _refund_given_up(effect: RefundAtProvider, given_up: GivenUp) -> Command:
    return RefundResult(
        id=effect.id,
        refund_id=effect.refund_id,
        verdict="answer_lost" if given_up.may_have_happened else "refund_failed",
        code=_code(given_up),
        message=_message(given_up),
    )


def _code(given_up: GivenUp) -> str:
    return ANSWER_LOST if given_up.may_have_happened else PROVIDER_UNAVAILABLE


def _message(given_up: GivenUp) -> str:
    """For the reader of the payment. The reason, which may be a transport's text, is in the worker's log."""
    doubt = "it may have had its effect" if given_up.may_have_happened else "it had no effect"
    return f"the call was given up after attempt {given_up.attempts}, and {doubt}"
