"""Reading payments."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator import Page, Value
from coordinator.reading import fetch, read_page
from shared.payments.model import Payment, Refund, payments, refunds

EVERY_ROW: Final[Mapping[str, Value]] = MappingProxyType({})


class PaymentRepository:
    """The payments of a MySQL or MariaDB database, as the latest commits left them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, payment_id: int) -> Payment | None:
        """Raises DatabaseUnavailable."""
        rows = await fetch(self._engine, select(payments).where(payments.c.id == payment_id), Payment)
        return rows[0] if rows else None

    async def known_as(self, provider_id: str) -> Payment | None:
        """The payment that has this id at the provider. Raises DatabaseUnavailable."""
        query = select(payments).where(payments.c.provider_id == provider_id).order_by(payments.c.id).limit(1)
        rows = await fetch(self._engine, query, Payment)
        return rows[0] if rows else None

    async def page(
        self, user_id: int | None, after: int, limit: int, shown: Mapping[str, Value] = EVERY_ROW
    ) -> Page[Payment]:
        """Payments with ids above `after` that have these values, of one user or of all. Raises DatabaseUnavailable."""
        query = select(payments).where(payments.c.id > after).order_by(payments.c.id).limit(limit + 1)
        query = query.where(*(payments.c[column] == value for column, value in shown.items()))
        if user_id is not None:
            query = query.where(payments.c.user_id == user_id)
        return await read_page(fetch(self._engine, query, Payment), limit)

    async def get_refund(self, payment_id: int, refund_id: int) -> Refund | None:
        """Raises DatabaseUnavailable."""
        query = select(refunds).where(refunds.c.id == refund_id, refunds.c.payment_id == payment_id)
        rows = await fetch(self._engine, query, Refund)
        return rows[0] if rows else None

    async def page_of_refunds(self, payment_id: int, after: int, limit: int) -> Page[Refund]:
        """A payment's refunds with ids above `after`. Raises DatabaseUnavailable."""
        query = select(refunds).where(refunds.c.payment_id == payment_id, refunds.c.id > after)
        return await read_page(fetch(self._engine, query.order_by(refunds.c.id).limit(limit + 1), Refund), limit)
