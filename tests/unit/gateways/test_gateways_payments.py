"""What is asked of payments over REST, and the provider's events: genuine, repeated and hostile ones."""

import hashlib
import hmac
import json
import re
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import structlog
from aiohttp import web
from multidict import CIMultiDict
from pydantic import SecretStr
from structlog.testing import capture_logs

from coordinator.service.errors import BrokerUnavailable, CommandPending, ConfigurationError
from coordinator.service.ids import command_id_for, is_system_id
from gateways.payments import IGNORED_EVENTS, PAYMENTS, STRIPE, attach
from shared.payments.model import Payment
from shared.payments.settings import StripeSettings
from shared.payments.stripe_metadata import MetadataKey
from tests.unit.gateways.conftest import RunningGateway
from tests.unit.gateways.gateway_fakes import PAYMENT, REFUND, refused

SECRET = "whsec_test"
SETTINGS = StripeSettings(webhook_secret=SecretStr(SECRET), metadata_key=SecretStr("the key of this deployment"))
OURS = MetadataKey(SETTINGS).metadata(9, "k")


@pytest.fixture
def hooked(payments: RunningGateway) -> RunningGateway:
    """A gateway that knows the secret."""
    payments.app._state[STRIPE] = SETTINGS
    return payments


def intent(event_type: str = "payment_intent.succeeded", **changed: Any) -> bytes:
    thing = {
        "id": "pi_1",
        "object": "payment_intent",
        "amount": 100,
        "amount_received": 100,
        "currency": "eur",
        "status": "succeeded",
        "metadata": OURS,
    }
    event = {"id": "evt_1", "created": 1_700_000_000, "type": event_type, "data": {"object": thing | changed}}
    return json.dumps(event).encode()


def signed(body: bytes, *, secret: str = SECRET, age_s: int = 0) -> str:
    at_s = int(time.time()) - age_s
    digest = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


async def deliver(gateway: RunningGateway, body: bytes, signature: str | None = None, **more: str) -> tuple[Any, Any]:
    headers = more | {"Content-Type": "application/json; charset=utf-8"}
    headers["Stripe-Signature"] = signed(body) if signature is None else signature
    return await gateway.call("POST", "/webhooks/stripe", data=body, headers=headers)


