"""How the users lane applies its commands."""

import msgspec
from msgspec import UNSET, UnsetType

from coordinator import Handler, Ref, Rejected, Row, UnitOfWork, anybody, normalized
from shared.owners import owner_of
from shared.users.commands import CreateUser, CreditUser, DeleteUser, Transfer, TransferCredit, UpdateUser
from shared.users.emails import kept_email
from shared.users.model import User
from shared.users.rules import CASHIER, OWN_CREDIT, OWN_USER


def create_user(work: UnitOfWork, command: CreateUser) -> User:
    email = kept_email(command.email)
    _require_free(work, command.email)
    return work.add(
        User(
            id=work.next_id("users"),
            name=normalized(command.name),
            email=email,
            credit=0,
            created_at=work.now,
            owner=owner_of(work.actor),
        )
    )


def update_user(work: UnitOfWork, command: UpdateUser) -> User:
    user = _user(work, command.id)
    name = user.name if command.name is UNSET else normalized(command.name)
    email = user.email if command.email is UNSET else kept_email(command.email)
    if email != user.email:
        _require_free(work, command.email, user)
    return work.save(msgspec.structs.replace(user, name=name, email=email))


def delete_user(work: UnitOfWork, command: DeleteUser) -> None:
    work.remove(_user(work, command.id))


def credit_user(work: UnitOfWork, command: CreditUser) -> User:
    return work.save(_user(work, command.id).credited(command.amount))


def transfer_credit(work: UnitOfWork, command: TransferCredit) -> Transfer:
    if command.from_ == command.to:
        raise Rejected("same_user", f"user {command.to} cannot transfer to itself")
    # The payer first: who has nothing to give does not find out who is here.
    payer = work.save(_user(work, command.from_).credited(-command.amount))
    payee = work.save(_user(work, command.to).credited(command.amount))
    left = payer.credit if payer.owner == owner_of(work.actor) else None
    return Transfer(from_=payer.id, to=payee.id, amount=command.amount, from_credit=left)


def _user(work: UnitOfWork, user_id: int) -> User:
    user = work.get(User, user_id)
    if user is None:
        raise Rejected("user_not_found", f"there is no user {user_id}")
    return user


def _require_free(work: UnitOfWork, given: str | UnsetType, user: User | None = None) -> None:
    """Raise Rejected where another user has the address, in the form in which it is kept or, from before, as given."""
    for email in _spellings(given):
        found = work.find(User, "email", email)
        if found is not None and (user is None or found.id != user.id):
            raise Rejected("email_taken", f"another user has the e-mail address {email}")


def _spellings(email: str | UnsetType) -> tuple[str, ...]:
    """How a row may have the address: earlier releases kept what they were given."""
    if email is UNSET:
        return ()
    kept = kept_email(email)
    return (kept,) if kept == email else (kept, email)


def _emails(command: CreateUser | UpdateUser) -> tuple[Ref[Row], ...]:
    return tuple(User.at(email=email) for email in _spellings(command.email))


def _update_reads(command: UpdateUser) -> tuple[Ref[Row], ...]:
    return (User.at(command.id), *_emails(command))


def _named(command: UpdateUser | DeleteUser | CreditUser) -> Ref[Row]:
    return User.at(command.id)


def _both(command: TransferCredit) -> tuple[Ref[Row], ...]:
    return (User.at(command.from_), User.at(command.to))


HANDLERS = (
    # `of`: a refusal names the address, and so is about the user who has it.
    Handler(CreateUser, create_user, reads=_emails, of=_emails, allow=anybody),
    Handler(UpdateUser, update_user, reads=_update_reads, target=_named, of=_update_reads, allow=OWN_USER),
    Handler(DeleteUser, delete_user, target=_named, allow=OWN_USER),
    Handler(CreditUser, credit_user, target=_named, allow=CASHIER),
    Handler(
        TransferCredit,
        transfer_credit,
        reads=_both,
        of=_both,
        allow=OWN_CREDIT,
    ),
)
