"""What can be done with payments."""

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import NotFound
from shared.messaging.writes import DEFAULT_OPTIONS, WriteOptions, Writes, Written, execute
from shared.paging import PAGE_DEFAULT, Page
from shared.payments.commands import OpenPayment
from shared.payments.model import Payment
from shared.payments.repository import PaymentRepository


class PaymentService:
    """Payments.

    Every write raises InvalidCommand, CommandRejected, CommandFailed, CommandPending or Unavailable; every read
    DatabaseUnavailable.
    """

    def __init__(self, database: AsyncEngine, writes: Writes) -> None:
        self._payments = PaymentRepository(database)
        self._writes = writes

    async def get_payment(self, payment_id: int) -> Payment:
        """Raises NotFound."""
        payment = await self._payments.get(payment_id)
        if payment is None:
            raise NotFound("payment_not_found", f"there is no payment {payment_id}")
        return payment

    async def list_payments(
        self, user_id: int | None = None, after: int = 0, limit: int = PAGE_DEFAULT
    ) -> Page[Payment]:
        """Payments in order of their ids, of one user or of all."""
        return await self._payments.page(user_id, after, limit)

    async def open_payment(self, command: OpenPayment, options: WriteOptions = DEFAULT_OPTIONS) -> Written[Payment]:
        """Open a payment; it is pending."""
        return await execute(self._writes, command, Payment, options)
