"""One payment on its way, within one command: the requests to the provider, its answers, and the waiters for them.

The provider is asked for one action at a time. The call's own result, or an event that overtakes it, ends the action
and answers the command that waits for it; a later result is old news. `store` makes it all take effect.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from coordinator import Deferred, Rejected, UnitOfWork
from shared.payments.commands import RefundPayment, ReversePayment
from shared.payments.effects import effect_for
from shared.payments.model import OTHERS_MAX, Action, Payment, Reason, Refund, ReversalWaiter, Waiters
from shared.payments.states import FOR_OPERATORS, REFUND_RETURNED, Event, Status, after

# The actions that each event makes certain, and so ends. A refund ends with its own row.
_ENDS: Final[Mapping[Event, frozenset[Action]]] = {
    "authorized": frozenset({"authorize"}),
    "declined": frozenset({"authorize"}),
    "captured": frozenset({"authorize", "capture", "void"}),
    "voided": frozenset({"authorize", "capture", "void"}),
    "refund_returned": frozenset({"authorize", "capture", "void"}),
    "authorize_failed": frozenset({"authorize"}),
    "capture_failed": frozenset({"capture"}),
    "void_failed": frozenset({"void"}),
    "answer_lost": frozenset({"authorize", "capture", "void"}),
}

_GOOD: Final[Mapping[Action, frozenset[Status]]] = {
    "authorize": frozenset({"authorized", "captured", "refunded"}),
    "capture": frozenset({"captured", "refunded"}),
    "void": frozenset({"voided", "declined", "failed", "refunded"}),
    "refund": frozenset({"captured", "refunded"}),
}
_BAD: Final = frozenset({"declined", "failed", "needs_review"})

Waiter = Callable[[], Deferred | None]
"""Takes the continuation of the command that asks, if it has one."""


class Progress:
    """Collects the changes of a payment; `store` stores them."""

    def __init__(self, work: UnitOfWork, payment: Payment, *, is_new: bool = False) -> None:
        self._work = work
        self._before: Payment | None = None if is_new else payment
        self.payment = payment
        self._waiters_before = None if is_new else work.get(Waiters, payment.id)
        self._waiters = self._waiters_before or Waiters(payment_id=payment.id)
        self._resumed: list[tuple[Deferred, Refund | Rejected | None]] = []

    def store(self) -> Payment:
        """Do what is wanted and possible now; save the changes, and answer the commands that waited for them."""
        self._go_on()
        if self._before is None:
            self.payment = self._work.add(self.payment)
        elif self.payment != self._before:
            self.payment = self._work.save(msgspec.structs.replace(self.payment, updated_at=self._work.now))
        self._store_waiters()
        for deferred, answer in self._resumed:
            self._work.resume(deferred, self.payment if answer is None else answer)
        return self.payment

    def note(
        self,
        *,
        provider_id: str | None = None,
        captured: int | None = None,
        refunded: int | None = None,
        reason: Reason | None = None,
        amounts_as_of: datetime | None = None,
    ) -> None:
        """Note new facts beside the state; None leaves a value as it is."""
        payment = self.payment
        self.payment = msgspec.structs.replace(
            payment,
            provider_id=payment.provider_id if provider_id is None else provider_id,
            captured=payment.captured if captured is None else captured,
            refunded=payment.refunded if refunded is None else refunded,
            reason_code=payment.reason_code if reason is None else reason.code,
            reason=payment.reason if reason is None else reason.message,
            amounts_as_of=payment.amounts_as_of if amounts_as_of is None else amounts_as_of,
        )

    def move(self, event: Event, reason: Reason | None = None) -> None:
        """Bring the payment to the state that the event leads to, and end the actions that it ends. Raises Rejected.

        A review that only an operator ends stays: the event ends actions alone.
        """
        payment = self.payment
        status = after(payment.id, payment.status, event)
        if payment.status == "needs_review" and payment.reason_code in FOR_OPERATORS:
            status = payment.status
        known = None if payment.reason_code is None else Reason(payment.reason_code, payment.reason or "")
        if status == payment.status and event != "refund_returned":
            reason = known  # if the state stays, its reason stays too, such as an operator's
        elif status not in _BAD:
            reason = None
        elif reason is None:
            reason = known
        self.payment = msgspec.structs.replace(
            payment,
            status=status,
            reason_code=None if reason is None else reason.code,
            reason=None if reason is None else reason.message,
        )
        if payment.pending_action in _ENDS.get(event, frozenset()):
            self.end()

    def ask(self, action: Action, waiter: Waiter, refund: Refund | None = None) -> None:
        """Have the provider called. Raises Rejected (`action_under_way`)."""
        payment = self.payment
        if payment.pending_action is not None:
            under_way = f"payment {payment.id}: {payment.pending_action} is under way at the provider"
            raise Rejected("action_under_way", f"{under_way}; ask again when it is known")
        self.payment = msgspec.structs.replace(
            payment, pending_action=action, refund_id=payment.refund_id if refund is None else refund.id
        )
        self._work.emit(effect_for(self.payment, action, refund))
        self._waiters = msgspec.structs.replace(self._waiters, action=_encoded(waiter()))

    def reverse(self, waiter: Waiter, *, is_asked: bool) -> None:
        """Give back the money that was taken, let go of the hold; no command waits if there is nothing to do.

        While an action is under way the reversal is remembered. A second one is the same wish: it is remembered with
        the first, and who waits for it gets the same answer. Raises Rejected (`action_under_way`) where too many wait.
        `is_asked`: the lane itself answers the command that asks now, if there is nothing to do for it.
        """
        payment = self.payment
        if payment.pending_action is not None:
            waits = _encoded(waiter())
            if waits is not None and self._waiters.reversal is not None:
                self._wait_beside(waits)
            self.payment = msgspec.structs.replace(payment, wanted="reverse")
            self._waiters = msgspec.structs.replace(self._waiters, reversal=self._waiters.reversal or waits)
        elif payment.status == "authorized":
            self.ask("void", waiter)
        elif payment.status == "captured" and payment.captured > payment.refunded:
            self.ask("refund", waiter, new_refund(self._work, payment, payment.captured - payment.refunded))
        else:
            if payment.status == "pending":  # nobody was asked for anything
                self.move("voided")
            if not is_asked:
                self._resume(waiter(), None)
                self._resume_others(None)

    def end(self) -> None:
        """The result of the action under way is known: answer the command that waits, and do what is wanted now."""
        action = self.payment.pending_action
        if action is None:
            return
        self.payment = msgspec.structs.replace(self.payment, pending_action=None)
        waiter = _decoded(self._waiters.action)
        self._waiters = msgspec.structs.replace(self._waiters, action=None)
        if action == "void" and self.payment.status == "captured":
            # Somebody took the amount before the hold was let go: it must be given back all the same.
            self.reverse(lambda: waiter, is_asked=False)
            return
        if action == "void" and self.payment.reason_code == REFUND_RETURNED:
            # It was taken as well, but nobody knows yet how much there is to give back.
            self.want_reversal()
        refund = self._refund_in_question() if action == "refund" else None
        if self._is_known(refund):
            self.payment = msgspec.structs.replace(self.payment, refund_id=None)
        answer = self._answer(action, waiter, refund)
        self._resume(waiter, answer)
        if waiter is not None and waiter.type == ReversePayment.type and self._waiters.reversal is None:
            # Else they wait with the next one, which may yet bring what this one did not.
            self._resume_others(answer)

    def _go_on(self) -> None:
        """Do what is wanted, once the state of the payment is known."""
        if self.payment.wanted is None or self.payment.pending_action is not None:
            return
        waiter = _decoded(self._waiters.reversal)
        self._waiters = msgspec.structs.replace(self._waiters, reversal=None)
        if self.payment.status == "needs_review":
            # The waiting command must get an answer; the reversal stays wanted until the provider says what to reverse.
            self._resume(waiter, self._refusal())
            self._resume_others(self._refusal())
            return
        self.payment = msgspec.structs.replace(self.payment, wanted=None)
        self.reverse(lambda: waiter, is_asked=False)

    def end_refund(self, refund_id: int) -> None:
        """The result of this refund is known: if it was the one under way, or in question, end that."""
        payment = self.payment
        if payment.refund_id != refund_id:
            return
        if payment.pending_action == "refund":
            self.end()
        elif self._is_known(self._work.get(Refund, refund_id)):
            self.payment = msgspec.structs.replace(payment, refund_id=None)

    def doubt(self) -> None:
        """What the action under way led to is in question, and stays under way until an operator has said it."""
        payment = self.payment
        self.payment = msgspec.structs.replace(payment, status=after(payment.id, payment.status, "answer_lost"))
        refund = self._refund_in_question() if payment.pending_action == "refund" else None
        if refund is not None and not self._is_known(refund):
            self._work.save(msgspec.structs.replace(refund, status="needs_review"))

    def question(self, refund_id: int) -> None:
        """It is not known whether this refund was made, though no action is under way."""
        self.payment = msgspec.structs.replace(self.payment, refund_id=refund_id)

    def want_reversal(self) -> None:
        """Undo what turns out to have happened, once it is known; no command waits for it."""
        self.payment = msgspec.structs.replace(self.payment, wanted="reverse")

    def let_go(self) -> None:
        """Let go of a failed payment's hold, if there is one; no command waits for it."""
        if self.payment.provider_id is not None and self.payment.pending_action is None:
            self.ask("void", lambda: None)

    def _refund_in_question(self) -> Refund | None:
        refund_id = self.payment.refund_id
        return None if refund_id is None else self._work.get(Refund, refund_id)

    @staticmethod
    def _is_known(refund: Refund | None) -> bool:
        return refund is not None and refund.status in {"succeeded", "failed"}

    def _answer(self, action: Action, waiter: Deferred | None, refund: Refund | None) -> Refund | Rejected | None:
        """The refusal for the command that waited; None: it gets the payment.

        The state alone does not decide: a command that asks for an amount succeeds only if that amount moved, and no
        less. Others may have moved a part of it, such as in the provider's dashboard.
        """
        payment = self.payment
        if refund is None:
            if payment.status not in _GOOD[action]:
                return self._refusal()
            return captured_in_part(payment) if action == "capture" else None
        if refund.status == "succeeded":
            if waiter is not None and waiter.type == RefundPayment.type:
                return refund
            # The waiting command asked for a reversal: all that was taken must be given back.
            return self._refusal() if payment.status == "needs_review" else _refunded_in_part(payment)
        if refund.status == "failed":
            text = f"refund {refund.id} of payment {refund.payment_id} failed: {refund.reason_code}: {refund.reason}"
            return Rejected("refund_failed", text)
        return self._refusal()

    def _refusal(self) -> Rejected:
        payment = self.payment
        reason = f": {payment.reason_code}: {payment.reason}" if payment.reason_code else ""
        text = f"payment {payment.id} is {payment.status}{reason}"
        is_declined = payment.status == "declined" and payment.reason_code is not None
        return Rejected(payment.reason_code or "" if is_declined else f"payment_{payment.status}", text)

    def _resume(self, waiter: Deferred | None, answer: Refund | Rejected | None) -> None:
        if waiter is not None:
            self._resumed.append((waiter, answer))

    def _wait_beside(self, waits: str) -> None:
        """One more waits for the reversal that is remembered. Raises Rejected (`action_under_way`)."""
        others = self._waiters.others + 1
        if others > OTHERS_MAX:
            text = f"payment {self.payment.id} is to be reversed already, and {OTHERS_MAX + 1} wait for that"
            raise Rejected("action_under_way", f"{text}; ask again when it is known")
        self._work.add(ReversalWaiter(payment_id=self.payment.id, number=others, waiter=waits))
        self._waiters = msgspec.structs.replace(self._waiters, others=others)

    def _resume_others(self, answer: Refund | Rejected | None) -> None:
        for number in range(1, self._waiters.others + 1):
            row = self._work.get(ReversalWaiter, (self.payment.id, number))
            if row is not None:
                self._work.remove(row)
                self._resume(_decoded(row.waiter), answer)
        self._waiters = msgspec.structs.replace(self._waiters, others=0)

    def _store_waiters(self) -> None:
        before, waiters = self._waiters_before, self._waiters
        if before is None:
            if not _is_empty(waiters):
                self._work.add(waiters)
        elif _is_empty(waiters):
            self._work.remove(before)
        elif waiters != before:
            self._work.save(waiters)


