"""What the system does for its users, the same in each way in which it may run: the heart of all tests.

One system of each way serves all tests of it. So each test has users and items of its own, and takes no id for granted.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast
from uuid import uuid4

import aiohttp
import pytest

from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.transports.rabbitmq.rights import OPERATOR
from tests.e2e.test_rest import Api
from tests.support.callers import HEADERS
from tests.support.databases import FreshDatabases
from tests.support.deployments import WAYS, Deployment, Way, deployed, new_key, operate
from tests.support.forks import Forks
from tests.support.servers import Environment
from tests.support.system import System

pytestmark = pytest.mark.timeout(180)

CARD, DECLINED = "pm_card_visa", "pm_card_chargeDeclinedInsufficientFunds"
ENDED_WITHIN_S = 30
WRITERS = 100


@pytest.fixture(
    scope="module", params=[pytest.param(way, marks=pytest.mark.xdist_group(f"everywhere_{way}")) for way in WAYS]
)
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    way: Way = request.param
    folder = tmp_path_factory.mktemp(way)
    systems: list[System] = []
    databases: list[FreshDatabases] = []

    def made_system() -> System:
        environments: tuple[Environment, Environment] = (
            request.getfixturevalue("server_environment"),
            request.getfixturevalue("administrators"),
        )
        databases.append(FreshDatabases(*environments))
        broker: RedisBroker | None = request.getfixturevalue("redis_broker") if way == "redis" else None
        forks: Forks = request.getfixturevalue("forks")
        url = None if broker is None else broker.url_of(OPERATOR)
        systems.append(System(*databases[-1].environments(), folder, forks, url))
        return systems[-1]

    try:
        with deployed(way, folder, made_system) as deployment:
            yield deployment
    finally:
        for system in systems:
            system.stop()
        for each in databases:
            each.drop()


class People:
    """Callers of all three services, each test's own."""

    def __init__(self, deployment: Deployment, session: aiohttp.ClientSession) -> None:
        self.deployment = deployment
        self.users = Api(session, deployment.urls["users"])
        self.items = Api(session, deployment.urls["items"])
        self.payments = Api(session, deployment.urls["payments"])
        self.sandbox = Api(session, deployment.urls["sandbox"])

    async def user(self, name: str = "Ada") -> dict[str, Any]:
        """A new one."""
        status, user, _ = await self.users("POST", "/users", {"name": name, "email": address()})
        assert status == 201, user
        return cast(dict[str, Any], user)

    async def item(self, stock: int, price: int = 150) -> int:
        """The id of a new one."""
        body = {"name": "pen", "price": price, "currency": "EUR", "stock": stock}
        status, item, _ = await self.items("POST", "/items", body)
        assert status == 201, item
        return int(item["id"])

    async def payment(self, method: str, amount: int = 1000) -> int:
        """The id of a new one."""
        body = {"user_id": 1, "amount": amount, "currency": "EUR", "payment_method": method}
        status, payment, _ = await self.payments("POST", "/payments", body)
        assert (status, payment["status"]) == (201, "pending")
        return int(payment["id"])

    async def reached(self, payment_id: int, status: str) -> dict[str, Any]:
        """The payment, once it is so and nothing is under way."""
        async with asyncio.timeout(ENDED_WITHIN_S):
            while True:
                payment: dict[str, Any] = (await self.payments("GET", f"/payments/{payment_id}"))[1]
                if (payment["status"], payment["pending_action"], payment["wanted"]) == (status, None, None):
                    return payment
                await asyncio.sleep(0.02)

    async def settled(self, location: str) -> dict[str, Any]:
        """What became of a command that was answered with 202."""
        async with asyncio.timeout(ENDED_WITHIN_S):
            while True:
                status, outcome, _ = await self.users("GET", location)
                if status == 200:
                    return cast(dict[str, Any], outcome)
                assert (status, outcome["status"]) == (202, "pending")
                await asyncio.sleep(0.02)

    async def operate(self, service: str, *arguments: object, status: int = 0) -> Any:
        return await asyncio.to_thread(operate, self.deployment, service, *arguments, status=status)


def address() -> str:
    """Nobody's yet."""
    return f"{uuid4()}@example.org"


