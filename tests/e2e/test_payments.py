"""Payments on the real system with the sandbox as the provider: what it charged is what the payments say.

Everything goes wrong that a provider, a network and a machine do to each other, and every payment ends in one state,
with one charge at most.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator.dev.servers.process import Process
from shared.payments.sandbox.defaults import API_KEY, METADATA_KEY, WEBHOOK_PATH, WEBHOOK_SECRET
from tests.support.callers import HEADERS
from tests.support.sandbox import RunningSandbox
from tests.support.system import Client, System

AMOUNT = 1000
PAYMENTS = 60
KILLS = 4
FAULTS: dict[str, Any] = {
    "429": 0.03,
    "500_before": 0.05,
    "500_kept": 0.05,
    "500_after": 0.05,
    "lost_request": 0.05,
    "lost_answer": 0.1,
}
FAILS_AFTER: dict[str, Any] = {"500_after": 1.0}
FAILS_BEFORE: dict[str, Any] = {"500_kept": 1.0}
# As by default, in less time. Calls fail at random here, and a breaker would take that for an outage now and then.
WORKER = {"EFFECTS_RETRY_DELAY_S_MAX": "2", "EFFECTS_BREAKER_PAUSE_S_MAX": "1", "STRIPE_SPENT_KEY_S": "1"}
OUTAGE_S = 4.0
IN_OUTAGE = 24
STATES = {"requires_capture": "authorized", "canceled": "voided", "requires_payment_method": "declined"}


class Shop:
    """A client of the payments gateway, the provider behind it, and the worker between them."""

    def __init__(self, system: System, sandbox: RunningSandbox, session: aiohttp.ClientSession) -> None:
        self.system = system
        self.sandbox = sandbox
        self._session = session
        self._url = system.urls["payments"]
        self._client = Client(session, self._url)
        self.worker: Process

    def start_worker(self, **settings: str) -> None:
        provider = {
            "STRIPE_API_KEY": API_KEY,
            "STRIPE_API_BASE": self.sandbox.url,
            "STRIPE_METADATA_KEY": METADATA_KEY,
            "EFFECTS_RETRY_DELAY_S": "0.05",
        }
        self.worker = self.system.start_effects("payments", **(provider | settings))

    async def write(self, path: str, key: str, body: object = None, status: int = 201) -> Any:
        answered, answer = await self._client.write(path, body, key)
        assert answered == status, answer
        return answer

    async def open(self, payment_method: str, key: str, amount: int = AMOUNT, currency: str = "EUR") -> int:
        body = {"user_id": 1, "amount": amount, "currency": currency, "payment_method": payment_method}
        payment = await self.write("/payments", key, body)
        return int(payment["id"])

    async def get(self, path: str) -> Any:
        async with self._session.get(self._url + path) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def refund_by_hand(self, payment_intent: str, amount: int) -> str:
        """As somebody does in the provider's dashboard; return the refund's id."""
        asked = {"payment_intent": payment_intent, "amount": str(amount)}
        url, headers = f"{self.sandbox.url}/v1/refunds", {"Authorization": f"Bearer {API_KEY}"}
        async with self._session.post(url, data=asked, headers=headers) as response:
            refund: str = (await response.json())["id"]
            return refund

    async def resolve(self, **arguments: object) -> None:
        """As an operator does."""
        module = ["coordinator", "send", "payments.resolve", json.dumps(arguments), "--wait", "20"]
        process = self.system.run(module, self.worker.log_path.with_name("resolve.log"), {})
        assert await asyncio.to_thread(process.wait, 60)
        assert process.exit_status == 0, process.log_tail(40)

    async def reached(self, payment_id: int, *statuses: str) -> Any:
        """The payment, once nothing is under way and it is in one of these states, or in any but `pending`."""
        async with asyncio.timeout(90):
            while True:
                payment = await self.get(f"/payments/{payment_id}")
                is_there = payment["status"] in statuses if statuses else payment["status"] != "pending"
                if is_there and payment["pending_action"] is None and payment["wanted"] is None:
                    return payment
                await asyncio.sleep(0.02)

    async def assert_charges_are_the_payments(self, count: int) -> None:
        """Every payment has one charge at most, and its amounts."""
        payments = (await self.get("/payments?limit=100"))["items"]
        assert len(payments) == count
        charges = await asyncio.to_thread(self.sandbox.charges)
        held = [charge for charge in charges if charge["authorized"]]
        assert set(Counter(charge["payment_id"] for charge in held).values()) <= {1}
        by_payment = {charge["payment_id"]: charge for charge in held}
        for payment in payments:
            charge = by_payment.pop(str(payment["id"]), None)
            if charge is None:
                assert payment["status"] in {"declined", "failed"}, payment
                continue
            assert charge["payment_intent"] == payment["provider_id"]
            assert (charge["captured"], charge["refunded"]) == (payment["captured"], payment["refunded"]), payment
            taken = "refunded" if charge["refunded"] == charge["captured"] else "captured"
            assert payment["status"] == STATES.get(charge["status"], taken), (payment, charge)
        assert by_payment == {}


@pytest.fixture
async def shop(system: System, tmp_path: Path) -> AsyncIterator[Shop]:
    system.prepare("payments")
    system.start_coordinator("payments")
    system.start_gateway("payments", STRIPE_WEBHOOK_SECRET=WEBHOOK_SECRET, STRIPE_METADATA_KEY=METADATA_KEY)
    sandbox = RunningSandbox(tmp_path, system.urls["payments"] + WEBHOOK_PATH)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        yield Shop(system, sandbox, session)
    sandbox.kill()


async def test_a_payment_is_held_taken_and_given_back(shop: Shop) -> None:
    shop.start_worker()
    first = await shop.open("pm_card_visa", "a")
    assert (await shop.reached(first))["status"] == "authorized"
    await shop.write(f"/payments/{first}/capture", "b", status=200)
    assert (await shop.reached(first, "captured"))["captured"] == AMOUNT
    problem = await shop.write(f"/payments/{first}/capture", "c", status=409)
    assert problem["code"] == "impossible_transition"
    refund = await shop.write(f"/payments/{first}/refunds", "d", {"amount": 300})
    await shop.reached(first, "captured")
    shown = await shop.get(f"/payments/{first}/refunds/{refund['id']}")
    assert (shown["status"], shown["amount"], shown["provider_id"][:3]) == ("succeeded", 300, "re_")
    await shop.write(f"/payments/{first}/reversal", "e", status=200)
    assert (await shop.reached(first, "refunded"))["refunded"] == AMOUNT
    assert [refund["amount"] for refund in (await shop.get(f"/payments/{first}/refunds"))["items"]] == [300, 700]

    declined = await shop.reached(await shop.open("pm_card_chargeDeclinedInsufficientFunds", "f"))
    assert (declined["status"], declined["reason_code"]) == ("declined", "insufficient_funds")
    held = await shop.open("pm_card_visa", "g", amount=1230, currency="KWD")
    await shop.write(f"/payments/{held}/reversal", "h", status=200)
    assert (await shop.reached(held, "voided"))["captured"] == 0
    asked_thrice = await shop.reached(await shop.open("pm_sandbox_429_2", "i"))
    assert (asked_thrice["status"], asked_thrice["reason_code"]) == ("authorized", None)
    await shop.assert_charges_are_the_payments(4)


async def test_when_it_is_given_up_the_payment_says_what_became_of_it(shop: Shop) -> None:
    # The faults are of single payments, which a breaker would take for an outage of all.
    shop.start_worker(EFFECTS_GIVE_UP_AFTER_S="4", EFFECTS_BREAKER_FAILURES="1000")
    await asyncio.to_thread(shop.sandbox.set_webhooks, copies=0)
    ends: dict[str, tuple[str, str | None]] = {
        # Asked in the end, the provider knows that it holds the amount.
        "pm_sandbox_lost_answer_99": ("authorized", None),
        "pm_sandbox_429_99": ("failed", "provider_unavailable"),
        "pm_sandbox_500_before_99": ("needs_review", "answer_lost"),
        # With another key it could be held twice, so soon after the provider's fault.
        "pm_sandbox_500_kept": ("needs_review", "answer_lost"),
    }
    opened = {payment_method: await shop.open(payment_method, payment_method) for payment_method in ends}
    payments = {payment_method: await shop.reached(payment_id) for payment_method, payment_id in opened.items()}
    assert {name: (payment["status"], payment["reason_code"]) for name, payment in payments.items()} == ends


async def test_an_operator_ends_the_review_of_a_payment_by_what_the_provider_shows(shop: Shop) -> None:
    """No event tells what became of a hold that was never made, and of a capture that was."""
    await asyncio.to_thread(shop.sandbox.set_webhooks, copies=0)
    shop.start_worker(EFFECTS_GIVE_UP_AFTER_S="2", EFFECTS_BREAKER_PAUSE_S_MAX="1")
    never_held, taken = await shop.open("pm_sandbox_500_kept", "a"), await shop.open("pm_card_visa", "b")
    await shop.reached(never_held, "needs_review")
    await shop.reached(taken, "authorized")
    await asyncio.to_thread(shop.sandbox.set_faults, lost_answer=1.0)
    await shop.write(f"/payments/{taken}/capture", "c", status=200)
    await shop.reached(taken, "needs_review")
    await asyncio.to_thread(shop.sandbox.set_faults)
    by_a_client = {"id": taken, "status": "captured", "captured": AMOUNT, "reason": "trust me"}
    problem = await shop.write("/commands", "d", [{"type": "payments.resolve", "args": by_a_client}], status=422)
    assert "payments.resolve" in problem["detail"], problem
    [charge] = await asyncio.to_thread(shop.sandbox.charges, status="succeeded")
    assert charge["payment_id"] == str(taken)
    await shop.resolve(id=never_held, status="voided", reason="nothing is held")
    await shop.resolve(id=taken, status="captured", captured=charge["captured"], reason="it succeeded")
    ended = await shop.get(f"/payments/{never_held}")
    assert (ended["status"], ended["reason_code"], ended["reason"]) == ("voided", "resolved", "nothing is held")
    await shop.write(f"/payments/{taken}/refunds", "e", {})
    assert (await shop.reached(taken, "refunded"))["refunded"] == AMOUNT


async def test_a_refund_of_the_provider_s_dashboard_that_comes_back_is_reviewed(shop: Shop) -> None:
    """It has none of our metadata: its payment's id at the provider is all that tells whose it is."""
    shop.start_worker()
    payment = await shop.reached(await shop.open("pm_card_visa", "a"), "authorized")
    await shop.write(f"/payments/{payment['id']}/capture", "b", status=200)
    await shop.reached(payment["id"], "captured")
    refund = await shop.refund_by_hand(payment["provider_id"], 300)
    async with asyncio.timeout(30):
        while (await shop.get(f"/payments/{payment['id']}"))["refunded"] != 300:
            await asyncio.sleep(0.02)
    await asyncio.to_thread(shop.sandbox.fail_refund, refund)
    reviewed = await shop.reached(payment["id"], "needs_review")
    assert (reviewed["reason_code"], reviewed["refunded"]) == ("refund_returned", 300)
    await shop.resolve(id=payment["id"], status="captured", captured=AMOUNT, refunded=0, reason="it came back")
    await shop.write(f"/payments/{payment['id']}/refunds", "c", {"amount": AMOUNT})
    await shop.reached(payment["id"], "refunded")
    await shop.assert_charges_are_the_payments(1)