class TestEvents:
    async def test_an_event_becomes_a_command_whose_id_is_the_events(self, hooked: RunningGateway) -> None:
        hooked.writes.error = lambda message: CommandPending(message.command_id or "")
        for _ in range(5):
            response, _ = await deliver(hooked, intent())
            assert response.status == 200
        assert len({message.command_id for _, message, _ in hooked.writes.issued}) == 1
        assert hooked.writes.last.type == "payments.provider_event"
        assert hooked.writes.last.origin == "system"
        assert hooked.writes.last_wait_s == 0
        assert msgspec.json.decode(hooked.writes.last.arguments) == {
            "event_id": "evt_1",
            "kind": "captured",
            "id": 9,
            "provider_id": "pi_1",
            "is_signed": True,
            "currency": "EUR",
            "amount": 100,
            "amount_captured": 100,
            "created_s": 1_700_000_000,
        }

    async def test_an_event_belongs_to_the_trace_of_its_payment(self, hooked: RunningGateway) -> None:
        trace = f"00-{'1' * 32}-{'a' * 16}-01"
        mine = f"00-{'2' * 32}-{'b' * 16}-01"
        for metadata, sent in (
            (OURS | {"traceparent": trace}, trace),
            (OURS | {"traceparent": "00-nonsense"}, mine),
            (OURS, mine),
        ):
            with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
                await deliver(hooked, intent(metadata=metadata), traceparent=mine)
            assert hooked.writes.last.traceparent == sent
            (line,) = (line for line in lines if line["event"] == "request")
            assert line["trace_id"] == sent[3:35]

    async def test_no_client_can_take_an_event_s_id(self, hooked: RunningGateway) -> None:
        await deliver(hooked, intent())
        assert is_system_id(hooked.writes.last.command_id or "")

    @pytest.mark.parametrize(
        "metadata",
        [
            {"payment_id": "9"},
            OURS | {"payment_digest": "0" * 64},
            MetadataKey(SETTINGS).metadata(8, "k") | {"payment_id": "9"},
        ],
        ids=["no mark", "a wrong mark", "the mark of another payment"],
    )
    async def test_another_system_s_event_with_our_number_is_ignored_and_counted(
        self, hooked: RunningGateway, metadata: dict[str, str]
    ) -> None:
        before = IGNORED_EVENTS.labels("not_ours")._value.get()
        with capture_logs() as lines:
            for _ in range(3):
                assert (await deliver(hooked, intent(id="pi_foreign", metadata=metadata)))[0].status == 200
            foreign = intent(id="pi_foreign", metadata=metadata | {"payment_id": "7"})
            assert (await deliver(hooked, foreign))[0].status == 200
        assert hooked.writes.issued == []
        assert IGNORED_EVENTS.labels("not_ours")._value.get() == before + 4
        assert [line["event"] for line in lines if line["event"] == "events_ignored"] == ["events_ignored"]

    async def test_an_event_of_a_payment_that_an_earlier_release_made_is_known_by_its_id(
        self, hooked: RunningGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def get_payment(_: int) -> Payment:
            return msgspec.structs.replace(PAYMENT, provider_id="pi_1")

        monkeypatch.setattr(hooked.app[PAYMENTS], "get_payment", get_payment)
        assert (await deliver(hooked, intent(metadata={"payment_id": "9"})))[0].status == 200
        assert b"is_signed" not in hooked.writes.last.arguments

    @pytest.mark.parametrize(("payment_intent", "issued"), [("pi_9", [9]), ("pi_foreign", []), (None, [])])
    async def test_a_refund_that_somebody_else_made_is_of_the_payment_that_the_provider_says(
        self, hooked: RunningGateway, payment_intent: str | None, issued: list[int]
    ) -> None:
        """Made in the provider's dashboard, it has none of our metadata."""
        rows = hooked.app[PAYMENTS]._payments
        rows.rows[9] = msgspec.structs.replace(PAYMENT, provider_id="pi_9")  # type: ignore[attr-defined]
        refund = {"id": "re_1", "object": "refund", "status": "failed", "metadata": {}, "failure_reason": "unknown"}
        body = intent("refund.failed", **refund, payment_intent=payment_intent)
        assert (await deliver(hooked, body))[0].status == 200
        assert [msgspec.json.decode(message.arguments)["id"] for _, message, _ in hooked.writes.issued] == issued

    @pytest.mark.parametrize(
        ("age_h", "number", "status"), [(0, None, 503), (29, None, 503), (31, None, 200), (0, "8", 200)]
    )
    async def test_a_refund_that_somebody_else_made_of_a_payment_that_nobody_knows_yet_is_sent_again(
        self, hooked: RunningGateway, age_h: int, number: str | None, status: int
    ) -> None:
        """Its hold's answer may be on its way. What has a number, and not our mark, is another system's."""
        refund = {"id": "re_1", "object": "refund", "status": "failed", "failure_reason": "unknown"}
        metadata = {} if number is None else {"payment_id": number}
        told = json.loads(intent("refund.failed", **refund, payment_intent="pi_9", metadata=metadata))
        body = json.dumps(told | {"created": int(time.time()) - age_h * 3600}).encode()
        response, problem = await deliver(hooked, body)
        assert response.status == status
        assert hooked.writes.issued == []
        if status == 503:
            assert problem["code"] == "payment_not_known_yet"
            rows = hooked.app[PAYMENTS]._payments
            rows.rows[9] = msgspec.structs.replace(PAYMENT, provider_id="pi_9")  # type: ignore[attr-defined]
            assert (await deliver(hooked, body))[0].status == 200
            assert msgspec.json.decode(hooked.writes.last.arguments)["id"] == 9

    def test_a_gateway_that_takes_events_does_not_start_without_the_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)
        with pytest.raises(ConfigurationError, match="STRIPE_METADATA_KEY"):
            attach(web.Application(), SimpleNamespace(sql=lambda: None, writes=None))  # type: ignore[arg-type]

    @pytest.mark.parametrize("code", ["payment_not_found", "other_payment", "impossible_transition"])
    async def test_an_event_that_the_lane_refuses_is_not_sent_again(self, hooked: RunningGateway, code: str) -> None:
        hooked.writes.answer = refused("rejected", code)
        assert (await deliver(hooked, intent()))[0].status == 200

    @pytest.mark.parametrize(
        "body",
        [
            intent("customer.created"),
            intent(metadata={}),
            intent(metadata={"payment_id": "0"}),
            intent(metadata={"payment_id": "9" * 40}),
            intent(metadata={"payment_id": "nine"}),
        ],
    )
    async def test_an_event_that_tells_of_no_payment_of_ours_is_taken_and_ignored(
        self, hooked: RunningGateway, body: bytes
    ) -> None:
        assert (await deliver(hooked, body))[0].status == 200
        assert hooked.writes.issued == []

    async def test_without_a_broker_stripe_is_asked_to_send_it_again(self, hooked: RunningGateway) -> None:
        hooked.writes.error = lambda _: BrokerUnavailable("the broker is away")
        response, problem = await deliver(hooked, intent())
        assert (response.status, problem["code"]) == (503, "broker_unavailable")
        assert response.headers["Retry-After"] == "1"

    async def test_without_a_secret_nothing_is_believed(self, payments: RunningGateway) -> None:
        response, problem = await deliver(payments, intent())
        assert (response.status, problem["code"]) == (503, "webhooks_not_configured")
        assert "STRIPE_WEBHOOK_SECRET" in problem["detail"]


