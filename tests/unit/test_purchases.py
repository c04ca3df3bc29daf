"""The purchase across users, payments and items, in a monolith: whole or taken back, whatever the provider does."""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from coordinator.client.writes import WriteOptions, execute
from coordinator.operate.answers import outcome_of
from coordinator.operate.continuing import message_of
from coordinator.runtime.settings import EffectSettings
from coordinator.service.commands import Command
from coordinator.service.errors import CommandRejected
from coordinator.service.principal import Principal
from coordinator.service.rows import Row
from coordinator.service.saga import ENDED
from coordinator.service.saga_timeline import SagaStep
from coordinator.stores.lane_tables import LogEntry, OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.worker.inprocess import InProcessWrites
from shared.items import SERVICE as ITEMS
from shared.items.commands import CreateItem, ReleaseItem, UpdateItem
from shared.items.model import Item, Reservation
from shared.payments import SERVICE as PAYMENTS
from shared.payments.commands import ResolvePayment
from shared.payments.effects import PROVIDER_UNAVAILABLE, PaymentEffects
from shared.payments.model import Payment
from shared.payments.results import AuthorizeResult
from shared.users import SERVICE as USERS
from shared.users.commands import CreateUser, DeleteUser
from shared.users.model import User
from shared.users.purchases.commands import ContinuePurchase, OpenPurchase, ResumePurchase
from shared.users.purchases.model import RUNNING_MAX, Purchase, PurchaseTotal
from tests.support.callers import CALLER
from tests.support.provider import FakeProvider, Held
from tests.support.store_contract import NOW
from tests.support.system import wait_until

OPTIONS = WriteOptions(actor=CALLER)


def owner_of_user(user_id: int) -> Principal:
    """Whoever made this user: each is another one."""
    return CALLER if user_id == 1 else Principal(subject=f"owner-{user_id}")


class Shop:
    """All three services in one process."""

    def __init__(self, writes: InProcessWrites, databases: dict[str, MemoryDatabase], provider: FakeProvider) -> None:
        self.writes = writes
        self.provider = provider
        self._databases = databases

    def rows(self, model: type[Row], lane: str) -> list[Any]:
        transaction = MemoryStore(self._databases[lane]).begin()
        found = transaction.scan(model, 10_000)
        transaction.rollback()
        return found

    async def stocked(self, *, users: int = 1, stock: int = 10, price: int = 250) -> None:
        for number in range(users):
            command = CreateUser(name=f"u{number}", email=f"u{number}@example.org")
            await execute(self.writes, command, User, WriteOptions(actor=owner_of_user(1 + number)))
        item = CreateItem(name="seat", price=price, currency="EUR", stock=stock)
        await execute(self.writes, item, Item, OPTIONS)

    async def buy(self, *, user_id: int = 1, quantity: int = 1, method: str = "pm_card_visa") -> Purchase:
        command = OpenPurchase(user_id=user_id, item_id=1, quantity=quantity, payment_method=method)
        options = WriteOptions(actor=owner_of_user(user_id))
        return (await execute(self.writes, command, Purchase, options)).value

    async def rest(self) -> None:
        """Until every purchase has ended and nothing is on its way."""

        def is_at_rest() -> bool:
            purchases = self.rows(Purchase, "users")
            waiting = any(self.rows(OutboxEntry, lane) for lane in self._databases)
            return not waiting and all(purchase.status in ENDED for purchase in purchases)

        await asyncio.to_thread(wait_until, is_at_rest, "every purchase has ended")

    def check(self, stock: int) -> None:
        """Money and stock are where the purchases say."""
        purchases = self.rows(Purchase, "users")
        payments = self.rows(Payment, "payments")
        completed = [purchase for purchase in purchases if purchase.status == "completed"]
        amount = sum(purchase.amount or 0 for purchase in completed)
        assert {purchase.status for purchase in purchases} <= {"completed", "compensated"}
        assert self.provider.kept == amount == sum(payment.captured - payment.refunded for payment in payments)
        assert not self.provider.is_holding
        assert [payment.pending_action for payment in payments if payment.pending_action is not None] == []
        (item,) = self.rows(Item, "items")
        sold = sum(purchase.quantity for purchase in completed)
        assert sold + item.stock == stock
        assert sum(reservation.quantity for reservation in self.rows(Reservation, "items")) == sold
        assert sum(total.purchases for total in self.rows(PurchaseTotal, "users")) == len(completed)
        assert sum(total.amount for total in self.rows(PurchaseTotal, "users")) == amount


