"""Somebody who may publish to RabbitMQ, and knows every id, says what only the system may say: nothing obeys him."""

import asyncio
import json
import time
from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import pika
import pika.exceptions
import pytest

from coordinator import Command, Effect
from coordinator.protocol.wire import PACK_CONTENT
from coordinator.service.ids import continuation_command_id, derived_command_id
from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.topology import WRITES_EXCHANGE, queue_name
from shared.items.commands import QuoteItem, ReserveItem
from shared.payments.commands import OpenPayment
from shared.payments.effects import AuthorizeAtProvider
from tests.support.callers import HEADERS
from tests.support.letters import dead_letters, first_secret
from tests.support.system import Client, System, wait_until

OUTCOME = {"command_id": "", "command_type": "payments.open", "status": "applied", "result": {"id": 1}, "error": None}
EVENT = {"event_id": "evt_1", "kind": "captured", "id": 1, "provider_id": "pi_x", "currency": "EUR", "amount": 750}
FORGED: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "payments": [
        ("payments.authorize_result", {"id": 1, "verdict": "authorized", "provider_id": "pi_forged"}),
        ("payments.capture_result", {"id": 1, "verdict": "captured", "amount": 750}),
        ("payments.void_result", {"id": 1, "verdict": "voided"}),
        ("payments.refund_result", {"id": 1, "refund_id": 1, "verdict": "refunded"}),
        ("payments.provider_event", {**EVENT, "amount_captured": 750}),
        ("payments.resolve", {"id": 1, "status": "captured", "reason": "forged", "captured": 750}),
        ("lane.replay", {"letter": 1, "as_system": True}),
        ("lane.discard", {"letter": 1}),
        ("lane.withdraw", {"entries": [1, 2, 3]}),
        ("lane.release", {"ordering_key": "payments.id=1", "command_id": str(uuid4())}),
        (
            "lane.dead_effect",
            {"command_id": None, "effect_type": None, "body": "", "code": "c", "reason": "r", "traceback": None},
        ),
    ],
    "users": [("users.continue_purchase", OUTCOME)],
}
SERVICES = ("users", "items", "payments")
SOON_S = 5
"""He says what he knows within this time of the purchase."""
AUTHORIZE: dict[str, Any] = {"id": 1, "amount": 750, "currency": "EUR", "payment_method": "pm_card_visa"}


