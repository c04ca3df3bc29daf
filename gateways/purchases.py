"""Purchases over REST: a part of the users gateway."""

from typing import Final

from aiohttp import web

from coordinator import ENDED, NotFound, Page
from coordinator.http import (
    CONTEXT,
    SETTINGS,
    NoQuery,
    PageQuery,
    described,
    granted_wait_s,
    issue,
    json_response,
    note_preferences,
    path_id,
    read_command,
    read_query,
    wait_as_courtesy,
    written_response,
)
from gateways.shown_users import check_shown
from shared.users.purchases.commands import OpenPurchase
from shared.users.purchases.model import Purchase, PurchaseTotal
from shared.users.purchases.service import PurchaseService, PurchaseWithSteps

PURCHASES: Final = web.AppKey("PURCHASES", PurchaseService)

routes = web.RouteTableDef()


@routes.post("/users/{id}/purchases")
@described(
    "It is answered as it begins (`status` is `running`), and goes on by itself. With `Prefer: wait=N` the answer "
    "waits for its end: 201 if the end came, and otherwise 202 with the purchase as it was last seen. While half of "
    "`GATEWAY_CONNECTIONS_MAX` requests wait, the 202 comes at once. A purchase that ended may have failed: look at "
    "its `status`. One that is opened and begun at once has version 2.",
    command=OpenPurchase,
    path={"id": "user_id"},
    example={"item_id": 2, "quantity": 2, "payment_method": "pm_card_visa"},
    statuses=(201, 202),
)
async def open_purchase(request: web.Request) -> web.Response:
    """201 with the purchase as it begins, or, where the request prefers to wait, as it ends.

    202 if it is not known to have ended within that time, or if too many wait: it goes on by itself, and is at
    `Location`.
    """
    command = await read_command(request, OpenPurchase, {"user_id": path_id(request, "id", "user_not_found")})
    service = request.app[PURCHASES]
    written = await issue(request, service.open_purchase, command)
    location = f"/purchases/{written.value.id}"
    asked = request[CONTEXT].preferences
    if asked.wait_s is None:
        return written_response(written, status=201, location=location)
    wait_s = granted_wait_s(asked, request.app[SETTINGS].wait_s)
    seen = await wait_as_courtesy(request, lambda: service.wait_ended(written.value, wait_s))
    purchase = written.value if seen is None else seen
    response = json_response(purchase, status=201 if purchase.status in ENDED else 202)
    response.headers["Location"] = location
    if written.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    if seen is not None:
        note_preferences(response, asked, request.app[SETTINGS].wait_s)
    return response


@routes.get("/users/{id}/purchases")
@described(
    "The purchases of a user, in pages. `user_not_found`: it is not one's own. With the scope `staff` there are none "
    "of a user that does not exist, and it means that the path has no valid id.",
    query=PageQuery,
    answer=Page[Purchase],
    reads_rows=True,
    codes={"user_not_found": 404},
)
async def list_purchases(request: web.Request) -> web.Response:
    query = read_query(request, PageQuery)
    user_id = path_id(request, "id", "user_not_found")
    await check_shown(request, user_id)
    return json_response(await request.app[PURCHASES].list_purchases(user_id, query.after, query.limit))


@routes.get("/users/{id}/purchases/totals")
@described(
    "What a user has bought, by currency: completed purchases only. `user_not_found` is as for the purchases.",
    answer=list[PurchaseTotal],
    reads_rows=True,
    codes={"user_not_found": 404},
)
async def list_totals(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    user_id = path_id(request, "id", "user_not_found")
    await check_shown(request, user_id)
    return json_response(await request.app[PURCHASES].list_totals(user_id))


@routes.get("/purchases/{id}")
@described("A purchase, and its steps.", answer=PurchaseWithSteps, reads_rows=True, codes={"purchase_not_found": 404})
async def get_purchase(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    purchase_id = path_id(request, "id", "purchase_not_found")
    found = await request.app[PURCHASES].get_purchase(purchase_id)
    try:
        await check_shown(request, found.purchase.user_id)
    except NotFound:
        raise NotFound("purchase_not_found", f"there is no purchase {purchase_id}") from None
    return json_response(found)
