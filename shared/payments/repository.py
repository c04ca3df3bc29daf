"""Reading payments."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.database import fetch
from shared.paging import Page, page_of
from shared.payments.model import Payment, Refund, payments, refunds


class PaymentRepository:
    """The payments of a MySQL or MariaDB database, as the latest commits left them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, payment_id: int) -> Payment | None:
        """Raises DatabaseUnavailable."""
        rows = await fetch(self._engine, select(payments).where(payments.c.id == payment_id), Payment)
        return rows[0] if rows else None

    async def page(self, user_id: int | None, after: int, limit: int) -> Page[Payment]:
        """Payments with ids above `after`, of one user or of all. Raises DatabaseUnavailable."""
        query = select(payments).where(payments.c.id > after).order_by(payments.c.id).limit(limit + 1)
        if user_id is not None:
            query = query.where(payments.c.user_id == user_id)
        return page_of(await fetch(self._engine, query, Payment), limit)

    async def refunds(self, payment_id: int) -> list[Refund]:
        """The refunds of a payment. Raises DatabaseUnavailable."""
        query = select(refunds).where(refunds.c.payment_id == payment_id).order_by(refunds.c.id)
        return await fetch(self._engine, query, Refund)
