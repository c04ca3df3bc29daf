"""Only what Stripe signed, lately and with our secret, is believed."""

import json
import time
from typing import Any

import pytest
from pydantic import SecretStr

from coordinator.service.errors import ConfigurationError
from shared.payments.sandbox.webhooks import signature
from shared.payments.settings import StripeSettings
from shared.payments.stripe_metadata import MetadataKey
from shared.payments.stripe_webhooks import ProviderEvent, WebhookRefused, verify_webhook

SECRET = "whsec_test"
KEY = "the key of this deployment"
SETTINGS = StripeSettings(webhook_secret=SecretStr(SECRET), metadata_key=SecretStr(KEY), webhook_tolerance_s=300)
OURS = MetadataKey(SETTINGS).metadata(7, "k")
INTENT = {
    "id": "pi_1",
    "object": "payment_intent",
    "amount": 1099,
    "amount_received": 0,
    "currency": "eur",
    "last_payment_error": None,
    "latest_charge": "ch_1",
    "metadata": OURS,
    "status": "requires_capture",
}
CHARGE = {
    "id": "ch_1",
    "object": "charge",
    "amount": 1099,
    "amount_captured": 1099,
    "amount_refunded": 400,
    "currency": "eur",
    "metadata": OURS,
    "payment_intent": "pi_1",
    "status": "succeeded",
}
REFUND = {
    "id": "re_1",
    "amount": 400,
    "currency": "eur",
    "failure_reason": "lost_or_stolen_card",
    "metadata": OURS,
    "payment_intent": "pi_1",
    "status": "failed",
}


def event(event_type: str, thing: dict[str, Any]) -> bytes:
    return json.dumps(
        {"id": "evt_1", "object": "event", "created": 1790000000, "type": event_type, "data": {"object": thing}}
    ).encode()


AUTHORIZED = event("payment_intent.amount_capturable_updated", INTENT)


def now_s() -> int:
    return int(time.time())


def read(payload: bytes, header: str | None = None) -> ProviderEvent | None:
    return verify_webhook(payload, signature(payload, SECRET, now_s()) if header is None else header, SETTINGS)


def received(payload: bytes) -> ProviderEvent:
    """One that is about a payment of ours."""
    event = read(payload)
    assert event is not None
    return event


def test_an_authorization_is_read() -> None:
    assert received(AUTHORIZED) == ProviderEvent(
        id="evt_1",
        type="payment_intent.amount_capturable_updated",
        kind="authorized",
        created_s=1790000000,
        payment_id=7,
        is_signed=True,
        provider_id="pi_1",
        status="requires_capture",
        currency="EUR",
        amount=1099,
    )


def test_every_kind_is_read_with_its_payment_and_its_amounts() -> None:
    captured = received(event("payment_intent.succeeded", INTENT | {"status": "succeeded", "amount_received": 1000}))
    assert (captured.kind, captured.amount, captured.amount_captured) == ("captured", 1099, 1000)
    voided = received(event("payment_intent.canceled", INTENT | {"status": "canceled"}))
    assert (voided.kind, voided.amount_captured) == ("voided", 0)
    error = {"code": "card_declined", "decline_code": "lost_card", "message": "no"}
    declined = received(event("payment_intent.payment_failed", INTENT | {"last_payment_error": error}))
    assert (declined.kind, declined.error_code) == ("declined", "lost_card")
    refunded = received(event("charge.refunded", CHARGE))
    assert (refunded.kind, refunded.provider_id, refunded.payment_id) == ("refunded", "pi_1", 7)
    assert (refunded.amount, refunded.amount_captured, refunded.amount_refunded) == (1099, 1099, 400)
    failed = received(event("refund.failed", REFUND))
    assert (failed.kind, failed.provider_id, failed.amount) == ("refund_failed", "pi_1", 400)
    assert failed.error_code == "lost_or_stolen_card"


@pytest.mark.parametrize(
    "metadata",
    [
        {"payment_id": "7"},
        OURS | {"payment_id": "8"},
        OURS | {"payment_id": "07"},
        OURS | {"payment_digest": ""},
        OURS | {"payment_digest": OURS["payment_digest"][:-1] + "é"},
        MetadataKey(StripeSettings(metadata_key=SecretStr("another deployment's key"))).metadata(7, "k"),
    ],
    ids=["none", "of another payment", "of another text", "empty", "not ASCII", "of another deployment"],
)
@pytest.mark.parametrize("kind", ["payment_intent.succeeded", "charge.refunded", "refund.failed"])
def test_what_this_deployment_did_not_mark_is_not_signed(kind: str, metadata: dict[str, str]) -> None:
    thing = {"payment_intent.succeeded": INTENT, "charge.refunded": CHARGE, "refund.failed": REFUND}[kind]
    assert received(event(kind, thing)).is_signed
    other = read(event(kind, thing | {"metadata": metadata}))
    assert other is None or not other.is_signed


@pytest.mark.parametrize(
    ("metadata", "number"),
    [
        (MetadataKey(SETTINGS).metadata(7, "k", 3), 3),
        (OURS, None),
        (OURS | {"refund_id": "03"}, None),
        (OURS | {"refund_id": "3", "payment_id": "8"}, None),
        (OURS | {"refund_id": "3", "payment_digest": ""}, None),
        ({"refund_id": "3"}, None),
        (None, None),
    ],
    ids=["ours", "of an earlier release", "no number", "of another payment", "without the mark", "alone", "by hand"],
)
def test_which_refund_came_back_its_metadata_say_if_they_bear_our_mark(
    metadata: dict[str, str] | None, number: int | None
) -> None:
    failed = received(event("refund.failed", REFUND | {"metadata": metadata}))
    assert (failed.refund_id, failed.refund_number) == ("re_1", number)


