"""How the users lane applies the commands of purchases."""

from coordinator import Handler, Ref, Rejected, Row, SagaStep, UnitOfWork
from shared.users.model import User
from shared.users.purchases.commands import ContinuePurchase, OpenPurchase, ResumePurchase
from shared.users.purchases.model import Purchase
from shared.users.purchases.saga import PURCHASE
from shared.users.rules import buyer


def open_purchase(work: UnitOfWork, command: OpenPurchase) -> Purchase:
    if work.get(User, command.user_id) is None:
        raise Rejected("user_not_found", f"there is no user {command.user_id}")
    purchase = Purchase(
        id=work.next_id("purchases"),
        user_id=command.user_id,
        item_id=command.item_id,
        quantity=command.quantity,
        payment_method=command.payment_method,
        created_at=work.now,
    )
    return PURCHASE.begin(work, purchase)


def continue_purchase(work: UnitOfWork, command: ContinuePurchase) -> Purchase:
    return PURCHASE.go_on(work, command)


def resume_purchase(work: UnitOfWork, command: ResumePurchase) -> Purchase:
    return PURCHASE.resume(work, command)


def _buyers(command: OpenPurchase) -> tuple[Ref[Row], ...]:
    return (User.at(command.user_id),)


HANDLERS = (
    Handler(OpenPurchase, open_purchase, reads=_buyers, of=_buyers, allow=buyer),
    Handler(
        ContinuePurchase,
        continue_purchase,
        reads=lambda command: (SagaStep.at(command.command_id),),
        is_internal=True,
    ),
    Handler(
        ResumePurchase,
        resume_purchase,
        reads=lambda command: (Purchase.at(command.id), SagaStep.at(command.step)),
        target=lambda command: Purchase.at(command.id),
        is_operators=True,
    ),
)