class TestHostileEvents:
    @pytest.mark.parametrize(
        "signature",
        [
            "",
            "t=,v1=",
            "v1=abc",
            "t=now,v1=abc",
            f"t={'9' * 400},v1=abc",
            f"t={'9' * 5000},v1=abc",
            "t=1,v1=\u00e9",
            "t=1" + ",v1=a" * 500,
            signed(intent(), secret="whsec_other"),
            signed(intent("payment_intent.canceled")),
            signed(intent()).replace("v1=", "v0="),
        ],
        ids=lambda signature: signature.partition("v")[2][:2] + str(len(signature)) if signature else "empty",
    )
    async def test_what_stripe_did_not_sign_is_refused(self, hooked: RunningGateway, signature: str) -> None:
        response, problem = await deliver(hooked, intent(), signature)
        assert (response.status, problem["code"]) == (400, "bad_signature")
        assert hooked.writes.issued == []

    async def test_two_signatures_are_none(self, hooked: RunningGateway) -> None:
        headers = CIMultiDict([("Content-Type", "application/json")])
        for signature in (signed(intent()), "t=1,v1=0"):
            headers.add("Stripe-Signature", signature)
        response, problem = await hooked.call("POST", "/webhooks/stripe", data=intent(), headers=headers)
        assert (response.status, problem["code"], hooked.writes.issued) == (400, "bad_signature", [])

    @pytest.mark.parametrize("age_s", [301, 86400, -400])
    async def test_what_was_signed_long_ago_is_refused(self, hooked: RunningGateway, age_s: int) -> None:
        response, problem = await deliver(hooked, intent(), signed(intent(), age_s=age_s))
        assert (response.status, problem["code"], hooked.writes.issued) == (400, "stale", [])
        assert problem["field"] == "Stripe-Signature"

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"[]",
            b"null",
            b'"x"',
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"type": "payment_intent.succeeded"}',
            b'{"type": ["payment_intent.succeeded"]}',
            intent(amount="100"),
            intent(amount=1.5),
            intent(currency="zzz"),
            intent(metadata=7),
        ],
    )
    async def test_what_is_no_event_is_refused(self, hooked: RunningGateway, body: bytes) -> None:
        response, problem = await deliver(hooked, body)
        assert (response.status, problem["code"], problem["field"]) == (400, "malformed", "body")
        assert not re.search(r"Error|Traceback|Expecting", problem["detail"])
        assert hooked.writes.issued == []

    async def test_what_is_too_large_or_no_json_is_refused_unread(self, hooked: RunningGateway) -> None:
        assert (await deliver(hooked, b"{" + b" " * (300 << 10)))[0].status == 413
        response, _ = await hooked.call("POST", "/webhooks/stripe", data=b"a=1")
        assert response.status == 415
        assert (await hooked.call("POST", "/webhooks/stripe", headers={"Content-Type": "application/json"}))[
            0
        ].status == 400

    async def test_clients_cannot_tell_what_the_provider_tells(self, payments: RunningGateway) -> None:
        for command_type in ("payments.provider_event", "payments.capture_result", "payments.effects.refund"):
            response, problem = await payments.call(
                "POST", "/commands", json=[{"type": command_type, "args": {"id": 9}}]
            )
            assert (response.status, problem["code"]) == (422, "unknown_command_type")