@pytest.fixture
async def people(deployment: Deployment) -> AsyncIterator[People]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=HEADERS, connector=connector) as session:
        yield People(deployment, session)


async def test_a_user_s_life(people: People) -> None:
    users, email = people.users, address()
    status, ada, headers = await users("POST", "/users", {"name": "Ada", "email": email.upper()})
    where = f"/users/{ada['id']}"
    assert (status, headers["Location"], headers["ETag"]) == (201, where, '"1"')
    created_at = ada.pop("created_at")
    assert created_at.endswith("Z")
    assert ada == {"id": ada["id"], "name": "Ada", "email": email, "credit": 0, "version": 1, "owner": "developer"}
    assert (await users("GET", where))[1] == ada | {"created_at": created_at}

    status, problem, headers = await users("POST", "/users", {"name": "Eve", "email": email})
    assert (status, problem["code"]) == (409, "email_taken")
    assert headers["Content-Type"].startswith("application/problem+json")

    bob = await people.user("Bob")
    assert bob["id"] == ada["id"] + 1
    assert (await users("POST", f"{where}/credit", {"amount": 500}))[1]["credit"] == 500
    status, problem, _ = await users("POST", f"{where}/credit", {"amount": -501})
    assert (status, problem["code"]) == (409, "insufficient_credit")
    status, transfer, _ = await users("POST", "/transfers", {"from": ada["id"], "to": bob["id"], "amount": 200})
    assert (status, transfer["from_credit"]) == (200, 300)

    status, changed, headers = await users("PATCH", where, {"name": "Ada L."}, If_Match='"3"')
    assert (status, changed["name"], headers["ETag"]) == (200, "Ada L.", '"4"')
    status, problem, _ = await users("PATCH", where, {"name": "late"}, If_Match='"3"')
    assert (status, problem["code"]) == (412, "version_conflict")

    listed = (await users("GET", f"/users?limit=1&after={ada['id'] - 1}"))[1]
    assert ([user["id"] for user in listed["items"]], listed["next"]) == ([ada["id"]], ada["id"])
    listed = (await users("GET", f"/users?limit=1&after={ada['id']}"))[1]
    assert ([user["id"] for user in listed["items"]], listed["next"]) == ([bob["id"]], None)

    assert (await users("DELETE", f"/users/{bob['id']}"))[0] == 204
    assert (await users("GET", f"/users/{bob['id']}"))[0] == 404
    assert (await users("DELETE", f"/users/{bob['id']}"))[1]["code"] == "user_not_found"
    status, cy, _ = await users("POST", "/users", {"name": "Cy", "email": bob["email"]})
    assert (status, cy["id"]) == (201, bob["id"] + 1), "an id is not given out again, and an address is"


async def test_a_repeated_request_is_answered_as_the_first(people: People) -> None:
    users, ada, key = people.users, await people.user(), str(uuid4())
    credit = f"/users/{ada['id']}/credit"
    first = await users("POST", credit, {"amount": 5}, Idempotency_Key=key)
    again = await users("POST", credit, {"amount": 5}, Idempotency_Key=key)
    assert first[:2] == again[:2]
    assert "Idempotent-Replayed" not in first[2]
    assert again[2]["Idempotent-Replayed"] == "true"
    other = await users("POST", credit, {"amount": 6}, Idempotency_Key=key)
    assert (other[0], other[1]["code"]) == (422, "idempotency_mismatch")
    rejected = [await users("POST", credit, {"amount": -50}, Idempotency_Key=f"{key}-2") for _ in range(2)]
    assert [answer[0] for answer in rejected] == [409, 409]
    assert rejected[1][2]["Idempotent-Replayed"] == "true"
    assert (await users("GET", f"/users/{ada['id']}"))[1]["credit"] == 5


async def test_an_asynchronous_write_is_looked_up_by_its_command(
    people: People, request: pytest.FixtureRequest
) -> None:
    ada = await people.user()
    status, body, headers = await people.users(
        "POST", f"/users/{ada['id']}/credit", {"amount": 5}, Prefer="respond-async"
    )
    if status == 200:
        # Redis may tell the outcome before it confirms the command (docs/REDIS.md).
        assert (request.node.callspec.params["deployment"], body["credit"]) == ("redis", 5)
    else:
        assert (status, body["status"]) == (202, "pending"), body
        assert headers["Location"] == f"/commands/{body['command_id']}"
    outcome = await people.settled(f"/commands/{headers['Command-Id']}")
    assert (outcome["status"], outcome["result"]["credit"]) == ("applied", 5)


