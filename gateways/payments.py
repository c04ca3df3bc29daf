"""Payments over REST."""

from typing import Final

from aiohttp import web
from msgspec import UNSET, UnsetType

from gateways import webhooks
from gateways.app import Dependencies, Gateway
from gateways.requests import NoQuery, PageQuery, issue, path_command, path_id, read_command, read_query
from gateways.responses import json_response, representation, written_response
from gateways.webhooks import PAYMENTS, STRIPE
from shared.commands import Id
from shared.payments import SERVICE
from shared.payments.commands import CapturePayment, OpenPayment, RefundPayment, ReversePayment
from shared.payments.service import PaymentService
from shared.settings import StripeSettings, load

routes = web.RouteTableDef()


class PaymentsQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which payments: of one user, or of all."""

    user_id: Id | UnsetType = UNSET


@routes.post("/payments")
async def open_payment(request: web.Request) -> web.Response:
    command = await read_command(request, OpenPayment)
    written = await issue(request, request.app[PAYMENTS].open_payment, command)
    return written_response(written, status=201, location=f"/payments/{written.value.id}")


@routes.get("/payments")
async def list_payments(request: web.Request) -> web.Response:
    query = read_query(request, PaymentsQuery)
    user_id = None if query.user_id is UNSET else query.user_id
    return json_response(await request.app[PAYMENTS].list_payments(user_id, query.after, query.limit))


@routes.get("/payments/{id}")
async def get_payment(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    return representation(request, await request.app[PAYMENTS].get_payment(_payment_id(request)))


@routes.get("/payments/{id}/refunds")
async def list_refunds(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    return json_response(await request.app[PAYMENTS].list_refunds(_payment_id(request)))


@routes.post("/payments/{id}/capture")
async def capture_payment(request: web.Request) -> web.Response:
    """The provider is asked, and the payment is `captured` once it has answered: see GET."""
    command = path_command(request, CapturePayment, {"id": _payment_id(request)})
    return written_response(await issue(request, request.app[PAYMENTS].capture_payment, command), status=202)


@routes.post("/payments/{id}/reversal")
async def reverse_payment(request: web.Request) -> web.Response:
    """As capture: what is held is let go, what was taken is given back."""
    command = path_command(request, ReversePayment, {"id": _payment_id(request)})
    return written_response(await issue(request, request.app[PAYMENTS].reverse_payment, command), status=202)


@routes.post("/payments/{id}/refunds")
async def refund_payment(request: web.Request) -> web.Response:
    command = await read_command(request, RefundPayment, {"id": _payment_id(request)})
    written = await issue(request, request.app[PAYMENTS].refund_payment, command)
    return written_response(written, status=201, location=f"/payments/{command.id}/refunds")


def _payment_id(request: web.Request) -> int:
    return path_id(request, "id", "payment_not_found")


def attach(app: web.Application, dependencies: Dependencies) -> None:
    app[PAYMENTS] = PaymentService(dependencies.sql(), dependencies.writes)
    app[STRIPE] = load(StripeSettings)


GATEWAY: Final = Gateway(name="payments", routes=(*routes, *webhooks.routes), attach=attach, commands=SERVICE.commands)
