"""How the payments lane applies its commands."""

from shared.payments.commands import OpenPayment
from shared.payments.model import PENDING, Payment
from shared.unit_of_work import Handler, UnitOfWork


def open_payment(work: UnitOfWork, command: OpenPayment) -> Payment:
    return work.add(
        Payment(
            id=work.next_id("payments"),
            user_id=command.user_id,
            amount=command.amount,
            currency=command.currency,
            status=PENDING,
            created_at=work.now,
        )
    )


HANDLERS = (Handler(OpenPayment, open_payment),)