class TestRequests:
    async def test_opening_with_a_payment_method(self, payments: RunningGateway) -> None:
        body = {"user_id": 7, "amount": 100, "currency": "EUR", "payment_method": "pm_card_visa"}
        response, _ = await payments.call("POST", "/payments", json=body)
        assert (response.status, response.headers["Location"]) == (201, "/payments/9")
        assert msgspec.json.decode(payments.writes.last.arguments) == body

    @pytest.mark.parametrize("method", ["", "a b", "x" * 256, "\u00e9", 7])
    async def test_a_payment_method_is_a_token(self, payments: RunningGateway, method: Any) -> None:
        body = {"user_id": 7, "amount": 100, "currency": "EUR", "payment_method": method}
        response, problem = await payments.call("POST", "/payments", json=body)
        assert (response.status, problem["field"]) == (422, "payment_method")

    @pytest.mark.parametrize(
        ("path", "command_type"), [("capture", "payments.capture"), ("reversal", "payments.reverse")]
    )
    async def test_what_is_done_to_a_payment(self, payments: RunningGateway, path: str, command_type: str) -> None:
        headers = {"Idempotency-Key": "once", "If-Match": '"1"'}
        response, shown = await payments.call("POST", f"/payments/9/{path}", headers=headers)
        assert (response.status, shown["id"], response.headers["ETag"]) == (200, 9, '"1"')
        assert response.headers["Content-Location"] == "/payments/9"
        last = payments.writes.last
        assert (last.type, last.arguments, last.expected_version) == (command_type, b'{"id":9}', 1)
        assert last.command_id == command_id_for("payments", "once")

    @pytest.mark.parametrize(
        ("options", "arguments"), [({}, b'{"id":9}'), ({"json": {"amount": 40}}, b'{"id":9,"amount":40}')]
    )
    async def test_refunding(self, payments: RunningGateway, options: Any, arguments: bytes) -> None:
        response, shown = await payments.call("POST", "/payments/9/refunds", **options)
        assert (response.status, shown["status"]) == (201, "pending")
        assert response.headers["Location"] == "/payments/9/refunds/4"
        assert payments.writes.last.arguments == arguments

    @pytest.mark.parametrize("amount", [0, -1, 1.5, "40", 10**13])
    async def test_a_refund_is_of_whole_minor_units(self, payments: RunningGateway, amount: Any) -> None:
        response, problem = await payments.call("POST", "/payments/9/refunds", json={"amount": amount})
        assert (response.status, problem["field"]) == (422, "amount")

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("payment_not_found", 404),
            ("impossible_transition", 409),
            ("action_under_way", 409),
            ("payment_needs_review", 409),
            ("refund_too_large", 409),
            ("unknown_reason", 422),
            ("version_conflict", 412),
        ],
    )
    async def test_every_rejection_is_a_problem(self, payments: RunningGateway, code: str, status: int) -> None:
        payments.writes.answer = refused("rejected", code)
        response, problem = await payments.call("POST", "/payments/9/refunds")
        assert (response.status, problem["code"]) == (status, code)

    async def test_reading_refunds(self, payments: RunningGateway) -> None:
        response, page = await payments.call("GET", "/payments/9/refunds")
        assert (response.status, [refund["id"] for refund in page["items"]]) == (200, [REFUND.id])
        assert (await payments.call("GET", "/payments/9/refunds/4"))[1]["payment_id"] == PAYMENT.id
        for path in ("/payments/8/refunds", "/payments/9/refunds/5", "/payments/8/refunds/4", "/payments/9/refunds/x"):
            assert (await payments.call("GET", path))[0].status == 404
