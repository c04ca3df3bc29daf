"""What the provider did: told by an effect worker, or by the provider itself. Either may come first, or not at all."""

import msgspec
from msgspec import Struct

from shared.errors import Rejected
from shared.payments import actions
from shared.payments.commands import ProviderEvent, SettleAction
from shared.payments.model import REASON_CHARACTERS_MAX, Payment, PaymentAction, Refund
from shared.payments.states import OLD_NEWS, Event, after
from shared.unit_of_work import UnitOfWork

_DONE: dict[str, Event] = {"authorize": "authorized", "capture": "captured", "void": "voided"}
_PROVIDERS_WORD: dict[str, Event] = {"succeeded": "captured", "canceled": "voided"}
"""What the provider's state of a payment means, where it does not do what was asked because of it."""


def settle_action(work: UnitOfWork, command: SettleAction) -> Payment:
    """An effect worker's word. Nothing happens if the provider itself has told it before."""
    payment = _payment(work, command.id)
    action = work.get(PaymentAction, command.id)
    if action is None or (action.action, action.refund_id) != (command.action, command.refund_id):
        return payment
    if command.action == "refund":
        return _settle_refund(work, payment, action, command)
    match command.result:
        case "done":
            event = _DONE[command.action]
            return _over(work, _moved(work, payment, event, command.provider_id, command.amount or 0), action)
        case "declined":
            payment = _moved(work, payment, "declined", because=command)
            return _over(work, payment, action, Rejected("payment_declined", _text(command)))
        case "unsure":
            payment = _moved(work, payment, "unsure", because=command)
            return _over(work, payment, action, Rejected("payment_needs_review", _text(command)))
        case _:
            return _not_done(work, payment, action, command)


def provider_event(work: UnitOfWork, command: ProviderEvent) -> Payment:
    """The provider's own word, which ends what is under way if it is what that was for."""
    payment = _payment(work, command.id)
    if payment.provider_id not in (None, command.provider_id):
        raise Rejected(
            "impossible_transition",
            f"payment {payment.id} is {payment.provider_id} at the provider, not {command.provider_id}",
        )
    action = work.get(PaymentAction, command.id)
    if command.event == "refunded":
        return _refunded_by_provider(work, payment, action, command)
    if (payment.status, command.event) in OLD_NEWS:
        return payment
    payment = _moved(
        work,
        payment,
        command.event,
        command.provider_id,
        command.captured,
        because=command if command.event == "declined" else None,
    )
    if action is None or action.action == "refund":
        return payment
    wanted = _DONE[action.action]
    if command.event == wanted:
        return _over(work, payment, action)
    if command.event == "declined":
        return _over(work, payment, action, Rejected("payment_declined", _text(command)))
    # Not what was asked for, and it cannot come to that any more: captured instead of voided, or the reverse.
    return _over(work, payment, action, _instead(payment, action))


def _not_done(work: UnitOfWork, payment: Payment, action: PaymentAction, command: SettleAction) -> Payment:
    """The provider does not do it, or could not be asked: nothing moved, unless it says that something had before."""
    known = _PROVIDERS_WORD.get(command.provider_status or "")
    if known is not None and known != _DONE[command.action]:
        payment = _moved(work, payment, known, amount=payment.amount)
        if action.action == "void" and not action.is_reversal_wanted:
            # It was to be given back, and is taken: so it is refunded.
            action = msgspec.structs.replace(
                action, waiting=None, is_reversal_wanted=1, waiting_for_reversal=action.waiting
            )
        return _over(work, payment, action, _instead(payment, action))
    if command.action == "authorize":
        payment = _moved(work, payment, "failed", because=command)
        return _over(work, payment, action, Rejected("payment_failed", _text(command)))
    # It is as it was: held, and neither taken nor let go.
    return _over(work, payment, action, Rejected(f"{command.action}_failed", _text(command)))


def _settle_refund(work: UnitOfWork, payment: Payment, action: PaymentAction, command: SettleAction) -> Payment:
    refund = work.get(Refund, command.refund_id or 0)
    if refund is None:
        raise Rejected("refund_not_found", f"payment {payment.id} has no refund {command.refund_id}")
    match command.result:
        case "done":
            refund = work.save(msgspec.structs.replace(refund, status="succeeded", provider_id=command.provider_id))
            payment = _given_back(work, payment, payment.refunded + refund.amount)
            return _over(work, payment, action)
        case "unsure":
            work.save(msgspec.structs.replace(refund, status="needs_review", reason=_text(command)))
            payment = _moved(work, payment, "unsure", because=command)
            return _over(work, payment, action, Rejected("payment_needs_review", _text(command)))
        case _:
            work.save(msgspec.structs.replace(refund, status="failed", reason=_text(command)))
            return _over(work, payment, action, Rejected("refund_failed", _text(command)))


def _refunded_by_provider(
    work: UnitOfWork, payment: Payment, action: PaymentAction | None, command: ProviderEvent
) -> Payment:
    """A total: of ours, and of what somebody gave back at the provider by hand."""
    if command.refunded <= payment.refunded:
        return payment
    if payment.captured < command.refunded:
        payment = _moved(work, payment, "captured", command.provider_id, command.captured or payment.amount)
    before = payment.refunded
    payment = _given_back(work, payment, command.refunded)
    refund = None if action is None or action.refund_id is None else work.get(Refund, action.refund_id)
    if action is not None and refund is not None and command.refunded >= before + refund.amount:
        work.save(msgspec.structs.replace(refund, status="succeeded"))
        return _over(work, payment, action)
    return payment


def _given_back(work: UnitOfWork, payment: Payment, total: int) -> Payment:
    total = min(total, payment.captured)
    status = after(payment.status, "refunded", payment.id) if total == payment.captured else payment.status
    return work.save(msgspec.structs.replace(payment, refunded=total, status=status, updated_at=work.now))


def _moved(
    work: UnitOfWork,
    payment: Payment,
    event: Event,
    provider_id: str | None = None,
    amount: int = 0,
    *,
    because: SettleAction | ProviderEvent | None = None,
) -> Payment:
    """The payment after an event. Raises Rejected for one that cannot be."""
    captured = payment.captured
    if event == "captured":
        captured = max(captured, amount or payment.amount)
    return work.save(
        msgspec.structs.replace(
            payment,
            status=after(payment.status, event, payment.id),
            provider_id=payment.provider_id or provider_id,
            captured=captured,
            reason_code=payment.reason_code if because is None else because.code,
            reason=payment.reason if because is None else (because.message or "")[:REASON_CHARACTERS_MAX],
            updated_at=work.now,
        )
    )


def _over(
    work: UnitOfWork, payment: Payment, action: PaymentAction, outcome: Struct | Rejected | None = None
) -> Payment:
    """What was under way is over; by default well, and the payment is what is told."""
    actions.finish(work, payment, action, payment if outcome is None else outcome)
    return payment


def _instead(payment: Payment, action: PaymentAction) -> Rejected:
    return Rejected(f"{action.action}_failed", f"payment {payment.id} is {payment.status} at the provider already")


def _payment(work: UnitOfWork, payment_id: int) -> Payment:
    payment = work.get(Payment, payment_id)
    if payment is None:
        raise Rejected("payment_not_found", f"there is no payment {payment_id}")
    return payment


def _text(told: SettleAction | ProviderEvent) -> str:
    return f"{told.code}: {told.message}"
