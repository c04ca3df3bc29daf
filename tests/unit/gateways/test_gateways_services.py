"""What the three services' routes answer."""

import msgspec
import pytest
from aiohttp import web

from coordinator.http.app import Gateway
from coordinator.http.responses import json_response
from coordinator.service.errors import DatabaseUnavailable
from coordinator.service.json_text import to_json
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import ITEM, PAYMENT, USER, applied, refused

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
ADA = {"name": "Ada", "email": "ada@example.org"}
LAMP = {"name": "Lamp", "price": 1999, "currency": "EUR", "stock": 4}


async def test_a_created_user_has_a_location_and_an_entity_tag(users: RunningGateway) -> None:
    response, body = await users.call("POST", "/users", json=ADA)
    assert response.status == 201
    assert response.headers["Location"] == "/users/7"
    assert response.headers["ETag"] == '"3"'
    assert response.headers["Command-Id"] == users.writes.last.command_id
    assert response.headers["Command-Sequence"] == "41"
    assert "Idempotent-Replayed" not in response.headers
    assert body == msgspec.json.decode(to_json(USER))
    assert msgspec.json.decode(users.writes.last.arguments) == ADA


async def test_a_user_is_shown_with_its_entity_tag(users: RunningGateway) -> None:
    response, body = await users.call("GET", "/users/7")
    assert response.status == 200
    assert response.headers["ETag"] == '"3"'
    assert body["email"] == "ada@example.org"


@pytest.mark.parametrize("tag", ['"3"', 'W/"3"', '"1", "3"', "*"])
async def test_a_client_that_has_the_version_gets_304(users: RunningGateway, tag: str) -> None:
    response, body = await users.call("GET", "/users/7", headers={"If-None-Match": tag})
    assert (response.status, body, response.headers["ETag"]) == (304, b"", '"3"')


@pytest.mark.parametrize("tag", ['"2"', "3", "nonsense", '"'])
async def test_a_client_that_has_another_version_gets_the_user(users: RunningGateway, tag: str) -> None:
    response, _ = await users.call("GET", "/users/7", headers={"If-None-Match": tag})
    assert response.status == 200


async def test_users_are_listed_in_pages(users: RunningGateway) -> None:
    users.rows.rows = {number: msgspec.structs.replace(USER, id=number) for number in (1, 2, 3)}
    _, first = await users.call("GET", "/users?limit=2")
    assert ([user["id"] for user in first["items"]], first["next"]) == ([1, 2], 2)
    _, second = await users.call("GET", "/users?limit=2&after=2")
    assert ([user["id"] for user in second["items"]], second["next"]) == ([3], None)


@pytest.mark.parametrize("content_type", ["application/json; charset=UTF-8", "application/merge-patch+json"])
async def test_a_patch_merges_and_carries_the_expected_version(users: RunningGateway, content_type: str) -> None:
    response, _ = await users.call(
        "PATCH",
        "/users/7",
        data=b'{"name": "Ada L."}',
        headers={"Content-Type": content_type, "If-Match": '"3"'},
    )
    assert response.status == 200
    assert response.headers["ETag"] == '"3"'
    assert users.writes.last.expected_version == 3
    assert msgspec.json.decode(users.writes.last.arguments) == {"id": 7, "name": "Ada L."}


async def test_an_empty_patch_is_let_through(users: RunningGateway) -> None:
    response, _ = await users.call("PATCH", "/users/7", json={}, headers={"If-Match": "*"})
    assert response.status == 200
    assert users.writes.last.expected_version is None


@pytest.mark.parametrize(
    ("tag", "status"),
    [
        ('W/"3"', 412),
        ('"abc"', 412),
        ('"0"', 412),
        ('"99999999999999999"', 412),
        ('W/"1", W/"2"', 412),
        ("3", 400),
        ("", 400),
        ('"3', 400),
        ('"3", "4"', 400),
        ('*, "3"', 400),
    ],
)
async def test_an_if_match_that_names_no_version_issues_nothing(users: RunningGateway, tag: str, status: int) -> None:
    response, body = await users.call("PATCH", "/users/7", json={}, headers={"If-Match": tag})
    assert (response.status, body["field"]) == (status, "If-Match")
    assert body["code"] == ("version_conflict" if status == 412 else "invalid_header")
    assert users.writes.issued == []


async def test_a_stale_version_is_412(users: RunningGateway) -> None:
    users.writes.answer = refused("rejected", "version_conflict")
    response, body = await users.call("DELETE", "/users/7", headers={"If-Match": '"2"'})
    assert (response.status, body["code"]) == (412, "version_conflict")
    assert users.writes.last.expected_version == 2


async def test_a_deleted_user_leaves_204(users: RunningGateway) -> None:
    response, body = await users.call("DELETE", "/users/7")
    assert (response.status, body, response.headers["Command-Sequence"]) == (204, b"", "41")


async def test_credit_is_added_at_a_path_of_its_own(users: RunningGateway) -> None:
    response, _ = await users.call("POST", "/users/7/credit", json={"amount": -5})
    assert (response.status, response.headers["Content-Location"]) == (200, "/users/7")
    assert msgspec.json.decode(users.writes.last.arguments) == {"id": 7, "amount": -5}