def test_amounts_are_in_minor_units_of_iso_4217() -> None:
    captured = received(event("payment_intent.succeeded", INTENT | {"currency": "isk", "amount": 500}))
    assert (captured.amount, captured.currency) == (5, "ISK")


@pytest.mark.parametrize(
    "payload",
    [
        event("payment_intent.created", INTENT),
        event("customer.created", {"id": "cus_1"}),
        event("payment_intent.succeeded", INTENT | {"metadata": {}}),
        event("payment_intent.succeeded", INTENT | {"metadata": {"payment_id": "order-7"}}),
        event("charge.refunded", CHARGE | {"payment_intent": None}),
    ],
)
def test_what_is_not_about_a_payment_of_ours_is_ignored(payload: bytes) -> None:
    assert read(payload) is None


@pytest.mark.parametrize(
    ("payload", "header"),
    [
        (AUTHORIZED.replace(b"1099", b"9999"), signature(AUTHORIZED, SECRET, now_s())),
        (AUTHORIZED, signature(AUTHORIZED, "whsec_other", now_s())),
        (AUTHORIZED, signature(AUTHORIZED, SECRET, now_s() - 10).replace(f"t={now_s() - 10}", f"t={now_s()}")),
        (AUTHORIZED, ""),
        (AUTHORIZED, "nonsense"),
        (AUTHORIZED, f"t={now_s()}"),
        (AUTHORIZED, "t=soon,v1=ab"),
        (AUTHORIZED, signature(AUTHORIZED, SECRET, now_s()).replace("v1=", "v0=")),
    ],
    ids=["tampered", "other secret", "other time", "none", "nonsense", "no signature", "no time", "other scheme"],
)
def test_what_is_not_signed_with_our_secret_is_refused(payload: bytes, header: str | None) -> None:
    with pytest.raises(WebhookRefused, match="Stripe-Signature") as refused:
        read(payload, header)
    assert refused.value.code == "bad_signature"


def test_no_header_at_all_is_refused() -> None:
    with pytest.raises(WebhookRefused, match="Stripe-Signature"):
        verify_webhook(AUTHORIZED, None, SETTINGS)


def test_while_a_secret_is_rolled_one_good_signature_of_two_is_enough() -> None:
    good = signature(AUTHORIZED, SECRET, now_s()).partition("v1=")[2]
    assert read(AUTHORIZED, f"t={now_s()},v1={'0' * 64},v1={good}") is not None


@pytest.mark.parametrize(("age_s", "fresh"), [(290, True), (310, False), (-290, True), (-310, False)])
def test_an_event_is_believed_for_as_long_as_the_tolerance_lasts(age_s: int, fresh: bool) -> None:
    header = signature(AUTHORIZED, SECRET, now_s() - age_s)
    if fresh:
        assert read(AUTHORIZED, header) is not None
    else:
        with pytest.raises(WebhookRefused, match="STRIPE_WEBHOOK_TOLERANCE_S") as refused:
            read(AUTHORIZED, header)
        assert refused.value.code == "stale"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        AUTHORIZED.replace(b'"pi_1"', b'"pi_2", "id": "pi_1"'),
        AUTHORIZED.replace(b"1790000000", b"NaN"),
        b"\xef\xbb\xbf" + AUTHORIZED,
        AUTHORIZED.decode().encode("utf-16"),
        b'{"type": ["payment_intent.succeeded"]}',
        b'{"type": "payment_intent.succeeded"}',
        event("payment_intent.succeeded", {"id": "pi_1"}),
        event("payment_intent.succeeded", INTENT | {"amount": 10.99}),
        event("payment_intent.succeeded", INTENT | {"currency": "zzz"}),
        event("payment_intent.succeeded", INTENT | {"currency": "isk"}),
    ],
)
def test_what_is_signed_and_still_no_event_is_refused_as_malformed(payload: bytes) -> None:
    with pytest.raises(WebhookRefused) as refused:
        read(payload)
    assert refused.value.code == "malformed"


def test_without_a_secret_nothing_is_believed() -> None:
    with pytest.raises(ConfigurationError, match="STRIPE_WEBHOOK_SECRET"):
        verify_webhook(AUTHORIZED, signature(AUTHORIZED, "", now_s()), StripeSettings())
    without_key = StripeSettings(webhook_secret=SecretStr(SECRET))
    with pytest.raises(ConfigurationError, match="STRIPE_METADATA_KEY"):
        verify_webhook(AUTHORIZED, signature(AUTHORIZED, SECRET, now_s()), without_key)


def test_the_trace_of_a_payment_is_believed_if_its_metadata_are_ours() -> None:
    trace = f"00-{'1' * 32}-{'a' * 16}-01"
    signed = MetadataKey(SETTINGS).metadata(7, "k", traceparent=trace)
    for metadata, found in ((signed, trace), (OURS, None), (signed | {"payment_digest": "0"}, None)):
        body = event("payment_intent.amount_capturable_updated", INTENT | {"metadata": metadata})
        read = verify_webhook(body, signature(body, SECRET, now_s()), SETTINGS)
        assert read is not None
        assert read.traceparent == found
