"""What can be done with payments."""

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import NotFound
from shared.messaging.writes import DEFAULT_OPTIONS, WriteOptions, Writes, Written, execute
from shared.paging import PAGE_DEFAULT, Page
from shared.payments.commands import CapturePayment, OpenPayment, ProviderEvent, RefundPayment, ReversePayment
from shared.payments.model import Payment, Refund
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

    async def list_refunds(self, payment_id: int) -> list[Refund]:
        """The refunds of a payment in order of their ids. Raises NotFound for a payment that is not there."""
        await self.get_payment(payment_id)
        return await self._payments.refunds(payment_id)

    async def open_payment(self, command: OpenPayment, options: WriteOptions = DEFAULT_OPTIONS) -> Written[Payment]:
        """Open a payment; it is pending, and with a payment method the provider is asked to hold the amount."""
        return await execute(self._writes, command, Payment, options)

    async def capture_payment(
        self, command: CapturePayment, options: WriteOptions = DEFAULT_OPTIONS
    ) -> Written[Payment]:
        """Have the provider take what is held; the payment is captured once it has."""
        return await execute(self._writes, command, Payment, options)

    async def reverse_payment(
        self, command: ReversePayment, options: WriteOptions = DEFAULT_OPTIONS
    ) -> Written[Payment]:
        """Have the provider give back whatever it holds or took."""
        return await execute(self._writes, command, Payment, options)

    async def refund_payment(self, command: RefundPayment, options: WriteOptions = DEFAULT_OPTIONS) -> Written[Refund]:
        """Have the provider give back what was taken, or a part of it."""
        return await execute(self._writes, command, Refund, options)

    async def provider_said(self, command: ProviderEvent, options: WriteOptions) -> Written[Payment]:
        """Note what the provider says by itself."""
        return await execute(self._writes, command, Payment, options)