@asynccontextmanager
async def open_shop(
    provider: FakeProvider, databases: dict[str, MemoryDatabase] | None = None, **changed: float
) -> AsyncIterator[Shop]:
    services = [
        USERS,
        ITEMS.replace(projection=None),
        PAYMENTS.replace(effects=lambda: PaymentEffects(provider)),
    ]
    if databases is None:
        databases = {service.name: MemoryDatabase() for service in services}
    stores = {name: MemoryStore(database) for name, database in databases.items()}
    given = {"retry_delay_s": 0.001, "retry_delay_s_max": 0.002, "breaker_failures": 10_000} | changed
    settings = EffectSettings(**given)  # type: ignore[arg-type]
    async with InProcessWrites(stores, services, clock=lambda: NOW, effect_settings=settings) as writes:
        yield Shop(writes, databases, provider)


async def test_a_purchase_takes_the_money_and_the_stock() -> None:
    async with open_shop(FakeProvider()) as shop:
        await shop.stocked(stock=10, price=250)
        opened = await shop.buy(quantity=3)
        assert (opened.status, opened.id) == ("running", 1)
        await shop.rest()
        (purchase,) = shop.rows(Purchase, "users")
        assert (purchase.status, purchase.amount, purchase.currency) == ("completed", 750, "EUR")
        steps = sorted(shop.rows(SagaStep, "users"), key=lambda step: step.number)
        assert [(step.name, step.command_type, step.status) for step in steps] == [
            ("quote", "items.quote", "applied"),
            ("authorize", "payments.open", "applied"),
            ("reserve", "items.reserve", "applied"),
            ("capture", "payments.capture", "applied"),
        ]
        shop.check(stock=10)
        assert shop.provider.kept == 750


async def test_a_purchase_that_is_repeated_after_a_restore_and_continued_pays_once() -> None:
    """As an operator does it (`coordinator continue`): the other lanes tell their outcomes once, and have told them."""
    provider = FakeProvider()
    databases = {name: MemoryDatabase() for name in ("users", "items", "payments")}
    command = OpenPurchase(user_id=1, item_id=1, quantity=3, payment_method="pm_card_visa")
    same = WriteOptions(actor=CALLER, command_id="0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11")
    async with open_shop(provider, databases) as shop:
        await shop.stocked(stock=10, price=250)
        backup = copy.deepcopy(databases["users"])
        await execute(shop.writes, command, Purchase, same)
        await shop.rest()
        shop.check(stock=10)
    databases["users"] = backup
    # The answer of these came later, from the provider: it is not in the log.
    results = {"authorize": '{"id": 1}', "capture": '{"id": 1}'}
    async with open_shop(provider, databases) as shop:
        await execute(shop.writes, command, Purchase, same)
        for name in ("quote", "authorize", "reserve", "capture"):

            def waits() -> bool:
                steps = [step for step in shop.rows(SagaStep, "users") if step.status == "waiting"]
                is_sent = not any(shop.rows(OutboxEntry, lane) for lane in databases)
                return is_sent and [step.name for step in steps] == [name]  # noqa: B023

            await asyncio.to_thread(wait_until, waits, f"it waits at {name}")
            (step,) = (step for step in shop.rows(SagaStep, "users") if step.status == "waiting")
            lane = step.command_type.partition(".")[0]
            (entry,) = (entry for entry in shop.rows(LogEntry, lane) if entry.command_id == step.command_id)
            outcome = outcome_of(entry, results.get(name), None)
            continued = await shop.writes.issue("users", message_of(entry, ContinuePurchase.type, outcome), 10)
            assert continued.status == "applied"
        await shop.rest()
        shop.check(stock=10)
        assert provider.kept == 750
        assert len(shop.rows(Payment, "payments")) == 1