async def test_many_commands_in_one_request_are_applied_in_their_order_and_once(people: People) -> None:
    users, first = people.users, (await people.user())["id"] + 1
    commands: list[tuple[str, dict[str, Any], str]] = []
    for number in range(first, first + 20):
        email = address()
        commands += [
            ("users.create", {"name": f"User {number}", "email": email}, "applied"),
            # Each needs the one before it: in another order it would be rejected.
            ("users.credit", {"id": number, "amount": 30}, "applied"),
            ("users.credit", {"id": number, "amount": -31}, "rejected"),
            ("users.create", {"name": "Late", "email": email}, "rejected"),
            ("users.transfer", {"from": number, "to": number - 1, "amount": 10}, "applied"),
        ]
    body = [{"id": str(uuid4()), "type": kind, "args": arguments} for kind, arguments, _ in commands]
    status, outcomes, headers = await users("POST", "/commands", body)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert [outcome["command_id"] for outcome in outcomes] == [each["id"] for each in body]
    assert [(outcome["type"], outcome["status"]) for outcome in outcomes] == [(kind, end) for kind, _, end in commands]
    began = outcomes[0]["sequence"]
    assert [outcome["sequence"] for outcome in outcomes] == list(range(began, began + 100))
    assert not any(outcome["replayed"] for outcome in outcomes)
    assert {outcome["error"]["code"] for outcome in outcomes if outcome["error"]} == {
        "email_taken",
        "insufficient_credit",
    }
    made = [outcome["result"]["id"] for outcome in outcomes[::5]]
    assert made == list(range(first, first + 20)), "rejected ones use no id up"
    have = [(await users("GET", f"/users/{number}"))[1]["credit"] for number in (first, first + 19)]
    assert have == [30, 20]

    again = (await users("POST", "/commands", body))[1]
    assert again == [outcome | {"replayed": True} for outcome in outcomes]
    assert (await users("GET", f"/users/{first}"))[1]["credit"] == 30

    key = {"Idempotency_Key": str(uuid4())}
    credit = [{"type": "users.credit", "args": {"id": first, "amount": 1}}] * 2
    once, twice = [(await users("POST", "/commands", credit, **key))[1] for _ in range(2)]
    assert [outcome["sequence"] for outcome in once] == [began + 100, began + 101]
    assert twice == [outcome | {"replayed": True} for outcome in once]
    alone = await users("GET", f"/commands/{once[1]['command_id']}")
    assert (alone[0], alone[1]["sequence"]) == (200, began + 101)
    assert (await users("GET", f"/users/{first}"))[1]["credit"] == 32


async def test_all_who_write_one_row_at_once_are_answered_in_one_order(people: People) -> None:
    ada = await people.user()
    commands = [[{"type": "users.credit", "args": {"id": ada["id"], "amount": 1}}]] * WRITERS
    answers = await asyncio.gather(*(people.users("POST", "/commands", each) for each in commands))
    outcomes = sorted((answer[1][0] for answer in answers), key=lambda each: int(each["sequence"]))
    assert [outcome["result"]["credit"] for outcome in outcomes] == list(range(1, WRITERS + 1))
    began = outcomes[0]["sequence"]
    assert [outcome["sequence"] for outcome in outcomes] == list(range(began, began + WRITERS))


