"""How the users lane applies its commands."""

import msgspec
from msgspec import UNSET

from coordinator import Handler, Ref, Rejected, Row, UnitOfWork, by_key, by_unique
from shared.users.commands import CreateUser, CreditUser, DeleteUser, Transfer, TransferCredit, UpdateUser
from shared.users.emails import kept_email
from shared.users.model import User


def create_user(work: UnitOfWork, command: CreateUser) -> User:
    email = kept_email(command.email)
    _require_free(work, email)
    return work.add(
        User(id=work.next_id("users"), name=command.name, email=email, credit=0, created_at=work.now),
    )


def update_user(work: UnitOfWork, command: UpdateUser) -> User:
    user = _user(work, command.id)
    name = user.name if command.name is UNSET else command.name
    email = user.email if command.email is UNSET else kept_email(command.email)
    if email != user.email:
        _require_free(work, email)
    return work.save(msgspec.structs.replace(user, name=name, email=email))


def delete_user(work: UnitOfWork, command: DeleteUser) -> None:
    work.remove(_user(work, command.id))


def credit_user(work: UnitOfWork, command: CreditUser) -> User:
    return work.save(_user(work, command.id).credited(command.amount))


def transfer_credit(work: UnitOfWork, command: TransferCredit) -> Transfer:
    if command.from_ == command.to:
        raise Rejected("same_user", f"user {command.to} cannot transfer to itself")
    payer, payee = _user(work, command.from_), _user(work, command.to)
    payer = work.save(payer.credited(-command.amount))
    payee = work.save(payee.credited(command.amount))
    return Transfer(
        from_=payer.id, to=payee.id, amount=command.amount, from_credit=payer.credit, to_credit=payee.credit
    )


def _user(work: UnitOfWork, user_id: int) -> User:
    user = work.get(User, user_id)
    if user is None:
        raise Rejected("user_not_found", f"there is no user {user_id}")
    return user


def _require_free(work: UnitOfWork, email: str) -> None:
    if work.find(User, "email", email) is not None:
        raise Rejected("email_taken", f"another user has the e-mail address {email}")


def _update_reads(command: UpdateUser) -> tuple[Ref[Row], ...]:
    if command.email is UNSET:
        return (by_key(User, command.id),)
    return (by_key(User, command.id), by_unique(User, "email", kept_email(command.email)))


def _named(command: UpdateUser | DeleteUser | CreditUser) -> Ref[Row]:
    return by_key(User, command.id)


HANDLERS = (
    Handler(CreateUser, create_user, reads=lambda command: (by_unique(User, "email", kept_email(command.email)),)),
    Handler(UpdateUser, update_user, reads=_update_reads, target=_named),
    Handler(DeleteUser, delete_user, target=_named),
    Handler(CreditUser, credit_user, target=_named),
    Handler(
        TransferCredit,
        transfer_credit,
        reads=lambda command: (by_key(User, command.from_), by_key(User, command.to)),
    ),
)
