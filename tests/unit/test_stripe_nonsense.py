"""Whatever a third party answers or sends, something comes of it that can be told, and that the lane can store."""

import asyncio
import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from pydantic import SecretStr

from coordinator.effects.attempts import Attempts, PutOff
from coordinator.protocol.attempted import Attempted
from coordinator.runtime.settings import EffectSettings
from coordinator.service.commands import Command, validated
from coordinator.service.outside_calls import EffectRetry
from shared.payments import stripe_http
from shared.payments.commands import CapturePayment, RefundPayment, ReversePayment
from shared.payments.effects import PaymentEffects
from shared.payments.results import AuthorizeResult, RefundResult
from shared.payments.sandbox.webhooks import signature
from shared.payments.settings import StripeSettings
from shared.payments.stripe_errors import StripeRefused
from shared.payments.stripe_metadata import MetadataKey
from shared.payments.stripe_provider import StripeProvider
from shared.payments.stripe_webhooks import ProviderEvent, WebhookRefused, verify_webhook
from tests.support.examples import examples
from tests.support.payment_lane import AMOUNT, PROVIDER_ID, PaymentLane

SECRET = "whsec_test"
SETTINGS = StripeSettings(
    api_key=SecretStr("sk_test"), metadata_key=SecretStr("k" * 32), webhook_secret=SecretStr(SECRET)
)
OURS = MetadataKey(SETTINGS).metadata(1, "key", 1)
BAD_TEXTS = ("Your card\x00 was declined", "half \ud83d", "x" * 3_000_000, "\x00" * 600, "ΩΩ")
TEXTS = st.sampled_from(BAD_TEXTS) | st.text(st.characters(exclude_categories=()), max_size=5)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**30) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=3,
)
STATUSES = st.sampled_from(
    ["requires_capture", "succeeded", "canceled", "processing", "requires_action", "requires_payment_method", "failed"]
)
ERRORS = st.fixed_dictionaries({}, optional={"code": JUNK, "decline_code": JUNK, "message": JUNK, "type": JUNK})
THINGS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just(PROVIDER_ID) | JUNK,
        "status": STATUSES | JUNK,
        "amount": st.just(AMOUNT) | JUNK,
        "amount_received": st.just(AMOUNT) | JUNK,
        "amount_refunded": st.just(300) | JUNK,
        "currency": st.just("eur") | JUNK,
        "metadata": st.just(OURS) | JUNK,
        "last_payment_error": ERRORS | JUNK,
        "failure_reason": JUNK,
        "latest_charge": st.fixed_dictionaries(
            {"object": st.just("charge")}, optional={"amount_refunded": st.just(300) | JUNK, "currency": st.just("eur")}
        )
        | JUNK,
    },
)
BODIES = (
    THINGS
    | st.fixed_dictionaries({"error": ERRORS | JUNK})
    | st.fixed_dictionaries({"data": st.lists(THINGS, max_size=2) | JUNK, "has_more": st.just(False) | JUNK})
    | JUNK
)
ACTIONS = ("authorize", "capture", "void", "refund")


def waiting_for(action: str) -> PaymentLane:
    lane = PaymentLane()
    if action == "authorize":
        lane.opened()
    elif action == "refund":
        lane.captured()
        lane.applied(RefundPayment(id=1, amount=300))
    else:
        lane.authorized()
        lane.applied(CapturePayment(id=1) if action == "capture" else ReversePayment(id=1))
    return lane


def answering(*answers: tuple[int, bytes, dict[str, str]]) -> StripeProvider:
    """A provider whose calls are answered so, one after another; the last answer stays."""
    provider = StripeProvider(SETTINGS)
    left = list(answers)

    async def request(*_: object, **__: object) -> Any:
        status, body, headers = left.pop(0) if len(left) > 1 else left[0]
        return body, status, headers

    provider._http.request_async = request  # type: ignore[method-assign]
    return provider


async def told(provider: StripeProvider, lane: PaymentLane) -> Command | str:
    """What comes of the call that the lane has asked for: a result, or why it is made again."""
    effects = PaymentEffects(provider)
    (handler,) = (each for each in effects.handlers if each.effect is type(lane.calls[-1]))
    now_s = datetime.now(UTC).timestamp()
    attempted = Attempted(asked_at_s=now_s, first_at_s=now_s, may_have_happened=True)
    attempts = Attempts("payments", EffectSettings(), lambda: 1.0)
    done = await attempts.attempt(handler, lane.calls[-1], "key", attempted)
    return attempted.reason if isinstance(done, PutOff) else done.command


ANSWERS = st.tuples(
    st.sampled_from([200, 400, 402, 404, 409, 429, 500]),
    BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=5) | st.just(b'{"a":' * 5000),
    st.sampled_from([{}, {"Idempotent-Replayed": "true"}, {"Retry-After": "9" * 400}]),
)


@pytest.mark.properties
@examples(150, HealthCheck.too_slow, HealthCheck.data_too_large)
@given(action=st.sampled_from(ACTIONS), answers=st.lists(ANSWERS, min_size=1, max_size=3))
def test_of_every_answer_something_comes_that_can_be_told_and_that_the_lane_takes(
    action: str, answers: list[tuple[int, bytes, dict[str, str]]]
) -> None:
    lane = waiting_for(action)
    what = asyncio.run(told(answering(*answers), lane))
    if isinstance(what, str):
        assert len(what) <= 500
        assert "\x00" not in what
        what.encode()
        return
    assert len(validated(what)[1]) < 10_000
    outcome = lane.do(what)
    assert outcome.status == "applied", outcome.error