async def test_a_call_whose_worker_dies_is_made_again_with_the_same_key(shop: Shop) -> None:
    """The provider has held the amount and nobody was told: no event is delivered, and the worker is killed."""
    await asyncio.to_thread(shop.sandbox.set_webhooks, copies=0)
    await asyncio.to_thread(shop.sandbox.set_faults, delay_s=2.0)
    shop.start_worker()
    payment_id = await shop.open("pm_sandbox_delay", "a")
    assert len(await asyncio.to_thread(shop.sandbox.charges, at_least=1)) == 1
    shop.worker.kill()
    assert (await shop.get(f"/payments/{payment_id}"))["status"] == "pending"
    # While the dead worker's call is under way, the provider answers that its key is in use: more than a few times.
    shop.start_worker(**WORKER)
    assert (await shop.reached(payment_id))["status"] == "authorized"
    await shop.assert_charges_are_the_payments(1)


async def test_without_workers_events_alone_bring_a_payment_on(shop: Shop) -> None:
    """Five copies of every event, shuffled; the worker is killed before it hears the answers."""
    await asyncio.to_thread(shop.sandbox.set_webhooks, copies=5, shuffle=True)
    await asyncio.to_thread(shop.sandbox.set_faults, delay_s=30.0)
    shop.start_worker()
    payment_id = await shop.open("pm_sandbox_delay", "a")
    await asyncio.to_thread(shop.sandbox.charges, at_least=1)
    shop.worker.kill()
    assert (await shop.reached(payment_id))["status"] == "authorized"