def captured_in_part(payment: Payment) -> Rejected | None:
    """The refusal for a command that asks for the whole amount; None: all of it was taken, or nothing yet."""
    if not 0 < payment.captured < payment.amount:
        return None
    text = f"of payment {payment.id} {payment.captured} {payment.currency} were captured (minor units)"
    return Rejected("captured_in_part", f"{text}, not {payment.amount}")


def _refunded_in_part(payment: Payment) -> Rejected | None:
    if payment.refunded == payment.captured:
        return None
    text = f"of payment {payment.id} {payment.refunded} {payment.currency} were refunded (minor units)"
    return Rejected("refunded_in_part", f"{text}, not {payment.captured}")


def new_refund(work: UnitOfWork, payment: Payment, amount: int) -> Refund:
    """Add a refund that is pending."""
    return work.add(
        Refund(
            id=work.next_id("refunds"),
            payment_id=payment.id,
            amount=amount,
            refunded_without=payment.refunded,
            created_at=work.now,
        )
    )


def _is_empty(waiters: Waiters) -> bool:
    return waiters.action is None and waiters.reversal is None and not waiters.others


def _encoded(deferred: Deferred | None) -> str | None:
    return None if deferred is None else deferred.encode()


def _decoded(text: str | None) -> Deferred | None:
    return None if text is None else Deferred.decode(text)
