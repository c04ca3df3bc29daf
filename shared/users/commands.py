"""The commands of the users lane."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator import AMOUNT_MAX, Amount, Command, Id, Name, Personal, check_normalized
from shared.users.emails import Email, check_email


class CreateUser(Command, type="users.create"):
    """Add a user with no credit. Rejected: `email_taken`."""

    name: Personal[Name]
    email: Personal[Email]

    def __post_init__(self) -> None:
        check_normalized("name", self.name)
        check_email("email", self.email)


class UpdateUser(Command, type="users.update"):
    """Change the given fields. Rejected: `user_not_found`, `email_taken`, `version_conflict`."""

    id: Id
    name: Personal[Name] | UnsetType = UNSET
    email: Personal[Email] | UnsetType = UNSET

    def __post_init__(self) -> None:
        check_normalized("name", self.name)
        check_email("email", self.email)


class DeleteUser(Command, type="users.delete"):
    """Remove a user; its id is not given out again. Rejected: `user_not_found`, `version_conflict`."""

    id: Id


class CreditUser(Command, type="users.credit"):
    """Add to a user's credit, or take from it.

    Rejected: `user_not_found`, `insufficient_credit`, `credit_limit`, `version_conflict`.
    """

    id: Id
    amount: Annotated[int, Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]


class TransferCredit(Command, type="users.transfer"):
    """Move credit between two users. Rejected: `user_not_found`, `insufficient_credit`, `same_user`, `credit_limit`."""

    from_: Id = msgspec.field(name="from")
    to: Id
    amount: Amount


class Transfer(Struct, frozen=True, kw_only=True):
    """A transfer that was made, and the credit that it left to whoever gave, if he asked for it himself.

    That of the other is not his to know.
    """

    from_: int = msgspec.field(name="from")
    to: int
    amount: int
    from_credit: int | None
