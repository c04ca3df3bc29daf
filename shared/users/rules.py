"""Who may do what with users and their purchases.

Anybody may sign up. A user is then the account of whoever made it (`User.owner`): he and staff see it and change it. To
everyone else it is as if there were no such user: only that an address is taken finds out who signs up with it, and
that a number is somebody's finds out who gives him credit. A cashier decides what is added to its credit, and not the
owner, who may give it away, and buy.
"""

from typing import Final

from coordinator import Principal, Reading, Rejected, any_of, has_scope
from shared.owners import owned_by, owner_of
from shared.users.commands import DeleteUser, TransferCredit, UpdateUser
from shared.users.model import User
from shared.users.purchases.commands import OpenPurchase

STAFF: Final = has_scope("staff")
CASHIER: Final = has_scope("cashier")


def _own_user(who: Principal, command: UpdateUser | DeleteUser, rows: Reading) -> bool:
    return _is_own(who, command.id, rows)


def _own_credit(who: Principal, command: TransferCredit, rows: Reading) -> bool:
    return _is_own(who, command.from_, rows)


def buyer(who: Principal, command: OpenPurchase, rows: Reading) -> bool:
    """Only the buyer himself buys, staff does not buy for him."""
    return _is_own(who, command.user_id, rows)


def _is_own(who: Principal, user_id: int, rows: Reading) -> bool:
    """Raises Rejected for a user who is not his, as for one who does not exist."""
    user = rows.get(User, user_id)
    if user is None or user.owner != owner_of(who):
        raise Rejected("user_not_found", f"there is no user {user_id}")
    return True


OWN_USER: Final = any_of(STAFF, _own_user)
OWN_CREDIT: Final = any_of(CASHIER, _own_credit)
SHOWN_USERS: Final = any_of(STAFF, owned_by)
"""The rule of the rows: for the gateway's reads, and for the rows in what commands return."""