@pytest.mark.parametrize(
    ("options", "reason", "undone"),
    [
        ({"method": "pm_card_chargeDeclined"}, "card_declined", []),
        ({"quantity": 11}, "out_of_stock", ["authorize"]),
    ],
)
async def test_a_purchase_that_cannot_be_is_taken_back_and_says_why(
    options: dict[str, Any], reason: str, undone: list[str]
) -> None:
    async with open_shop(FakeProvider()) as shop:
        await shop.stocked(stock=10)
        await shop.buy(**options)
        await shop.rest()
        (purchase,) = shop.rows(Purchase, "users")
        assert (purchase.status, purchase.reason_code) == ("compensated", reason)
        steps = sorted(shop.rows(SagaStep, "users"), key=lambda step: step.number)
        assert [step.name for step in steps if step.direction == "undo"] == undone
        shop.check(stock=10)


async def test_nobody_buys_who_is_not_there_and_nothing_that_is_not_there() -> None:
    async with open_shop(FakeProvider()) as shop:
        with pytest.raises(CommandRejected, match="there is no user 1"):
            await shop.buy()
        await execute(shop.writes, CreateUser(name="a", email="a@example.org"), User, OPTIONS)
        await shop.buy()
        await shop.rest()
        assert shop.rows(Purchase, "users")[0].reason_code == "item_not_found"


async def test_what_costs_nothing_is_bought_without_a_payment() -> None:
    async with open_shop(FakeProvider()) as shop:
        await shop.stocked(price=0)
        await shop.buy(method="pm_card_chargeDeclined")
        await shop.rest()
        shop.check(stock=10)
        assert shop.rows(Purchase, "users")[0].status == "completed"
        assert shop.rows(Payment, "payments") == []


async def test_a_hundred_purchases_with_a_faulty_provider_end_whole_or_taken_back() -> None:
    """More than there is, cards that decline, users that go, prices that change: at once."""
    async with open_shop(FakeProvider(fault_rate=0.4, seed=3)) as shop:
        await shop.stocked(users=10, stock=20)
        buying = [
            shop.buy(
                user_id=1 + number % 10,
                quantity=1 + number % 3,
                method="pm_card_chargeDeclined" if number % 7 == 0 else "pm_card_visa",
            )
            for number in range(100)
        ]
        await asyncio.gather(*buying[:60])
        await execute(shop.writes, DeleteUser(id=3), type(None), OPTIONS)
        await execute(shop.writes, UpdateItem(id=1, price=300), Item, OPTIONS)
        results = await asyncio.gather(*buying[60:], return_exceptions=True)
        assert {type(each) for each in results} == {Purchase, CommandRejected}
        await shop.rest()
        shop.check(stock=20)
        reasons = {purchase.reason_code for purchase in shop.rows(Purchase, "users")}
        assert {None, "card_declined", "out_of_stock"} <= reasons


async def test_whoever_has_many_purchases_that_go_on_buys_no_more_until_one_has_ended() -> None:
    """Whatever users he buys for; others buy on."""
    provider = FakeProvider(fault_rate=2.0)
    async with open_shop(provider) as shop:
        await shop.stocked(users=2, stock=100)
        await execute(shop.writes, CreateUser(name="v", email="v@example.org"), User, OPTIONS)
        opened = await asyncio.gather(
            *(shop.buy() for _ in range(RUNNING_MAX + 2)), shop.buy(user_id=2), return_exceptions=True
        )
        refused = [each for each in opened if isinstance(each, CommandRejected)]
        assert [each.code for each in refused] == ["too_many_purchases"] * 2
        another = OpenPurchase(user_id=3, item_id=1, quantity=1, payment_method="pm_card_visa")
        with pytest.raises(CommandRejected, match="10 purchases of yours have not ended yet"):
            await execute(shop.writes, another, Purchase, OPTIONS)
        provider.fault_rate = 0.0
        await shop.rest()
        assert (await execute(shop.writes, another, Purchase, OPTIONS)).value.status == "running"
        await shop.rest()
        shop.check(stock=100)


