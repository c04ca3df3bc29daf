"""How the users lane applies the commands of purchases."""

from coordinator import Handler, Ref, Rejected, Row, SagaStep, UnitOfWork
from shared.owners import owner_of
from shared.users.model import User
from shared.users.purchases.commands import ContinuePurchase, OpenPurchase, ResumePurchase
from shared.users.purchases.model import RUNNING_MAX, Purchase
from shared.users.purchases.saga import PURCHASE
from shared.users.rules import buyer


def open_purchase(work: UnitOfWork, command: OpenPurchase) -> Purchase:
    if work.get(User, command.user_id) is None:
        raise Rejected("user_not_found", f"there is no user {command.user_id}")
    owner = owner_of(work.actor)
    _require_few(work, owner)
    purchase = Purchase(
        id=work.next_id("purchases"),
        user_id=command.user_id,
        item_id=command.item_id,
        quantity=command.quantity,
        payment_method=command.payment_method,
        created_at=work.now,
        owner=owner,
    )
    return PURCHASE.begin(work, purchase)


def _require_few(work: UnitOfWork, owner: str | None) -> None:
    """Raise Rejected where so many purchases of one principal go on, whatever users they are for, that others wait.

    The limits of gateways bound his commands, and not what these lead to.
    """
    if len(work.select(Purchase, owner=owner, ended_at=None, limit=RUNNING_MAX)) == RUNNING_MAX:
        text = f"{RUNNING_MAX} purchases of yours have not ended yet: buy more when one of them has"
        raise Rejected("too_many_purchases", text)


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
