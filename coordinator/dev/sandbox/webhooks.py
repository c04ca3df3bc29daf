"""Delivering events: signed with Stripe's scheme, again and again until they are taken.

https://docs.stripe.com/webhooks#verify-manually
"""

import asyncio
import hashlib
import hmac
import json
import random
import time
from typing import Annotated

import aiohttp
from msgspec import Meta, Struct

from coordinator.dev.sandbox.account import Account, Json

TIMEOUT_S = 5.0
PAUSE_S = 0.05
PAUSE_S_MAX = 2.0


class Manner(Struct, forbid_unknown_fields=True, kw_only=True):
    """How events are delivered: how many copies of each, and whether in another order than they happened."""

    copies: Annotated[int, Meta(ge=1, le=10)] = 1
    shuffle: bool = False


class Deliveries:
    """Delivers an account's events to one address."""

    def __init__(self, account: Account, url: str, secret: str) -> None:
        self._account = account
        self._url = url
        self._secret = secret
        self._wake = asyncio.Event()
        self._chance = random.Random(1)
        self.manner = Manner()

    def nudge(self) -> None:
        """There may be something new."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = PAUSE_S
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self._wake.clear()
                waiting = self._account.undelivered()
                if not waiting:
                    await self._wake.wait()
                    continue
                if self.manner.shuffle:
                    self._chance.shuffle(waiting)
                results = [await self._deliver(session, number, event) for number, event in waiting[:50]]
                pause_s = PAUSE_S if all(results) else min(pause_s * 2, PAUSE_S_MAX)
                if not all(results):
                    await asyncio.sleep(pause_s)

    async def _deliver(self, session: aiohttp.ClientSession, number: int, event: Json) -> bool:
        body = json.dumps(event).encode()
        taken = True
        for _ in range(self.manner.copies):
            headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": self._signature(body)}
            try:
                async with session.post(self._url, data=body, headers=headers) as response:
                    taken = taken and response.ok
            except (aiohttp.ClientError, TimeoutError):
                taken = False
        if taken:
            self._account.delivered(number)
        return taken

    def _signature(self, body: bytes) -> str:
        signed_at = int(time.time())
        digest = hmac.new(self._secret.encode(), f"{signed_at}.".encode() + body, hashlib.sha256).hexdigest()
        return f"t={signed_at},v1={digest}"
