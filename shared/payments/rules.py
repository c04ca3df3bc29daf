"""Who may do what with payments.

A payment is a purchase's: the saga opens it, takes the money and gives it back, in the buyer's name, and is the system.
From outside only the scope `payments` does any of that. Whoever a payment was opened for (`Payment.owner`) sees it.
"""

from collections.abc import Mapping
from typing import Final

from coordinator import Principal, Value, any_of, has_scope
from shared.owners import owner_of

PAYMENTS: Final = has_scope("payments")


def _own_rows(who: Principal) -> Mapping[str, Value]:
    return {"owner": owner_of(who)}


SHOWN_PAYMENTS: Final = any_of(PAYMENTS, _own_rows)
"""The rule of the rows: for the gateway's reads. The refunds of a payment are for whoever sees the payment."""