async def test_a_transfer_shows_both_credits(users: RunningGateway) -> None:
    response, body = await users.call("POST", "/transfers", json={"from": 7, "to": 8, "amount": 1})
    assert response.status == 200
    assert body == {"from": 7, "to": 8, "amount": 1, "from_credit": 9}


async def test_an_item_is_created_and_changed(items: RunningGateway) -> None:
    created, _ = await items.call("POST", "/items", json=LAMP)
    assert (created.status, created.headers["Location"]) == (201, "/items/5")
    changed, body = await items.call("PATCH", "/items/5", json={"stock": 9}, headers={"If-Match": '"2"'})
    assert (changed.status, body) == (200, msgspec.json.decode(to_json(ITEM)))
    assert items.writes.last.expected_version == 2


async def test_an_item_comes_from_the_cache_where_it_is_there(items: RunningGateway) -> None:
    missed, _ = await items.call("GET", "/items/5")
    assert missed.headers["Cache-Status"] == "write-coordinator-redis; fwd=miss; stored"
    hit, _ = await items.call("GET", "/items/5", headers={"If-None-Match": '"2"'})
    assert (hit.status, hit.headers["Cache-Status"]) == (304, "write-coordinator-redis; hit")
    items.cache.is_up = False
    bypassed, _ = await items.call("GET", "/items/5")
    assert (bypassed.status, bypassed.headers["Cache-Status"]) == (200, "write-coordinator-redis; fwd=bypass")


async def test_items_are_listed(items: RunningGateway) -> None:
    _, body = await items.call("GET", "/items?after=4&limit=1")
    assert [item["id"] for item in body["items"]] == [5]


async def test_a_reservation_is_made_and_released(items: RunningGateway) -> None:
    made, _ = await items.call("POST", "/items/5/reservations", json={"quantity": 2})
    assert (made.status, made.headers["Location"]) == (201, "/items/5/reservations/31")
    assert "ETag" not in made.headers
    released, _ = await items.call("DELETE", made.headers["Location"])
    assert released.status == 204
    assert msgspec.json.decode(items.writes.last.arguments) == {"id": 5, "reservation_id": 31}


async def test_too_little_stock_is_409(items: RunningGateway) -> None:
    items.writes.answer = refused("rejected", "out_of_stock")
    response, body = await items.call("POST", "/items/5/reservations", json={"quantity": 200})
    assert (response.status, body["code"]) == (409, "out_of_stock")
    assert body["detail"] == "because of out_of_stock"
    assert body["command_id"] == items.writes.last.command_id


async def test_a_payment_is_opened_and_shown(payments: RunningGateway) -> None:
    opened, _ = await payments.call("POST", "/payments", json={"user_id": 7, "amount": 100, "currency": "EUR"})
    assert (opened.status, opened.headers["Location"]) == (201, "/payments/9")
    shown, body = await payments.call("GET", "/payments/9")
    assert (shown.status, body) == (200, msgspec.json.decode(to_json(PAYMENT)))


@pytest.mark.parametrize(("query", "ids"), [("", [9]), ("?user_id=7&limit=5", [9]), ("?user_id=8", [])])
async def test_payments_are_listed_by_user(payments: RunningGateway, query: str, ids: list[int]) -> None:
    _, body = await payments.call("GET", f"/payments{query}")
    assert [payment["id"] for payment in body["items"]] == ids


@pytest.mark.parametrize("name", ["users", "items", "payments"])
async def test_what_is_not_there_is_404_and_what_cannot_be_read_503(start: Start, name: str) -> None:
    gateway = await start(name)
    missing, body = await gateway.call("GET", f"/{name}/1")
    assert (missing.status, body["code"]) == (404, f"{name[:-1]}_not_found")
    assert "trace_id" not in body
    gateway.rows.error = DatabaseUnavailable("OperationalError: secret-host refused")
    for path in (f"/{name}/1", f"/{name}"):
        away, body = await gateway.call("GET", path, headers={"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"})
        assert (away.status, body["code"], away.headers["Retry-After"]) == (503, "database_unavailable", "1")
        assert "secret-host" not in body["detail"]
        assert body["trace_id"] == TRACE_ID


async def test_a_head_is_a_get_without_its_body(users: RunningGateway) -> None:
    response, body = await users.call("HEAD", "/users/7")
    assert (response.status, body, response.headers["ETag"]) == (200, b"", '"3"')


async def test_a_fourth_service_is_a_route_table_and_a_registration(start: Start) -> None:
    routes = web.RouteTableDef()

    @routes.get("/orders")
    async def list_orders(_request: web.Request) -> web.Response:
        return json_response([])

    orders = Gateway(name="orders", routes=routes, attach=lambda _app, _dependencies: None)
    gateway = await start(orders)
    for path in ("/orders", "/healthz"):
        response, _ = await gateway.call("GET", path)
        assert response.status == 200


async def test_the_command_issued_is_the_lanes_own(items: RunningGateway) -> None:
    await items.call("POST", "/items", json=LAMP)
    lane, message, wait_s = items.writes.issued[-1]
    assert (lane, message.type, wait_s) == ("items", "items.create", 10.0)
    assert applied(message).status == "applied"