async def test_another_s_rows_are_as_if_they_were_not_there(people: People) -> None:
    ada = await people.user()
    key = await asyncio.to_thread(new_key, people.deployment, "bob", "users")
    bob = {"Authorization": f"Bearer {key}"}
    async with asyncio.timeout(ENDED_WITHIN_S):
        while (await people.users("GET", "/users", **bob))[0] == 401:
            await asyncio.sleep(0.05)
    assert (await people.users("GET", "/users", **bob))[1]["items"] == []
    for refused in (
        await people.users("GET", f"/users/{ada['id']}", **bob),
        await people.users("PATCH", f"/users/{ada['id']}", {"name": "Eve"}, **bob),
    ):
        assert (refused[0], refused[1]["code"]) == (404, "user_not_found")
    refused = await people.users("POST", f"/users/{ada['id']}/credit", {"amount": 5}, **bob)
    assert (refused[0], refused[1]["code"]) == (403, "forbidden")
    # The lane believes whoever the gateway says has asked.
    status, own, _ = await people.users("POST", "/users", {"name": "Bob", "email": address()}, **bob)
    assert (status, own["owner"]) == (201, "bob")


async def test_an_item_is_served_from_the_cache_and_never_stale(people: People) -> None:
    # MongoDB's driver returns an integer of more than 32 bits as one of its own class.
    items, where = people.items, f"/items/{await people.item(10, price=3_000_000_000)}"
    status, item, headers = await items("GET", where)
    assert (status, item["stock"], item["price"]) == (200, 10, 3_000_000_000)
    assert "hit" in headers["Cache-Status"], "the lane fills the cache before it answers"
    reservations = [await items("POST", f"{where}/reservations", {"quantity": 4}) for _ in range(3)]
    assert [answer[0] for answer in reservations] == [201, 201, 409]
    one, two = (answer[1]["id"] for answer in reservations[:2])
    assert reservations[1][1] == {"id": one + 1, "item_id": item["id"], "quantity": 4}
    _, item, headers = await items("GET", where)
    assert (item["stock"], item["version"]) == (2, 3)
    assert "hit" in headers["Cache-Status"]
    assert (await items("DELETE", f"{where}/reservations/{one}"))[0] == 204
    assert (await items("DELETE", f"{where}/reservations/{one}"))[1]["code"] == "reservation_not_found"
    assert (await items("GET", where))[1]["stock"] == 6
    assert (await items("DELETE", f"{where}/reservations/{two}"))[0] == 204
    status, item, _ = await items("PATCH", where, {"price": 3_000_000_001}, If_Match='"5"')
    assert (status, item["price"], item["stock"]) == (200, 3_000_000_001, 10)
    assert (await items("PATCH", where, {"price": 1}, If_Match='"5"'))[0] == 412
    listed = (await items("GET", f"/items?limit=1&after={item['id'] - 1}"))[1]
    assert [row["price"] for row in listed["items"]] == [3_000_000_001]


async def test_a_read_with_the_place_of_a_write_shows_it_and_waits_for_no_place_for_ever(people: People) -> None:
    user = {"name": "Ada", "email": address()}
    item = {"name": "pen", "price": 150, "currency": "EUR", "stock": 1}
    never = []
    for api, path, body in ((people.users, "/users", user), (people.items, "/items", item)):
        _, row, written = await api("POST", path, body)
        where = f"{path}/{row['id']}"
        status, found, headers = await api("GET", where, Read_After=written["Read-After"])
        assert (status, found) == (200, row)
        assert headers["Served-By"] in ("reader", "primary")
        never.append(api("GET", where, Read_After=f"{path[1:]}={10**15 - 1}"))
    refused = await asyncio.gather(*never)
    assert [(status, problem["code"]) for status, problem, _ in refused] == [(503, "read_not_recent")] * 2


async def test_a_payment_is_held_taken_and_given_back(people: People) -> None:
    payments, first = people.payments, await people.payment(CARD)
    where = f"/payments/{first}"
    await people.reached(first, "authorized")
    assert (await payments("POST", f"{where}/capture"))[0] == 200
    assert (await people.reached(first, "captured"))["captured"] == 1000
    problem = await payments("POST", f"{where}/capture")
    assert (problem[0], problem[1]["code"]) == (409, "impossible_transition")
    refund = (await payments("POST", f"{where}/refunds", {"amount": 300}))[1]
    await people.reached(first, "captured")
    shown = (await payments("GET", f"{where}/refunds/{refund['id']}"))[1]
    assert (shown["status"], shown["amount"], shown["provider_id"][:3]) == ("succeeded", 300, "re_")
    assert (await payments("POST", f"{where}/reversal"))[0] == 200
    assert (await people.reached(first, "refunded"))["refunded"] == 1000
    assert [row["amount"] for row in (await payments("GET", f"{where}/refunds"))[1]["items"]] == [300, 700]

    declined = await people.reached(await people.payment(DECLINED), "declined")
    assert declined["reason_code"] == "insufficient_funds"
    # The provider sends it away twice: the effect waits, and is carried out again.
    asked_thrice = await people.reached(await people.payment("pm_sandbox_429_2"), "authorized")
    assert asked_thrice["reason_code"] is None