async def test_a_provider_that_fails_for_a_while_leaves_nothing_to_a_person() -> None:
    """Every call is answered with a fault, and the idempotency keys are forgotten before it is over."""
    provider = FakeProvider(seed=5)
    async with open_shop(provider) as shop:
        await shop.stocked(users=5, stock=100)
        before = [shop.buy(user_id=1 + number % 5) for number in range(10)]
        provider.fault_rate = 1.0
        await asyncio.gather(*before)
        await asyncio.to_thread(wait_until, lambda: len(shop.rows(Payment, "payments")) > 0, "payments are under way")
        provider.fault_rate = 2.0
        await asyncio.gather(*(shop.buy(user_id=1 + number % 5) for number in range(10)))
        await asyncio.to_thread(wait_until, lambda: provider.failures > 100, "many calls have failed")
        assert not any(purchase.status in ENDED for purchase in shop.rows(Purchase, "users")[10:])
        provider.forget()
        provider.fault_rate = 0.0
        await shop.rest()
        shop.check(stock=100)
        assert {purchase.status for purchase in shop.rows(Purchase, "users")} == {"completed"}
        assert len(provider.payments) == 20


async def taken_in_part(shop: Shop, amount: int) -> None:
    """The capture gets no answer at first, and meanwhile somebody takes less in the provider's dashboard."""
    await shop.stocked(stock=10)
    shop.provider.deaf_to = {"capture"}
    await shop.buy()
    await asyncio.to_thread(wait_until, lambda: shop.provider.failures > 0, "the capture is asked for")
    (held,) = shop.provider.payments.values()
    held.status, held.captured = "succeeded", amount


async def test_a_purchase_of_which_only_a_part_is_taken_is_taken_back_and_says_how_much_was() -> None:
    async with open_shop(FakeProvider()) as shop:
        await taken_in_part(shop, 30)
        shop.provider.deaf_to = set()
        await shop.rest()
        (purchase,) = shop.rows(Purchase, "users")
        assert (purchase.status, purchase.reason_code) == ("compensated", "captured_in_part")
        assert "30 EUR" in (purchase.reason or "")
        assert "250" in (purchase.reason or "")
        (payment,) = shop.rows(Payment, "payments")
        assert (payment.status, payment.captured, payment.refunded) == ("refunded", 30, 30)
        shop.check(stock=10)


async def test_a_purchase_whose_stock_others_have_given_back_is_taken_back_all_the_same() -> None:
    async with open_shop(FakeProvider()) as shop:
        await taken_in_part(shop, 30)
        await execute(shop.writes, ReleaseItem(id=1, reservation_id=1), type(None), OPTIONS)
        shop.provider.deaf_to = set()
        await shop.rest()
        (purchase,) = shop.rows(Purchase, "users")
        assert (purchase.status, purchase.reason_code) == ("compensated", "captured_in_part")
        shop.check(stock=10)


async def test_a_part_that_cannot_be_given_back_is_for_a_person() -> None:
    async with open_shop(FakeProvider(), give_up_after_s=0.5) as shop:
        await taken_in_part(shop, 30)
        shop.provider.deaf_to = {"refund"}
        await shop.rest()
        (purchase,) = shop.rows(Purchase, "users")
        assert (purchase.status, purchase.reason_code) == ("needs_review", "captured_in_part")
        assert "could not be undone" in (purchase.reason or "")
        assert shop.rows(PurchaseTotal, "users") == []


async def order(shop: Shop, command: Command) -> None:
    """As an operator does."""
    await execute(shop.writes, command, Any, OPTIONS, origin="system")


