"""Calls to the payment provider, as effects, and what is told to the lane of each."""

from typing import Any, ClassVar

import msgspec

from shared.commands import Amount, Command, Currency, Id
from shared.effects import Effect, EffectHandler, GivenUp
from shared.payments.commands import Action, PaymentMethod, ProviderId, SettleAction
from shared.payments.provider import (
    Authorized,
    Captured,
    Declined,
    PaymentProvider,
    Refunded,
    Refused,
    Voided,
)

TEXT_CHARACTERS_MAX = 500


class Authorize(Effect, frozen=True, kw_only=True):
    """Hold the amount."""

    type: ClassVar[str] = "payments.effects.authorize"

    id: Id
    amount: Amount
    currency: Currency
    payment_method: PaymentMethod


class Capture(Effect, frozen=True, kw_only=True):
    """Take what is held."""

    type: ClassVar[str] = "payments.effects.capture"

    id: Id
    provider_id: ProviderId
    amount: Amount
    currency: Currency


class Void(Effect, frozen=True, kw_only=True):
    """Let go of what is held."""

    type: ClassVar[str] = "payments.effects.void"

    id: Id
    provider_id: ProviderId


class GiveBack(Effect, frozen=True, kw_only=True):
    """Give back what was taken, or a part of it."""

    type: ClassVar[str] = "payments.effects.refund"

    id: Id
    refund_id: Id
    provider_id: ProviderId
    amount: Amount
    currency: Currency


class PaymentEffects:
    """Implements `Effects` with a provider."""

    def __init__(self, provider: PaymentProvider) -> None:
        self._provider = provider

    @property
    def handlers(self) -> tuple[EffectHandler[Any], ...]:
        return (
            EffectHandler(Authorize, self._authorize, _giving_up("authorize")),
            EffectHandler(Capture, self._capture, _giving_up("capture")),
            EffectHandler(Void, self._void, _giving_up("void")),
            EffectHandler(GiveBack, self._refund, _giving_up("refund")),
        )

    async def close(self) -> None:
        await self._provider.close()

    async def _authorize(self, effect: Authorize, key: str) -> Command:
        answer = await self._provider.authorize(
            payment_id=effect.id,
            amount=effect.amount,
            currency=effect.currency,
            payment_method=effect.payment_method,
            key=key,
        )
        return _told(effect.id, "authorize", answer)

    async def _capture(self, effect: Capture, key: str) -> Command:
        answer = await self._provider.capture(
            provider_id=effect.provider_id, amount=effect.amount, currency=effect.currency, key=key
        )
        return _told(effect.id, "capture", answer)

    async def _void(self, effect: Void, key: str) -> Command:
        return _told(effect.id, "void", await self._provider.void(provider_id=effect.provider_id, key=key))

    async def _refund(self, effect: GiveBack, key: str) -> Command:
        answer = await self._provider.refund(
            provider_id=effect.provider_id, amount=effect.amount, currency=effect.currency, key=key
        )
        return msgspec.structs.replace(_told(effect.id, "refund", answer), refund_id=effect.refund_id)


def _told(
    payment_id: int, action: Action, answer: Authorized | Declined | Captured | Voided | Refunded | Refused
) -> SettleAction:
    match answer:
        case Authorized():
            return SettleAction(id=payment_id, action=action, result="done", provider_id=answer.provider_id)
        case Captured():
            return SettleAction(id=payment_id, action=action, result="done", amount=answer.amount)
        case Refunded():
            return SettleAction(
                id=payment_id, action=action, result="done", amount=answer.amount, provider_id=answer.refund_id
            )
        case Voided():
            return SettleAction(id=payment_id, action=action, result="done")
        case Declined():
            return SettleAction(
                id=payment_id,
                action=action,
                result="declined",
                code=_short(answer.code),
                message=_short(answer.message),
            )
        case Refused():
            return SettleAction(
                id=payment_id,
                action=action,
                result="refused",
                provider_status=answer.status,
                code=_short(answer.code),
                message=_short(answer.message),
            )


def _giving_up(action: Action) -> Any:
    def give_up(effect: Authorize | Capture | Void | GiveBack, given_up: GivenUp) -> Command:
        return SettleAction(
            id=effect.id,
            action=action,
            result="unsure" if given_up.may_have_happened else "failed",
            refund_id=effect.refund_id if isinstance(effect, GiveBack) else None,
            code="provider_unavailable",
            message=_short(f"given up after {given_up.attempts} attempts: {given_up.reason}"),
        )

    return give_up


def _short(text: str) -> str:
    return text[:TEXT_CHARACTERS_MAX]
