"""Reading purchases."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator import Page, SagaStep
from coordinator.reading import fetch, read_page
from shared.users.purchases.model import Purchase, PurchaseTotal, purchase_totals, purchases, steps


class PurchaseRepository:
    """The purchases of a PostgreSQL database, as the latest commits left them. All raise DatabaseUnavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, purchase_id: int) -> Purchase | None:
        """One purchase."""
        rows = await fetch(self._engine, select(purchases).where(purchases.c.id == purchase_id), Purchase)
        return rows[0] if rows else None

    async def with_ids(self, purchase_ids: Sequence[int]) -> list[Purchase]:
        """Those of some purchases that are there, in no order."""
        return await fetch(self._engine, select(purchases).where(purchases.c.id.in_(purchase_ids)), Purchase)

    async def steps(self, purchase_id: int) -> list[SagaStep]:
        """Its steps, in their order."""
        of_it = (steps.c.saga == "purchase") & (steps.c.saga_id == purchase_id)
        return await fetch(self._engine, select(steps).where(of_it).order_by(steps.c.number), SagaStep)

    async def page(self, user_id: int, after: int, limit: int) -> Page[Purchase]:
        """A user's purchases with ids above `after`."""
        of_user = (purchases.c.user_id == user_id) & (purchases.c.id > after)
        query = select(purchases).where(of_user).order_by(purchases.c.id).limit(limit + 1)
        return await read_page(fetch(self._engine, query, Purchase), limit)

    async def totals(self, user_id: int) -> list[PurchaseTotal]:
        """What a user has bought, by currency."""
        query = select(purchase_totals).where(purchase_totals.c.user_id == user_id)
        return await fetch(self._engine, query.order_by(purchase_totals.c.currency), PurchaseTotal)