@pytest.mark.parametrize("end", ["captured", "authorized", "voided"])
async def test_a_purchase_whose_capture_nobody_knows_of_goes_on_when_its_payment_is_resolved(end: str) -> None:
    provider = FakeProvider()
    # A provider that gives no answer at all once the amount is held.
    async with open_shop(provider, give_up_after_s=0.05) as shop:
        await shop.stocked(stock=10)
        provider.deaf_to = {"capture"}
        await shop.buy()
        await shop.rest()
        (purchase,) = shop.rows(Purchase, "users")
        assert (purchase.status, purchase.reason_code) == ("needs_review", "payment_needs_review")
        provider.deaf_to = set()
        (held,) = provider.payments.values()
        held.status = {"captured": "succeeded", "voided": "canceled"}.get(end, held.status)
        held.captured = held.amount if end == "captured" else 0
        seen = {"captured": held.captured} if end == "captured" else {}
        await order(shop, ResolvePayment(id=1, status=end, reason="seen: AL", **seen))  # type: ignore[arg-type]
        step = max(shop.rows(SagaStep, "users"), key=lambda step: step.number)
        verdict: Any = {"captured": "done", "authorized": "again", "voided": "not_done"}[end]
        await order(shop, ResumePurchase(id=1, step=step.command_id, verdict=verdict, reason="resolved: AL"))
        await shop.rest()
        (purchase,) = shop.rows(Purchase, "users")
        assert purchase.status == ("compensated" if end == "voided" else "completed")
        shop.check(stock=10)


async def test_a_purchase_whose_hold_nobody_knows_of_is_given_the_payment_that_it_is() -> None:
    provider = FakeProvider()
    async with open_shop(provider, give_up_after_s=0.05) as shop:
        await shop.stocked(stock=10)
        provider.deaf_to = {"authorize"}
        await shop.buy()
        await shop.rest()
        provider.deaf_to = set()
        provider.payments["pi_1"] = Held(1, 250)
        await order(shop, ResolvePayment(id=1, status="authorized", provider_id="pi_1", reason="it is held: AL"))
        step = max(shop.rows(SagaStep, "users"), key=lambda step: step.number)
        resumption = {"id": 1, "step": step.command_id, "verdict": "done", "reason": "resolved: AL"}
        with pytest.raises(CommandRejected, match="`result` is not what `authorize` returns"):
            await order(shop, ResumePurchase(**resumption))
        await order(shop, ResumePurchase(**resumption, result=msgspec.Raw(b'{"id": 1}')))
        await shop.rest()
        assert shop.rows(Purchase, "users")[0].status == "completed"
        shop.check(stock=10)


async def test_a_hold_that_was_denied_and_shows_after_its_purchase_was_taken_back_is_let_go() -> None:
    """Nobody hears of it again: the purchase has ended, and the hold that was made by another copy of the call goes."""
    provider = FakeProvider()
    async with open_shop(provider, retry_delay_s=0.02, retry_delay_s_max=0.02) as shop:
        await shop.stocked(stock=10)
        provider.deaf_to = {"authorize"}
        await shop.buy()
        await asyncio.to_thread(wait_until, lambda: provider.failures > 0, "the hold is asked for")
        await order(shop, AuthorizeResult(id=1, verdict="authorize_failed", code=PROVIDER_UNAVAILABLE))

        def has_ended() -> bool:
            return {purchase.status for purchase in shop.rows(Purchase, "users")} <= ENDED

        await asyncio.to_thread(wait_until, has_ended, "the purchase is taken back")
        (before,) = shop.rows(Purchase, "users")
        assert (before.status, before.reason_code) == ("compensated", "payment_failed")
        await order(shop, AuthorizeResult(id=1, verdict="answer_lost", code="answer_lost"))
        assert shop.rows(Payment, "payments")[0].status == "needs_review"
        provider.deaf_to = set()
        await asyncio.to_thread(wait_until, lambda: bool(provider.payments), "the hold is made")
        await shop.rest()
        assert shop.rows(Purchase, "users") == [before]
        assert shop.rows(Payment, "payments")[0].status == "voided"
        shop.check(stock=10)
