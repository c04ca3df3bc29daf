"""The sandbox's events arrive, signed as Stripe's are, whatever happens to them on the way."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from coordinator.dev.servers.ports import free_port
from shared.payments.provider import Authorized, Declined, Refunded, Refused
from shared.payments.stripe_provider import StripeProvider
from shared.payments.stripe_webhooks import ProviderEvent, verify_webhook
from tests.support.sandbox import RunningSandbox

ARRIVES_WITHIN_S = 15.0


class Endpoint:
    """A gateway's endpoint for events: checks them, and takes them unless told to fail."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/webhooks/stripe"
        self.failures = 0
        self.sandbox: RunningSandbox
        self._events: asyncio.Queue[ProviderEvent] = asyncio.Queue()

    async def next(self) -> ProviderEvent:
        async with asyncio.timeout(ARRIVES_WITHIN_S):
            return await self._events.get()

    async def receive(self, request: web.Request) -> web.Response:
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        event = verify_webhook(await request.read(), request.headers["Stripe-Signature"], self.sandbox.settings())
        assert event is not None
        await self._events.put(event)
        return web.Response()

    async def listen(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/webhooks/stripe", self.receive)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        return runner


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    endpoint.sandbox = await asyncio.to_thread(RunningSandbox, tmp_path, endpoint.url)
    yield endpoint
    endpoint.sandbox.kill()


@pytest.fixture
async def listening(endpoint: Endpoint) -> AsyncIterator[Endpoint]:
    runner = await endpoint.listen()
    yield endpoint
    await runner.cleanup()


@pytest.fixture
async def provider(endpoint: Endpoint) -> AsyncIterator[StripeProvider]:
    provider = endpoint.sandbox.provider()
    yield provider
    await provider.close()


async def authorize(
    provider: StripeProvider, payment_id: int = 1, payment_method: str = "pm_card_visa"
) -> Authorized | Declined | Refused:
    return await provider.authorize(
        payment_id=payment_id,
        amount=1000,
        currency="EUR",
        payment_method=payment_method,
        key=str(uuid.uuid4()),
        asked_at=datetime.now(UTC),
        is_repeated=False,
    )


async def hold(provider: StripeProvider, payment_id: int = 1) -> Authorized:
    """Of an authorization that is granted."""
    held = await authorize(provider, payment_id)
    assert isinstance(held, Authorized)
    return held


async def test_every_step_of_a_payment_is_told(listening: Endpoint, provider: StripeProvider) -> None:
    held = await hold(provider, payment_id=7)
    authorized = await listening.next()
    assert (authorized.kind, authorized.payment_id, authorized.provider_id) == ("authorized", 7, held.provider_id)
    assert authorized.is_signed
    await provider.capture(payment_id=7, provider_id=held.provider_id, amount=900, currency="EUR", key="capture")
    captured = await listening.next()
    assert (captured.kind, captured.amount_captured) == ("captured", 900)
    given_back = await provider.refund(
        payment_id=7,
        refund_id=1,
        provider_id=held.provider_id,
        amount=300,
        currency="EUR",
        key="refund",
        asked_at=datetime.now(UTC),
        is_repeated=False,
    )
    assert isinstance(given_back, Refunded)
    assert given_back.refund_id is not None
    refunded = await listening.next()
    assert (refunded.kind, refunded.provider_id, refunded.amount_refunded) == ("refunded", held.provider_id, 300)
    listening.sandbox.fail_refund(given_back.refund_id)
    failed = await listening.next()
    assert (failed.kind, failed.payment_id, failed.provider_id) == ("refund_failed", 7, held.provider_id)
    assert (failed.amount, failed.status) == (300, "failed")
    assert (failed.refund_id, failed.refund_number) == (given_back.refund_id, 1)
    assert (captured.is_signed, refunded.is_signed, failed.is_signed) == (True, True, True)


async def test_declines_voids_and_lapsed_holds_are_told(listening: Endpoint, provider: StripeProvider) -> None:
    await authorize(provider, 1, "pm_card_chargeDeclinedInsufficientFunds")
    declined = await listening.next()
    assert (declined.kind, declined.error_code) == ("declined", "insufficient_funds")
    for payment_id in (2, 3):
        held = await hold(provider, payment_id)
        assert (await listening.next()).kind == "authorized"
        if payment_id == 2:
            await provider.void(payment_id=payment_id, provider_id=held.provider_id, key="void")
        else:
            listening.sandbox.expire(held.provider_id)
        voided = await listening.next()
        assert (voided.kind, voided.payment_id, voided.status) == ("voided", payment_id, "canceled")


async def test_an_event_that_is_not_taken_comes_again(listening: Endpoint, provider: StripeProvider) -> None:
    listening.failures = 2
    await authorize(provider)
    assert (await listening.next()).kind == "authorized"
    assert listening.failures == 0


async def test_an_event_waits_for_an_endpoint_and_outlives_the_sandbox(
    endpoint: Endpoint, provider: StripeProvider
) -> None:
    held = await hold(provider)
    endpoint.sandbox.kill()
    runner = await endpoint.listen()
    try:
        await asyncio.to_thread(endpoint.sandbox.start)
        assert (await endpoint.next()).provider_id == held.provider_id
    finally:
        await runner.cleanup()


async def test_events_come_twice_and_out_of_order_when_told_to(listening: Endpoint, provider: StripeProvider) -> None:
    listening.sandbox.set_webhooks(copies=2, shuffle=True, seed=1)
    payments = range(1, 11)
    for payment_id in payments:
        await authorize(provider, payment_id)
    events = [await listening.next() for _ in range(20)]
    order = [event.payment_id or 0 for event in events]
    assert sorted(order) == sorted([*payments, *payments])
    assert order != sorted(order)
    assert len({event.id for event in events}) == 10
