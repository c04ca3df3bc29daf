"""How the payments lane applies its commands."""

from collections.abc import Iterable

from coordinator import Handler, Ref, Rejected, Row, UnitOfWork
from shared.owners import owner_of
from shared.payments.commands import CapturePayment, OpenPayment, RefundPayment, ResolvePayment, ReversePayment
from shared.payments.currencies import minor_unit_digits
from shared.payments.from_provider import authorize_result, capture_result, provider_event, refund_result, void_result
from shared.payments.model import Payment, Refund, Waiters
from shared.payments.progress import Progress, captured_in_part, new_refund
from shared.payments.results import AuthorizeResult, CaptureResult, RefundResult, TakeProviderEvent, VoidResult
from shared.payments.review import resolve_payment
from shared.payments.rules import PAYMENTS
from shared.payments.states import after


def open_payment(work: UnitOfWork, command: OpenPayment) -> Payment:
    if minor_unit_digits(command.currency) is None:
        raise Rejected("unknown_currency", f"{command.currency} is no currency of ISO 4217 that amounts can be in")
    payment = Payment(
        id=work.next_id("payments"),
        user_id=command.user_id,
        amount=command.amount,
        currency=command.currency,
        status="pending",
        payment_method=command.payment_method,
        created_at=work.now,
        updated_at=work.now,
        owner=owner_of(work.actor),
    )
    if command.payment_method is None:
        return work.add(payment)
    progress = Progress(work, payment, is_new=True)
    progress.ask("authorize", work.defer)
    return progress.store()


def capture_payment(work: UnitOfWork, command: CapturePayment) -> Payment:
    progress = _progress(work, command.id)
    refusal = captured_in_part(progress.payment)
    if refusal is not None and progress.payment.status != "needs_review":
        raise refusal
    after(command.id, progress.payment.status, "capture")
    progress.ask("capture", work.defer)
    return progress.store()


def reverse_payment(work: UnitOfWork, command: ReversePayment) -> Payment:
    progress = _progress(work, command.id)
    after(command.id, progress.payment.status, "reverse")
    progress.reverse(work.defer, is_asked=True)
    return progress.store()


def refund_payment(work: UnitOfWork, command: RefundPayment) -> Refund:
    progress = _progress(work, command.id)
    payment = progress.payment
    after(command.id, payment.status, "refund")
    left = payment.captured - payment.refunded
    amount = left if command.amount is None else command.amount
    if amount > left:
        text = f"payment {payment.id} has {left} {payment.currency} left to refund (minor units), not {amount}"
        raise Rejected("refund_too_large", text)
    refund = new_refund(work, payment, amount)
    progress.ask("refund", work.defer, refund)
    progress.store()
    return refund


def _progress(work: UnitOfWork, payment_id: int) -> Progress:
    payment = work.get(Payment, payment_id)
    if payment is None:
        raise Rejected("payment_not_found", f"there is no payment {payment_id}")
    return Progress(work, payment)


_Named = (
    CapturePayment
    | ReversePayment
    | RefundPayment
    | ResolvePayment
    | AuthorizeResult
    | CaptureResult
    | VoidResult
    | RefundResult
    | TakeProviderEvent
)


def _target(command: _Named) -> Ref[Row]:
    return Payment.at(command.id)


def _reads(command: _Named) -> Iterable[Ref[Row]]:
    return Payment.at(command.id), Waiters.at(command.id)


def _refund_reads(command: RefundResult) -> Iterable[Ref[Row]]:
    yield from _reads(command)
    yield Refund.at(command.refund_id)
    if command.provider_id is not None:
        yield Refund.at(provider_id=command.provider_id)


def _event_reads(command: TakeProviderEvent) -> Iterable[Ref[Row]]:
    yield from _reads(command)
    if command.refund_id is not None:
        yield Refund.at(provider_id=command.refund_id)
    if command.refund_number is not None:
        yield Refund.at(command.refund_number)


HANDLERS = (
    Handler(OpenPayment, open_payment, allow=PAYMENTS),
    Handler(CapturePayment, capture_payment, reads=_reads, target=_target, allow=PAYMENTS),
    Handler(ReversePayment, reverse_payment, reads=_reads, target=_target, allow=PAYMENTS),
    Handler(RefundPayment, refund_payment, reads=_reads, target=_target, allow=PAYMENTS),
    Handler(ResolvePayment, resolve_payment, reads=_reads, target=_target, is_operators=True),
    Handler(AuthorizeResult, authorize_result, reads=_reads, target=_target, is_internal=True),
    Handler(CaptureResult, capture_result, reads=_reads, target=_target, is_internal=True),
    Handler(VoidResult, void_result, reads=_reads, target=_target, is_internal=True),
    Handler(RefundResult, refund_result, reads=_refund_reads, target=_target, is_internal=True),
    Handler(TakeProviderEvent, provider_event, reads=_event_reads, target=_target, is_internal=True),
)