async def test_a_purchase_is_whole_or_taken_back(people: People) -> None:
    ada, item_id = await people.user(), await people.item(5)
    where = f"/users/{ada['id']}/purchases"

    async def bought(quantity: int, method: str) -> dict[str, Any]:
        order = {"item_id": item_id, "quantity": quantity, "payment_method": method}
        status, purchase, _ = await people.users("POST", where, order, Prefer=f"wait={ENDED_WITHIN_S}")
        assert status == 201, purchase
        return cast(dict[str, Any], purchase)

    whole = await bought(2, CARD)
    assert (whole["status"], whole["amount"]) == ("completed", 300)
    assert (await people.items("GET", f"/items/{item_id}"))[1]["stock"] == 3
    taken = [payment for payment in await _payments_of(people, ada["id"]) if payment["captured"]]
    assert [payment["captured"] for payment in taken] == [300]

    for quantity, method in ((1, DECLINED), (4, CARD)):
        assert (await bought(quantity, method))["status"] == "compensated"
    assert (await people.items("GET", f"/items/{item_id}"))[1]["stock"] == 3
    assert sum(each["captured"] - each["refunded"] for each in await _payments_of(people, ada["id"])) == 300
    totals = (await people.users("GET", f"{where}/totals"))[1]
    assert [(each["purchases"], each["amount"]) for each in totals] == [(1, 300)]
    steps = (await people.users("GET", f"/purchases/{whole['id']}"))[1]["steps"]
    assert {step["status"] for step in steps} == {"applied"}


async def _payments_of(people: People, user_id: int) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], (await people.payments("GET", f"/payments?user_id={user_id}"))[1]["items"])


async def test_an_operator_sends_pauses_and_finds_what_waits(people: People) -> None:
    ada = await people.user()
    credit = f'{{"id": {ada["id"]}, "amount": 7}}'
    sent = await people.operate("users", "send", "users.credit", credit, "--wait", 20)
    assert (sent["status"], sent["result"]["credit"]) == ("applied", 7)
    assert (await people.operate("users", "command", sent["command_id"]))["sequence"] == sent["sequence"]
    paused = await people.operate("users", "pause", "users", "--reason", "a look")
    try:
        status, body, headers = await people.users("POST", f"/users/{ada['id']}/credit", {"amount": 1}, Prefer="wait=0")
        assert (status, body["status"]) == (202, "pending")
        (lane,) = await people.operate("users", "status", "users")
        assert (lane["is_paused"], lane["sequence"], lane["errors"]) == (True, paused["sequence"], [])
    finally:
        assert (await people.operate("users", "resume", "users"))["was_paused"]
    assert (await people.settled(headers["Location"]))["result"]["credit"] == 8
    assert (await people.operate("users", "drain", "users"))["sequence"] > paused["sequence"]


async def test_who_is_forgotten_is_gone_and_his_commands_are_not_applied_again(people: People) -> None:
    first, person = str(uuid4()), {"name": "Eve", "email": address()}
    status, eve, _ = await people.users("POST", "/users", person, Command_Id=first)
    assert status == 201
    assert (await people.users("DELETE", f"/users/{eve['id']}"))[0] == 204
    forgotten = await people.operate("users", "forget", "users", eve["id"])
    assert (forgotten["status"], forgotten["row_is_there"]) == ("forgotten", False)
    status, problem, _ = await people.users("POST", "/users", person, Command_Id=first)
    assert (status, problem["code"]) == (410, "forgotten")
    status, shown, _ = await people.users("GET", f"/commands/{first}")
    assert (status, shown["status"], shown["error"]["code"], shown["result"]) == (200, "applied", "forgotten", None)
