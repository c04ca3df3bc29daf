"""The operations on purchases."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator import PAGE_DEFAULT, NotFound, Page
from coordinator.client import DEFAULT_OPTIONS, WriteOptions, Writes, Written, execute
from shared.users.purchases.commands import OpenPurchase
from shared.users.purchases.model import Purchase, PurchaseTotal
from shared.users.purchases.repository import PurchaseRepository
from shared.users.purchases.watch import PurchaseWatch


class PurchaseStep(Struct, frozen=True, kw_only=True):
    """One step of a purchase's timeline. `command_id` is in the log of the lane that `command`, a type, names.

    `direction` is `do`, `undo` or `resume`; `status` is `waiting`, an outcome's, or `given_up`.
    """

    name: str
    direction: str
    command: str
    command_id: str
    status: str
    error_code: str | None
    error_message: str | None
    began_at: datetime
    ended_at: datetime | None


class PurchaseWithSteps(Struct, frozen=True, kw_only=True):
    """A purchase and its timeline."""

    purchase: Purchase
    steps: list[PurchaseStep]


class PurchaseService:
    """Purchases across users, payments and items.

    Every write raises InvalidCommand, CommandRejected, CommandFailed, CommandPending or Unavailable; every read
    DatabaseUnavailable.
    """

    def __init__(self, database: AsyncEngine, writes: Writes) -> None:
        self._purchases = PurchaseRepository(database)
        self._writes = writes
        self._watch = PurchaseWatch(self._with_ids)

    async def open_purchase(self, command: OpenPurchase, options: WriteOptions = DEFAULT_OPTIONS) -> Written[Purchase]:
        """Begin a purchase; it ends by itself, even if its caller is gone."""
        return await execute(self._writes, command, Purchase, options)

    async def get_purchase(self, purchase_id: int) -> PurchaseWithSteps:
        """A purchase with its timeline. Raises NotFound."""
        purchase = await self._found(purchase_id)
        steps = [
            PurchaseStep(
                name=step.name,
                direction=step.direction,
                command=step.command_type,
                command_id=step.command_id,
                status=step.status,
                error_code=step.error_code,
                error_message=step.error_message,
                began_at=step.began_at,
                ended_at=step.ended_at,
            )
            for step in await self._purchases.steps(purchase_id)
        ]
        return PurchaseWithSteps(purchase=purchase, steps=steps)

    async def wait_ended(self, begun: Purchase, timeout_s: float) -> Purchase:
        """The purchase once it has ended, or as it was last seen after this many seconds.

        The purchase has begun, even if a read fails or does not find it yet: it is read again.
        """
        return await self._watch.wait(begun, timeout_s)

    async def list_purchases(self, user_id: int, after: int = 0, limit: int = PAGE_DEFAULT) -> Page[Purchase]:
        """A user's purchases in order of their ids."""
        return await self._purchases.page(user_id, after, limit)

    async def list_totals(self, user_id: int) -> list[PurchaseTotal]:
        """What a user has bought in all, by currency."""
        return await self._purchases.totals(user_id)

    async def _with_ids(self, purchase_ids: Sequence[int]) -> Sequence[Purchase]:
        return await self._purchases.with_ids(purchase_ids)

    async def _found(self, purchase_id: int) -> Purchase:
        purchase = await self._purchases.get(purchase_id)
        if purchase is None:
            raise NotFound("purchase_not_found", f"there is no purchase {purchase_id}")
        return purchase
