"""Who may do what with payments.

A payment is a purchase's: the saga opens it, takes the money and gives it back, in the buyer's name, and is the system.
From outside only the scope `payments` does any of that. Whoever a payment was opened for (`Payment.owner`) sees it.
"""

from typing import Final

from coordinator import any_of, has_scope
from shared.owners import owned_by

PAYMENTS: Final = has_scope("payments")


SHOWN_PAYMENTS: Final = any_of(PAYMENTS, owned_by)
"""The rule of the rows: for the gateway's reads. The refunds of a payment are for whoever sees the payment."""
