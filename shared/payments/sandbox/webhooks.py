"""Events: signed by Stripe's scheme, and delivered until they are taken.

https://docs.stripe.com/webhooks#verify-manually. Stripe delivers at least once and in no order. The sandbox does so
when a plan asks for copies and a shuffle.
"""

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import time
from random import Random
from typing import Any, Final

import aiohttp
import msgspec
import structlog
from msgspec import Struct

from shared.payments.sandbox.errors import invalid_request
from shared.payments.sandbox.store import SandboxStore, WebhookDelivery

log = structlog.get_logger("sandbox")

_TIMEOUT_S: Final = 10.0
_RETRY_DELAY_S: Final = 0.25
_RETRY_DELAY_S_MAX: Final = 60.0
_ATTEMPTS_MAX: Final = 100
_SHUFFLE_S: Final = 0.5
_COPIES_MAX: Final = 10


class DeliveryPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """The plan that `POST /sandbox/webhooks` sets, for later events. With `shuffle` each waits up to half a second."""

    copies: int = 1
    shuffle: bool = False
    seed: int = 0


class Webhooks:
    """Delivers events to one endpoint; without a URL it drops them."""

    def __init__(self, store: SandboxStore, url: str | None, secret: str) -> None:
        self._store = store
        self._url = url
        self._secret = secret
        self._plan = DeliveryPlan()
        self._random = Random()
        self._woken = asyncio.Event()

    def set_plan(self, body: bytes) -> DeliveryPlan:
        """Raises ApiError for a plan that is not valid."""
        try:
            plan = msgspec.json.decode(body, type=DeliveryPlan)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise invalid_request("invalid_plan", f"not a plan of deliveries: {error}") from None
        if not 0 <= plan.copies <= _COPIES_MAX:
            raise invalid_request("invalid_plan", f"copies are from 0 to {_COPIES_MAX}, not {plan.copies}")
        self._plan = plan
        self._random = Random(plan.seed)
        return plan

    def emit(self, event_type: str, thing: dict[str, Any]) -> None:
        """Add an event, in the transaction of the change that it reports."""
        if self._url is None:
            return
        event = {
            "id": f"evt_{secrets.token_hex(12)}",
            "object": "event",
            "created": int(time.time()),
            "data": {"object": thing},
            "livemode": False,
            "type": event_type,
        }
        for _ in range(self._plan.copies):
            wait_s = self._random.random() * _SHUFFLE_S if self._plan.shuffle else 0.0
            self._store.add_delivery(msgspec.json.encode(event), time.time() + wait_s)
        self._woken.set()

    async def run(self) -> None:
        """Deliver events for ever."""
        if self._url is None:
            return
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:
            while True:
                self._woken.clear()
                delivery = self._store.next_delivery()
                wait_s = None if delivery is None else delivery.due_s - time.time()
                if delivery is None or (wait_s is not None and wait_s > 0):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await self._woken.wait()
                else:
                    await self._deliver(session, self._url, delivery)

    async def _deliver(self, session: aiohttp.ClientSession, url: str, delivery: WebhookDelivery) -> None:
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(delivery.body, self._secret, int(time.time())),
        }
        try:
            async with session.post(url, data=delivery.body, headers=headers, allow_redirects=False) as answer:
                taken, said = answer.ok and not 300 <= answer.status < 400, f"status {answer.status}"  # noqa: PLR2004
        except (aiohttp.ClientError, TimeoutError) as error:
            taken, said = False, f"{type(error).__name__} {error}".strip()
        if taken:
            self._store.delivered(delivery)
        elif delivery.attempts + 1 >= _ATTEMPTS_MAX:
            log.warning("event_given_up", url=url, said=said, attempts=_ATTEMPTS_MAX)
            self._store.delivered(delivery)
        else:
            delay_s = min(_RETRY_DELAY_S * 2 ** min(delivery.attempts, 16), _RETRY_DELAY_S_MAX)
            self._store.put_off(delivery, time.time() + delay_s)


def signature(body: bytes, secret: str, at_s: int) -> str:
    """The header `Stripe-Signature`: an HMAC over the time of signing and the body."""
    signed = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={signed}"
