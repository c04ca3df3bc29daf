"""The commands of the users lane."""

from typing import Annotated, ClassVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator import AMOUNT_MAX, Amount, Command, Id, Name, check_normalized
from shared.users.emails import Email, check_email


class CreateUser(Command, frozen=True, kw_only=True):
    """Add a user with no credit. Rejected: `email_taken`."""

    type: ClassVar[str] = "users.create"

    name: Name
    email: Email

    def __post_init__(self) -> None:
        check_normalized("name", self.name)
        check_email("email", self.email)


class UpdateUser(Command, frozen=True, kw_only=True):
    """Change the given fields. Rejected: `user_not_found`, `email_taken`, `version_conflict`."""

    type: ClassVar[str] = "users.update"

    id: Id
    name: Name | UnsetType = UNSET
    email: Email | UnsetType = UNSET

    def __post_init__(self) -> None:
        check_normalized("name", self.name)
        check_email("email", self.email)


class DeleteUser(Command, frozen=True, kw_only=True):
    """Remove a user; its id is not given out again. Rejected: `user_not_found`, `version_conflict`."""

    type: ClassVar[str] = "users.delete"

    id: Id


class CreditUser(Command, frozen=True, kw_only=True):
    """Add to a user's credit, or take from it.

    Rejected: `user_not_found`, `insufficient_credit`, `credit_limit`, `version_conflict`.
    """

    type: ClassVar[str] = "users.credit"

    id: Id
    amount: Annotated[int, Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]


class TransferCredit(Command, frozen=True, kw_only=True):
    """Move credit between two users. Rejected: `user_not_found`, `insufficient_credit`, `same_user`, `credit_limit`."""

    type: ClassVar[str] = "users.transfer"

    from_: Id = msgspec.field(name="from")
    to: Id
    amount: Amount


class Transfer(Struct, frozen=True, kw_only=True):
    """A transfer that was made, and the credit that it left on both sides."""

    from_: int = msgspec.field(name="from")
    to: int
    amount: int
    from_credit: int
    to_credit: int
