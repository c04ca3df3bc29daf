"""Reading users."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator import Page
from coordinator.reading import fetch, read_page
from shared.users.model import User, users


class UserRepository:
    """The users of a PostgreSQL database, as the latest commits left them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, user_id: int) -> User | None:
        """Raises DatabaseUnavailable."""
        rows = await fetch(self._engine, select(users).where(users.c.id == user_id), User)
        return rows[0] if rows else None

    async def page(self, after: int, limit: int) -> Page[User]:
        """Users with ids above `after`. Raises DatabaseUnavailable."""
        query = select(users).where(users.c.id > after).order_by(users.c.id).limit(limit + 1)
        return await read_page(fetch(self._engine, query, User), limit)
