"""Users and their credit, on PostgreSQL."""

from pathlib import Path

from shared.service import Service
from shared.users.handlers import HANDLERS
from shared.users.model import User, metadata

SERVICE = Service(
    name="users",
    models=(User,),
    handlers=HANDLERS,
    metadata=metadata,
    migrations=Path(__file__).parent / "migrations",
)
