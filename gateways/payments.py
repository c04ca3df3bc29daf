"""Payments over REST, and what the payment provider tells of them."""

import math
import time
from collections import Counter
from typing import Any, Final

import structlog
from aiohttp import web
from msgspec import UNSET, UnsetType
from prometheus_client import Counter as Metric

from coordinator import (
    CommandFailed,
    CommandPending,
    CommandRejected,
    Id,
    InvalidCommand,
    NotFound,
    Page,
    Unavailable,
    system_command_id,
)
from coordinator.client import WriteOptions
from coordinator.http import (
    CONTEXT,
    JSON_TYPES,
    Dependencies,
    Gateway,
    NoQuery,
    PageQuery,
    RequestRefused,
    described,
    issue,
    join_trace,
    json_response,
    may_see,
    open_to_all,
    path_command,
    path_id,
    read_body,
    read_command,
    read_query,
    representation,
    rows_for,
    written_response,
)
from coordinator.settings import load
from gateways.problem_codes import PROBLEMS
from shared.payments import SERVICE
from shared.payments.commands import CapturePayment, OpenPayment, RefundPayment, ReversePayment
from shared.payments.model import Payment, Refund
from shared.payments.results import TakeProviderEvent
from shared.payments.rules import SHOWN_PAYMENTS
from shared.payments.service import PaymentService
from shared.payments.settings import StripeSettings
from shared.payments.stripe_metadata import MetadataKey
from shared.payments.stripe_webhooks import ProviderEvent, WebhookRefused, verify_webhook

PAYMENTS: Final = web.AppKey("PAYMENTS", PaymentService)
BEFORE_THE_PROVIDER: Final = (
    "It is answered when it is committed, before the provider has answered: read the payment until `pending_action` is "
    "null, then look at its `status`."
)
NOT_FOUND: Final = {"payment_not_found": 404}
STRIPE: Final = web.AppKey("STRIPE", StripeSettings)
IGNORED: Final[web.AppKey["IgnoredEvents"]] = web.AppKey("IGNORED")
IGNORED_EVENTS: Final = Metric(
    "coordinator_gateway_events_ignored_total", "Events of Stripe's that are not for us.", ["reason"]
)
_LINE_S: Final = 60.0
_KNOWN_WITHIN_S: Final = 30 * 3600
"""How long a payment may not be known by its id at the provider: a day for its hold, and some hours for late events."""

log = structlog.get_logger("gateway")

routes = web.RouteTableDef()


class IgnoredEvents:
    """Those that are not for us. Counted; a line a minute says so, since another system's may be many."""

    def __init__(self) -> None:
        self._since: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}

    def note(self, reason: str, event: ProviderEvent | None) -> None:
        """One more. `event` is shown, where it is one that names a payment."""
        IGNORED_EVENTS.labels(reason).inc()
        self._since[reason] += 1
        now = time.monotonic()
        if now - self._logged_at.get(reason, -math.inf) < _LINE_S:
            return
        shown = {} if event is None else {"event_id": event.id, "type": event.type, "provider_id": event.provider_id}
        log.info("events_ignored", reason=reason, events=self._since.pop(reason), **shown)
        self._logged_at[reason] = now


class WebhooksNotConfigured(Unavailable):
    """Raised for an event that cannot be checked; Stripe sends it again for days."""

    code = "webhooks_not_configured"


class PaymentNotKnownYet(Unavailable):
    """Raised for an event whose payment may be ours, though nothing tells that yet; Stripe sends it again for days."""

    code = "payment_not_known_yet"


class PaymentsQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which payments: of one user, or of all."""

    user_id: Id | UnsetType = UNSET


@routes.post("/payments")
@described(
    f"{BEFORE_THE_PROVIDER} Without a `payment_method` the provider is not asked, and the payment stays `pending` "
    "until it is reversed. Any `user_id` is taken: no lane looks into another's database.",
    command=OpenPayment,
    example={"user_id": 1, "amount": 9900, "currency": "EUR", "payment_method": "pm_card_visa"},
    statuses=(201,),
)
async def open_payment(request: web.Request) -> web.Response:
    command = await read_command(request, OpenPayment)
    written = await issue(request, request.app[PAYMENTS].open_payment, command)
    return written_response(written, status=201, location=_location(written.value.id))


@routes.get("/payments")
@described(
    "One's own payments, for the scope `payments` all, or those of one user, in pages.",
    query=PaymentsQuery,
    answer=Page[Payment],
    reads_rows=True,
)
async def list_payments(request: web.Request) -> web.Response:
    query = read_query(request, PaymentsQuery)
    user_id = None if query.user_id is UNSET else query.user_id
    shown = rows_for(request, SHOWN_PAYMENTS)
    return json_response(await request.app[PAYMENTS].list_payments(user_id, query.after, query.limit, shown))


@routes.get("/payments/{id}")
@described("One payment.", answer=Payment, reads_rows=True, codes=NOT_FOUND)
async def get_payment(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    return representation(request, await _shown_payment(request))


@routes.post("/payments/{id}/capture")
@described(
    f"{BEFORE_THE_PROVIDER} Where somebody took a part of the amount in the provider's dashboard, the payment is "
    "`captured` too, and its `captured` says how much.",
    command=CapturePayment,
)
async def capture_payment(request: web.Request) -> web.Response:
    command = path_command(request, CapturePayment, {"id": _payment_id(request)})
    written = await issue(request, request.app[PAYMENTS].capture_payment, command)
    return written_response(written, content_location=_location(written.value.id))


@routes.post("/payments/{id}/reversal")
@described(
    f"{BEFORE_THE_PROVIDER} Where nothing was done, it is applied without an effect; of a payment that is voided "
    "already it does not even write a new version.",
    command=ReversePayment,
)
async def reverse_payment(request: web.Request) -> web.Response:
    command = path_command(request, ReversePayment, {"id": _payment_id(request)})
    written = await issue(request, request.app[PAYMENTS].reverse_payment, command)
    return written_response(written, content_location=_location(written.value.id))


@routes.post("/payments/{id}/refunds")
@described(
    f"{BEFORE_THE_PROVIDER} Without a body it gives back all that is left.",
    command=RefundPayment,
    example={"amount": 100},
    is_body_optional=True,
    statuses=(201,),
)
async def refund_payment(request: web.Request) -> web.Response:
    """Without a body, all that is left."""
    path = {"id": _payment_id(request)}
    if request.body_exists:
        command = await read_command(request, RefundPayment, path)
    else:
        command = path_command(request, RefundPayment, path)
    written = await issue(request, request.app[PAYMENTS].refund_payment, command)
    location = f"{_location(written.value.payment_id)}/refunds/{written.value.id}"
    return written_response(written, status=201, location=location)


@routes.get("/payments/{id}/refunds")
@described(
    "The refunds of a payment, in pages.", query=PageQuery, answer=Page[Refund], reads_rows=True, codes=NOT_FOUND
)
async def list_refunds(request: web.Request) -> web.Response:
    query = read_query(request, PageQuery)
    payment = await _shown_payment(request)
    return json_response(await request.app[PAYMENTS].list_refunds(payment.id, query.after, query.limit))


@routes.get("/payments/{id}/refunds/{refund_id}")
@described("One refund.", answer=Refund, reads_rows=True, codes={**NOT_FOUND, "refund_not_found": 404})
async def get_refund(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    refund_id = path_id(request, "refund_id", "refund_not_found")
    payment = await _shown_payment(request)
    return json_response(await request.app[PAYMENTS].get_refund(payment.id, refund_id))


@routes.post("/webhooks/stripe")
@open_to_all
@described(
    "Takes an event about payments, from Stripe or the sandbox.",
    body="an event of Stripe's",
    body_types={"application/json": dict[str, Any]},
    query=None,
    headers=("Stripe-Signature",),
    answer_headers=("Command-Id", "Command-Sequence"),
    codes={
        "broker_unavailable": 503,
        "database_unavailable": 503,
        "outcome_unknown": 503,
        "bad_signature": 400,
        "stale": 400,
        "malformed": 400,
        "webhooks_not_configured": 503,
        "payment_not_known_yet": 503,
    },
)
async def take_stripe_event(request: web.Request) -> web.Response:
    """200 once the event is safe in the lane's queue, and for one that is not for us: Stripe need not send it again.

    The command's id stands for the event's, so it is applied once however often it is delivered; it is of the system's
    form, so that no client can take it away from the event.
    """
    payload = await read_body(request, JSON_TYPES, "an event of Stripe's")
    event = _verified(request, payload)
    if event is None:
        request.app[IGNORED].note("tells_nothing", None)
        return web.Response()
    payment_id = await _ours(request.app[PAYMENTS], event)
    if payment_id is None:
        _check_not_ours(event)
        request.app[IGNORED].note("not_ours", event)
        return web.Response()
    context = request[CONTEXT]
    command_id = context.stages.command_id = system_command_id(SERVICE.name, "stripe", event.id)
    context.is_repeatable = True
    trace = join_trace(request, event.traceparent)
    options = WriteOptions(command_id=command_id, wait_s=0, traceparent=trace.traceparent, tracestate=trace.tracestate)
    context.stages.end("validate")
    try:
        await request.app[PAYMENTS].take_event(_command_of(event, payment_id), options)
    except CommandPending:
        pass
    except (InvalidCommand, CommandRejected, CommandFailed) as error:
        # Repeated it would be refused again: it is for the reader of the log, and not for Stripe.
        log.warning("event_refused", event_id=event.id, type=event.type, code=error.code, reason=str(error))
    return web.Response()


def _verified(request: web.Request, payload: bytes) -> ProviderEvent | None:
    """Raises RequestRefused (400) for what Stripe did not sign just now, and WebhooksNotConfigured."""
    settings = request.app[STRIPE]
    if settings.webhook_secret is None or not settings.webhook_secret.get_secret_value():
        raise WebhooksNotConfigured("events cannot be checked without STRIPE_WEBHOOK_SECRET, which is unset")
    signatures = request.headers.getall("Stripe-Signature", ())
    if len(signatures) > 1:
        raise RequestRefused(400, "bad_signature", "Stripe-Signature must be given once", field="Stripe-Signature")
    try:
        event = verify_webhook(payload, next(iter(signatures), None), settings)
    except WebhookRefused as error:
        raise RequestRefused(400, error.code, str(error), field=error.field) from None
    return event


async def _ours(payments: PaymentService, event: ProviderEvent) -> int | None:
    """The payment that the event is about, if that is ours: our mark says so, or it is known to be this one there.

    The lane looks again. Raises DatabaseUnavailable: Stripe sends it again.
    """
    if event.is_signed:
        return event.payment_id
    try:
        if event.payment_id is None:
            return (await payments.get_payment_known_as(event.provider_id)).id
        payment = await payments.get_payment(event.payment_id)
    except NotFound:
        return None
    return payment.id if payment.provider_id == event.provider_id else None


def _check_not_ours(event: ProviderEvent) -> None:
    """Raises PaymentNotKnownYet for a refund that came back, of a payment that we may not know by that id yet.

    If somebody made it in the provider's dashboard it has no metadata: nothing else tells whose it is.
    """
    is_without_number = event.kind == "refund_failed" and event.payment_id is None
    if is_without_number and time.time() - event.created_s < _KNOWN_WITHIN_S:
        text = f"no payment is known as {event.provider_id} yet; if it is of another system, all is well in some hours"
        raise PaymentNotKnownYet(text)


def _command_of(event: ProviderEvent, payment_id: int) -> TakeProviderEvent:
    return TakeProviderEvent(
        event_id=event.id,
        kind=event.kind,
        id=payment_id,
        provider_id=event.provider_id,
        is_signed=event.is_signed,
        currency=event.currency,
        amount=event.amount,
        amount_captured=event.amount_captured,
        amount_refunded=event.amount_refunded,
        refund_id=event.refund_id,
        refund_number=event.refund_number,
        code=event.error_code,
        created_s=event.created_s,
    )


async def _shown_payment(request: web.Request) -> Payment:
    """The payment. Raises NotFound for one that whoever asks may not see, as for one that does not exist."""
    payment_id = _payment_id(request)
    payment = await request.app[PAYMENTS].get_payment(payment_id)
    if not may_see(request, SHOWN_PAYMENTS, payment):
        raise NotFound("payment_not_found", f"there is no payment {payment_id}")
    return payment


def _payment_id(request: web.Request) -> int:
    return path_id(request, "id", "payment_not_found")


def _location(payment_id: int) -> str:
    return f"/payments/{payment_id}"


def attach(app: web.Application, dependencies: Dependencies) -> None:
    """Raises ConfigurationError."""
    app[PAYMENTS] = PaymentService(dependencies.sql(), dependencies.writes)
    app[STRIPE] = settings = load(StripeSettings)
    if settings.webhook_secret is not None and settings.webhook_secret.get_secret_value():
        MetadataKey(settings)  # where events are taken, they must be told from those of others
    app[IGNORED] = IgnoredEvents()


GATEWAY: Final = Gateway(
    name="payments",
    routes=routes,
    attach=attach,
    commands=SERVICE.commands,
    upgrades=SERVICE.declared_upgrades,
    reads=SERVICE.models,
    problems=PROBLEMS,
    is_system=True,
)
