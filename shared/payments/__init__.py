"""Payments, on MySQL or MariaDB."""

from pathlib import Path

from shared.payments.handlers import HANDLERS
from shared.payments.model import Payment, metadata
from shared.service import Service

SERVICE = Service(
    name="payments",
    models=(Payment,),
    handlers=HANDLERS,
    metadata=metadata,
    migrations=Path(__file__).parent / "migrations",
)
