"""Users, their credit and their purchases, on PostgreSQL."""

from pathlib import Path

from coordinator import SagaStep, Service
from shared.users.handlers import HANDLERS
from shared.users.model import User, metadata
from shared.users.purchases.handlers import HANDLERS as PURCHASE_HANDLERS
from shared.users.purchases.model import Purchase, PurchaseTotal
from shared.users.rules import SHOWN_USERS

SERVICE = Service(
    name="users",
    models=(User, Purchase, PurchaseTotal, SagaStep),
    handlers=(*HANDLERS, *PURCHASE_HANDLERS),
    metadata=metadata,
    row_rules={User: SHOWN_USERS},
    migrations=Path(__file__).parent / "migrations",
)