async def test_a_provider_that_fails_for_a_while_leaves_nothing_to_a_person(shop: Shop) -> None:
    """Every call is answered with a fault, first behind its effect and then before it; and then the keys are forgotten.

    No event tells what became of the calls, the search lags behind, and the worker is killed meanwhile.
    """
    await asyncio.to_thread(shop.sandbox.set_webhooks, copies=0)
    shop.start_worker(**WORKER)
    held = [await shop.open("pm_card_visa", f"held-{number}") for number in range(IN_OUTAGE // 2)]
    for payment_id in held:
        await shop.reached(payment_id, "authorized")
    await asyncio.to_thread(shop.sandbox.set_faults, search_lag_s=3600, **FAILS_AFTER)
    asked = [await shop.open("pm_card_visa", f"asked-{number}") for number in range(IN_OUTAGE // 2)]
    for payment_id in held:
        await shop.write(f"/payments/{payment_id}/capture", f"capture-{payment_id}", status=200)
    await asyncio.sleep(OUTAGE_S / 2)
    shop.worker.kill()
    await asyncio.to_thread(shop.sandbox.set_faults, search_lag_s=3600, **FAILS_BEFORE)
    late = [await shop.open("pm_card_visa", f"late-{number}") for number in range(IN_OUTAGE // 2)]
    await asyncio.to_thread(shop.start_worker, **WORKER)
    await asyncio.sleep(OUTAGE_S / 2)
    await asyncio.to_thread(shop.sandbox.forget_keys)
    await asyncio.to_thread(shop.sandbox.set_faults, search_lag_s=3600)
    for payment_id in held:
        assert (await shop.reached(payment_id, "captured", "needs_review"))["status"] == "captured"
    for payment_id in (*asked, *late):
        assert (await shop.reached(payment_id))["status"] == "authorized"
    await shop.assert_charges_are_the_payments(len(held) + len(asked) + len(late))


@pytest.mark.faults
async def test_whatever_goes_wrong_what_was_charged_is_what_the_payments_say(shop: Shop) -> None:
    await asyncio.to_thread(shop.sandbox.set_webhooks, copies=3, shuffle=True)
    await asyncio.to_thread(shop.sandbox.set_faults, **FAULTS)
    shop.start_worker(**WORKER)
    async with asyncio.TaskGroup() as group:
        lives = [group.create_task(live(shop, number)) for number in range(PAYMENTS)]
        for kill in range(1, KILLS + 1):
            # Once so many amounts are held there are calls under way: the worker dies in the middle of them.
            await asyncio.to_thread(shop.sandbox.charges, at_least=kill * PAYMENTS // (KILLS + 1))
            shop.worker.kill()
            await asyncio.to_thread(shop.start_worker, **WORKER)
    ends = {life.result() for life in lives}
    assert ends == {"authorized", "captured", "refunded", "voided", "declined"}
    await shop.assert_charges_are_the_payments(PAYMENTS)


async def live(shop: Shop, number: int) -> str:
    """One payment, from its opening to its end; return how it ended."""
    kind = number % 6
    payment_id = await shop.open("pm_card_chargeDeclined" if kind == 5 else "pm_card_visa", f"open-{number}")
    path = f"/payments/{payment_id}"
    if kind == 0:
        await shop.write(f"{path}/reversal", f"reverse-{number}", status=200)
        return str((await shop.reached(payment_id))["status"])
    payment = await shop.reached(payment_id)
    if kind == 1 or payment["status"] == "declined":
        return str(payment["status"])
    if kind == 2:
        await shop.write(f"{path}/reversal", f"reverse-{number}", status=200)
        return str((await shop.reached(payment_id, "voided"))["status"])
    await shop.write(f"{path}/capture", f"capture-{number}", status=200)
    await shop.reached(payment_id, "captured")
    await shop.write(f"{path}/refunds", f"refund-{number}", {"amount": 300})
    payment = await shop.reached(payment_id)
    if kind == 3:
        await shop.write(f"{path}/refunds", f"rest-{number}", {"amount": AMOUNT - payment["refunded"]})
        payment = await shop.reached(payment_id, "refunded")
    return str(payment["status"])
