"""The operations on payments."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator import PAGE_DEFAULT, NotFound, Page, Value
from coordinator.client import DEFAULT_OPTIONS, WriteOptions, Writes, Written, execute
from shared.payments.commands import CapturePayment, OpenPayment, RefundPayment, ReversePayment
from shared.payments.model import Payment, Refund
from shared.payments.repository import EVERY_ROW, PaymentRepository
from shared.payments.results import TakeProviderEvent


class PaymentService:
    """Payments.

    A write returns when it is committed here. The provider is then being asked (`pending_action`), and the payment
    shows the result later.
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

    async def get_payment_known_as(self, provider_id: str) -> Payment:
        """The payment that has this id at the provider. Raises NotFound."""
        payment = await self._payments.known_as(provider_id)
        if payment is None:
            raise NotFound("payment_not_found", f"no payment is {provider_id} at the provider")
        return payment

    async def list_payments(
        self,
        user_id: int | None = None,
        after: int = 0,
        limit: int = PAGE_DEFAULT,
        shown: Mapping[str, Value] = EVERY_ROW,
    ) -> Page[Payment]:
        """Payments in order of their ids, of one user or of all: those that have these values, by column."""
        return await self._payments.page(user_id, after, limit, shown)

    async def get_refund(self, payment_id: int, refund_id: int) -> Refund:
        """Raises NotFound."""
        refund = await self._payments.get_refund(payment_id, refund_id)
        if refund is None:
            raise NotFound("refund_not_found", f"payment {payment_id} has no refund {refund_id}")
        return refund

    async def list_refunds(self, payment_id: int, after: int = 0, limit: int = PAGE_DEFAULT) -> Page[Refund]:
        """A payment's refunds in order of their ids. Raises NotFound."""
        await self.get_payment(payment_id)
        return await self._payments.page_of_refunds(payment_id, after, limit)

    async def open_payment(self, command: OpenPayment, options: WriteOptions = DEFAULT_OPTIONS) -> Written[Payment]:
        """Open a payment; it is pending. With a payment method the provider is asked to hold the amount."""
        return await execute(self._writes, command, Payment, options)

    async def capture_payment(
        self, command: CapturePayment, options: WriteOptions = DEFAULT_OPTIONS
    ) -> Written[Payment]:
        """Have the held amount taken."""
        return await execute(self._writes, command, Payment, options)

    async def reverse_payment(
        self, command: ReversePayment, options: WriteOptions = DEFAULT_OPTIONS
    ) -> Written[Payment]:
        """Have the money given back, whatever was done."""
        return await execute(self._writes, command, Payment, options)

    async def refund_payment(self, command: RefundPayment, options: WriteOptions = DEFAULT_OPTIONS) -> Written[Refund]:
        """Have a part of the money that was taken given back, or all that is left of it."""
        return await execute(self._writes, command, Refund, options)

    async def take_event(self, command: TakeProviderEvent, options: WriteOptions = DEFAULT_OPTIONS) -> Written[Payment]:
        """Bring the payment to the state in a provider event. The caller has checked that it is the provider's."""
        return await execute(self._writes, command, Payment, options, origin="system")
