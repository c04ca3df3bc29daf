"""What the payment provider sends by itself: a part of the payments gateway."""

import time
from contextlib import suppress
from typing import Any, Final, Literal

import structlog
from aiohttp import web

from gateways.problems import RequestRefused
from gateways.requests import JSON_TYPES, NoQuery, read_body, read_query
from gateways.responses import json_response
from shared.errors import CommandFailed, CommandPending, CommandRejected
from shared.ids import command_id_for
from shared.messaging.writes import WriteOptions
from shared.payments.commands import ProviderEvent
from shared.payments.service import PaymentService
from shared.settings import StripeSettings

log = structlog.get_logger("webhooks")

PAYMENTS: Final = web.AppKey("PAYMENTS", PaymentService)
STRIPE: Final = web.AppKey("STRIPE", StripeSettings)

_Event = Literal["authorized", "declined", "captured", "voided", "refunded"]
EVENTS: Final[dict[str, _Event]] = {
    "payment_intent.amount_capturable_updated": "authorized",
    "payment_intent.payment_failed": "declined",
    "payment_intent.succeeded": "captured",
    "payment_intent.canceled": "voided",
    "charge.refunded": "refunded",
}
"""The types that tell anything of a payment; others are taken, and nothing is done for them."""

routes = web.RouteTableDef()


@routes.post("/webhooks/stripe")
async def stripe_webhook(request: web.Request) -> web.Response:
    """200 once the event is safe in the lane's queue. Its id is the command's: delivered again, it changes nothing.

    What comes of it is in the command log; the provider is not to send it again because a payment is unknown.
    """
    read_query(request, NoQuery)
    said = await _verified(request)
    event = EVENTS.get(said.type)
    if event is None or said.payment_id is None or said.provider_id is None:
        log.info("webhook_ignored", event_id=said.event_id, type=said.type)
        return json_response({"received": True})
    command = ProviderEvent(
        id=said.payment_id,
        event=event,
        provider_id=said.provider_id,
        captured=(said.amount or 0) if event == "captured" else 0,
        refunded=(said.amount or 0) if event == "refunded" else 0,
        code=said.error_code,
        message=said.error_message,
    )
    options = WriteOptions(command_id=command_id_for(command.lane(), said.event_id), wait_s=0)
    with suppress(CommandPending, CommandRejected, CommandFailed):
        await request.app[PAYMENTS].provider_said(command, options)
    return json_response({"received": True})


async def _verified(request: web.Request) -> Any:
    """The event. Raises RequestRefused for what is not to be believed."""
    # Stripe's package is large, and the other gateways need none of it.
    from shared.payments.stripe_webhooks import WebhookRefused, verify_webhook  # noqa: PLC0415

    settings = request.app[STRIPE]
    if settings.webhook_secret is None:
        raise RequestRefused(
            503, "webhooks_not_configured", "this gateway has no STRIPE_WEBHOOK_SECRET to check signatures with"
        )
    body = await read_body(request, JSON_TYPES, "an event of Stripe's")
    try:
        return verify_webhook(
            body,
            request.headers.get("Stripe-Signature"),
            secret=settings.webhook_secret.get_secret_value(),
            tolerance_s=settings.webhook_tolerance_s,
            now_s=time.time(),
        )
    except WebhookRefused as refused:
        raise RequestRefused(400, refused.code, str(refused), field="Stripe-Signature") from None
