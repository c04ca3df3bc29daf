"""Reading users."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator import Page, Value
from coordinator.reading import fetch, read_page
from shared.users.model import User, users

EVERY_ROW: Final[Mapping[str, Value]] = MappingProxyType({})


class UserRepository:
    """The users of a PostgreSQL database, as the latest commits left them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, user_id: int) -> User | None:
        """Raises DatabaseUnavailable."""
        rows = await fetch(self._engine, select(users).where(users.c.id == user_id), User)
        return rows[0] if rows else None

    async def page(self, after: int, limit: int, shown: Mapping[str, Value] = EVERY_ROW) -> Page[User]:
        """Users with ids above `after` that have these values. Raises DatabaseUnavailable."""
        query = select(users).where(users.c.id > after).order_by(users.c.id).limit(limit + 1)
        query = query.where(*(users.c[column] == value for column, value in shown.items()))
        return await read_page(fetch(self._engine, query, User), limit)