@pytest.mark.parametrize("text", BAD_TEXTS)
@pytest.mark.parametrize("action", ["authorize", "refund"])
def test_a_refusal_with_a_bad_text_is_a_refusal(action: str, text: str) -> None:
    body = json.dumps({"error": {"type": "card_error", "code": text, "message": text}}).encode()
    lane = waiting_for(action)
    result = asyncio.run(told(answering((200, b'{"data": [], "has_more": false}', {}), (402, body, {})), lane))
    if action == "authorize":  # it is looked for twice, by search and in the list
        empty: tuple[int, bytes, dict[str, str]] = (200, b'{"data": [], "has_more": false}', {})
        result = asyncio.run(told(answering(empty, empty, (402, body, {})), lane))
    assert isinstance(result, AuthorizeResult | RefundResult)
    assert len(result.message or "") <= 500
    assert len(result.code or "") <= 64
    lane.applied(result)
    assert lane.payment.pending_action is None
    assert lane.payment.status == ("declined" if action == "authorize" else "captured")


@pytest.mark.parametrize("text", ["Your card\x00 was declined", "x" * 1000, "\x01\u2028"])
def test_a_result_of_a_release_that_cleaned_no_text_is_taken_so_that_its_letter_can_be_replayed(text: str) -> None:
    lane = waiting_for("refund")
    lane.applied(RefundResult(id=1, refund_id=1, verdict="refund_failed", code="x\x00", message=text))
    assert (lane.payment.pending_action, lane.refunds[0].status) == (None, "failed")
    assert lane.refunds[0].reason_code == "x"


def test_a_refusal_is_clean_from_the_start() -> None:
    refused = StripeRefused("no\x00\ud83d", "half \ud83d" + "x" * 1000, by_issuer=True)
    assert (refused.code, len(str(refused))) == ("no", 500)
    str(refused).encode()


@pytest.mark.parametrize("status", [200, 500])
async def test_of_an_answer_without_end_no_more_is_read_than_stripe_ever_sends(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(stripe_http, "ANSWER_BYTES_MAX", 100_000)
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        while True:
            try:
                await response.write(b"x" * 10_000)
            except ConnectionError:
                return response
            sent += 10_000

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", endless)
    async with TestServer(app) as server:
        provider = StripeProvider(at(SETTINGS, str(server.make_url("")), timeout_s=10.0))
        try:
            with pytest.raises(EffectRetry, match="more than 100000 bytes") as retry:
                await provider.look_up_capture(payment_id=1, provider_id="pi_1")
        finally:
            await provider.close()
    assert retry.value.may_have_happened
    assert sent < 50_000_000


def at(given_settings: StripeSettings, api_base: str, **changed: Any) -> StripeSettings:
    return given_settings.model_copy(update={"api_base": api_base, **changed})


def received(body: object) -> ProviderEvent | None:
    payload = json.dumps(body).encode()
    return verify_webhook(payload, signature(payload, SECRET, int(time.time())), SETTINGS)


def event(thing: object, **changed: object) -> dict[str, object]:
    given_parts = {"id": "evt_1", "created": 1790000000, "type": "payment_intent.payment_failed"}
    return given_parts | {"data": {"object": thing}} | changed


INTENT = {"id": PROVIDER_ID, "amount": AMOUNT, "currency": "eur", "status": "succeeded", "metadata": OURS}


@pytest.mark.properties
@examples(150, HealthCheck.too_slow, HealthCheck.data_too_large)
@given(
    changed=THINGS,
    event_id=st.just("evt_1") | JUNK,
    kind=st.sampled_from(["payment_intent.payment_failed", "payment_intent.succeeded", "refund.failed"]) | JUNK,
)
def test_an_event_is_read_into_what_can_be_stored_or_refused(
    changed: dict[str, object], event_id: object, kind: object
) -> None:
    try:
        read = received(event(INTENT | {"payment_intent": PROVIDER_ID} | changed, id=event_id, type=kind))
    except WebhookRefused as error:
        code, text, read = error.code, str(error), None
    else:
        code, text = "malformed", ""
    assert (code, len(text.encode()) <= 2000) == ("malformed", True)
    if read is not None:
        texts = [read.id, read.provider_id, read.status, read.currency, read.refund_id or "", read.error_code or ""]
        assert all(len(text.encode()) <= 2000 and "\x00" not in text for text in texts)
        msgspec.json.encode(read)


@pytest.mark.parametrize(
    "changed",
    [
        {"last_payment_error": {"half \ud83d": None}},
        {"half \ud83d": 1},
        {"amount": "half \ud83d"},
        {"metadata": "\ud83d"},
    ],
    ids=["below", "name", "amount", "object"],
)
def test_an_event_with_half_a_surrogate_pair_is_read_or_refused(changed: dict[str, object]) -> None:
    with suppress(WebhookRefused):
        assert received(event(INTENT | {"payment_intent": PROVIDER_ID} | changed)) is not None


@pytest.mark.parametrize("field", ["id", "event_id"])
def test_an_event_whose_ids_are_none_is_refused(field: str) -> None:
    for text in ("re\x00", "re \ud83d", "x" * 256, ""):
        body = event(INTENT, id=text) if field == "event_id" else event(INTENT | {"id": text})
        with pytest.raises(WebhookRefused, match="is no id") as refused:
            received(body)
        assert refused.value.code == "malformed"
