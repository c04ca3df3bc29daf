"""How the payments lane applies its commands."""

from collections.abc import Iterable

import msgspec
from msgspec import UNSET

from shared.errors import Rejected
from shared.payments import actions
from shared.payments.commands import (
    CapturePayment,
    OpenPayment,
    ProviderEvent,
    RefundPayment,
    ReversePayment,
    SettleAction,
)
from shared.payments.currencies import minor_unit_digits
from shared.payments.model import Payment, PaymentAction, Refund
from shared.payments.settling import provider_event, settle_action
from shared.payments.states import impossible
from shared.rows import Ref, Row, by_key
from shared.unit_of_work import Handler, UnitOfWork


def open_payment(work: UnitOfWork, command: OpenPayment) -> Payment:
    if minor_unit_digits(command.currency) is None:
        raise Rejected("unknown_currency", f"{command.currency} is no current currency of ISO 4217 with a minor unit")
    payment = work.add(
        Payment(
            id=work.next_id("payments"),
            user_id=command.user_id,
            amount=command.amount,
            currency=command.currency,
            status="pending",
            payment_method=None if command.payment_method is UNSET else command.payment_method,
            created_at=work.now,
            updated_at=work.now,
        )
    )
    if payment.payment_method is not None:
        actions.authorize(work, payment, work.defer())
    return payment


def capture_payment(work: UnitOfWork, command: CapturePayment) -> Payment:
    payment = _idle(work, command.id)
    if payment.status != "authorized":
        raise impossible(payment.status, "captured", payment.id)
    actions.capture(work, payment, work.defer())
    return payment


def reverse_payment(work: UnitOfWork, command: ReversePayment) -> Payment:
    payment = _payment(work, command.id)
    action = work.get(PaymentAction, payment.id)
    if action is not None:
        actions.want_reversal(work, action, work.defer())
        return payment
    if payment.status == "pending":
        return work.save(msgspec.structs.replace(payment, status="voided", updated_at=work.now))
    # Put off only if there is something to wait for.
    if payment.status in ("authorized", "captured"):
        actions.reverse(work, payment, work.defer())
    else:
        actions.reverse(work, payment, None)
    return payment


def refund_payment(work: UnitOfWork, command: RefundPayment) -> Refund:
    payment = _idle(work, command.id)
    if payment.status != "captured":
        raise impossible(payment.status, "refunded", payment.id)
    left = payment.captured - payment.refunded
    return actions.refund(work, payment, left if command.amount is UNSET else command.amount, work.defer())


def _payment(work: UnitOfWork, payment_id: int) -> Payment:
    payment = work.get(Payment, payment_id)
    if payment is None:
        raise Rejected("payment_not_found", f"there is no payment {payment_id}")
    return payment


def _idle(work: UnitOfWork, payment_id: int) -> Payment:
    payment = _payment(work, payment_id)
    action = work.get(PaymentAction, payment_id)
    if action is not None:
        raise Rejected("action_under_way", f"payment {payment_id}: the provider is asked to {action.action} already")
    return payment


def _named(command: CapturePayment | ReversePayment | RefundPayment) -> Ref[Row]:
    return by_key(Payment, command.id)


def _reads(command: CapturePayment | ReversePayment | RefundPayment | ProviderEvent) -> Iterable[Ref[Row]]:
    return (by_key(Payment, command.id), by_key(PaymentAction, command.id))


def _settle_reads(command: SettleAction) -> Iterable[Ref[Row]]:
    refund = () if command.refund_id is None else (by_key(Refund, command.refund_id),)
    return (by_key(Payment, command.id), by_key(PaymentAction, command.id), *refund)


HANDLERS = (
    Handler(OpenPayment, open_payment),
    Handler(CapturePayment, capture_payment, reads=_reads, target=_named),
    Handler(ReversePayment, reverse_payment, reads=_reads, target=_named),
    Handler(RefundPayment, refund_payment, reads=_reads, target=_named),
    Handler(SettleAction, settle_action, reads=_settle_reads, is_internal=True),
    Handler(ProviderEvent, provider_event, reads=_reads, is_internal=True),
)
