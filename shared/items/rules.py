"""Who may do what with items: anybody reads the catalogue and asks for prices; only the scope `stock` changes it.

It also reserves and releases: a reservation is part of a purchase, which does both as the system, and whoever could
release it would sell the same thing twice.
"""

from typing import Final

from coordinator import has_scope

STOCK: Final = has_scope("stock")