class Stranger:
    """Publishes what he likes, to the public exchange and to queues by their names."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        channel.confirm_delivery()
        self.sent = 0

    def say(self, lane: str, command_id: str, command_type: str, args: Any, **headers: Any) -> None:
        """In every form that reaches a lane."""
        claims = {"origin": "system", "replayed": True, **headers}
        element = {"id": command_id, "type": command_type, "args": args, "origin": "system", **headers}
        single = pika.BasicProperties(message_id=command_id, type=command_type, headers=claims)
        pack = pika.BasicProperties(content_type=PACK_CONTENT, headers=claims)
        for exchange, key in ((WRITES_EXCHANGE, lane), ("", queue_name(lane))):
            self._channel.basic_publish(exchange, key, json.dumps(args), single, mandatory=True)
            self._channel.basic_publish(exchange, key, json.dumps([element]), pack, mandatory=True)
            self.sent += 2


def chain(purchase_id: str, secrets: Mapping[str, bytes]) -> dict[str, list[str]]:
    """The ids of the system's own commands of a purchase, by lane: who has the lanes' keys can compute them."""
    users, payments = secrets["users"], secrets["payments"]
    quote = emitted(f"users.open_purchase {purchase_id}", QuoteItem(id=1), users)
    first = continuation_command_id(f"items.quote {quote}")
    opening = OpenPayment(user_id=1, amount=750, currency="EUR", payment_method="pm_card_visa")
    authorize = emitted(f"users.continue_purchase {first}", opening, users)
    asked = AuthorizeAtProvider(**AUTHORIZE)
    effect = emitted(f"payments.open {authorize}", asked, payments)
    second = continuation_command_id(f"payments.open {authorize}")
    reserving = ReserveItem(id=1, quantity=3, price=250, currency="EUR")
    reserve = emitted(f"users.continue_purchase {second}", reserving, users)
    now_s = int(time.time())
    results = [
        derived_command_id(f"{asked.type} {effect}", each, f"{at_s}\npayments.open {authorize}".encode())
        for each in (0, 1, 2)
        for at_s in range(now_s, now_s + SOON_S)
    ]
    return {"users": [first, second], "items": [quote, reserve], "payments": [authorize, effect, *results]}


def emitted(parent: str, command: Command | Effect, secret: bytes) -> str:
    return derived_command_id(parent, 0, f"{command.type}\n".encode() + msgspec.json.encode(command), secret)


class Shop:
    """The whole system, but for somebody who asks the provider; a user with no credit and an item in stock."""

    def __init__(self, system: System, session: aiohttp.ClientSession) -> None:
        self.system = system
        self._session = session

    async def open(self) -> None:
        self.system.prepare(*SERVICES)
        self.system.start_sandbox()
        self.system.start_coordinators(*SERVICES)
        for service in SERVICES:
            self.system.start_gateway(service)
        users, items = (Client(self._session, self.system.urls[name]) for name in ("users", "items"))
        await users.write("/users", {"name": "Ada", "email": "ada@example.org"}, "u")
        await items.write("/items", {"name": "seat", "price": 250, "currency": "EUR", "stock": 10}, "i")

    async def buy(self, purchase_id: str) -> None:
        args = {"user_id": 1, "item_id": 1, "quantity": 3, "payment_method": "pm_card_visa"}
        body = [{"id": purchase_id, "type": "users.open_purchase", "args": args}]
        async with self._session.post(self.system.urls["users"] + "/commands", json=body) as response:
            assert (await response.json())[0]["status"] == "applied"

    async def get(self, service: str, path: str) -> Any:
        async with self._session.get(self.system.urls[service] + path) as response:
            assert response.status == 200
            return await response.json()

    async def purchase(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.get("users", "/purchases/1")
        return found

    async def waiting_step(self) -> dict[str, Any]:
        """The step that waits for the provider."""
        while len(steps := (await self.purchase())["steps"]) < 2:
            await asyncio.sleep(0.02)
        assert (steps[-1]["command"], steps[-1]["status"]) == ("payments.open", "waiting")
        step: dict[str, Any] = steps[-1]
        return step

    async def until_ended(self) -> dict[str, Any]:
        while (found := await self.purchase())["purchase"]["status"] == "running":
            await asyncio.sleep(0.05)
        return found


def take_all_ids(stranger: Stranger, ids_by_lane: dict[str, list[str]]) -> None:
    """Whoever comes first has the id."""
    for lane, ids in ids_by_lane.items():
        for command_id in ids:
            stranger.say(lane, command_id, "lane.marker", {})


def say_all_that_is_forbidden(stranger: Stranger, ids_by_lane: dict[str, list[str]], waiting_id: str) -> None:
    for lane, forged in FORGED.items():
        for command_type, args in forged:
            known = {"command_id": waiting_id} if command_type == "users.continue_purchase" else {}
            for command_id in (str(uuid4()), waiting_id, *ids_by_lane[lane]):
                stranger.say(lane, command_id, command_type, args | known)
    for command_id in (str(uuid4()), waiting_id):
        for continuation in ("users.continue_purchase", "payments.capture_result"):
            stranger.say("users", command_id, "users.credit", {"id": 1, "amount": 1}, continuation=continuation)


def ask_for_an_effect(channel: Any) -> None:
    effect = pika.BasicProperties(message_id=str(uuid4()), type="payments.effects.authorize")
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish(WRITES_EXCHANGE, effects_key("payments"), json.dumps(AUTHORIZE), effect, mandatory=True)
    channel.basic_publish("", queue_name(effects_key("payments")), json.dumps(AUTHORIZE), effect, mandatory=True)


def is_empty(channel: Any, lane: str) -> bool:
    count: int = channel.queue_declare(queue_name(lane), passive=True).method.message_count
    return count == 0


async def test_nothing_that_a_stranger_says_is_taken_for_the_system_s_own(system: System) -> None:
    purchase_id = str(uuid4())
    async with aiohttp.ClientSession(headers=HEADERS) as session, asyncio.timeout(100):
        shop = Shop(system, session)
        await shop.open()
        with system.broker() as channel:
            stranger = Stranger(channel)
            ids = chain(purchase_id, {lane: first_secret(system, lane) for lane in SERVICES})
            take_all_ids(stranger, ids)
            await shop.buy(purchase_id)
            waiting = await shop.waiting_step()
            say_all_that_is_forbidden(stranger, ids, waiting["command_id"])
            ask_for_an_effect(channel)
            for lane in SERVICES:
                wait_until(partial(is_empty, channel, lane), f"{lane} has settled what the stranger said")
        assert (await shop.purchase())["purchase"]["status"] == "running"
        payment = await shop.get("payments", "/payments/1")
        assert (payment["status"], payment["pending_action"], payment["captured"]) == ("pending", "authorize", 0)

        system.start_effects("payments")
        ended = await shop.until_ended()
        assert ended["purchase"]["status"] == "completed"
        assert [step["status"] for step in ended["steps"]] == ["applied"] * 4
        assert {step["command_id"] for step in ended["steps"]} > set(ids["items"])
        charges = (await shop.get("sandbox", "/sandbox/charges"))["charges"]
        assert [charge["captured"] for charge in charges] == [750]
        assert (await shop.get("users", "/users/1"))["credit"] == 0
    letters = [letter for lane in SERVICES for letter in dead_letters(system, lane)]
    assert {letter.origin for letter in letters if letter.target in SERVICES} == {"public"}
    assert [letter.code for letter in letters if letter.target not in SERVICES] == ["not_from_system"]
