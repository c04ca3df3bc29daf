"""One purchase of the reference system is one trace, as a collector gets it from eight processes on real servers."""

import time
from collections.abc import Iterator

import aiohttp
import pytest

from tests.support.callers import HEADERS
from tests.support.collector import Collected, Collector, collecting
from tests.support.system import System

pytestmark = pytest.mark.operators

SERVICES = ("users", "items", "payments")
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}
UNSAMPLED = {"traceparent": f"00-{'5' * 32}-{CALLER}-00"}
PROVIDER_CALLS = {"call payments.effects.authorize", "call payments.effects.capture"}
WEBHOOKS = 2
"""The events of a purchase that goes through: authorized, and captured."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def shop(system: System, collector: Collector) -> System:
    system.environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    system.prepare(*SERVICES)
    system.start_sandbox()
    system.start_coordinators(*SERVICES)
    for service in SERVICES:
        system.start_gateway(service)
    system.start_effects("payments")
    return system


async def post(shop: System, service: str, path: str, body: object, headers: dict[str, str]) -> dict[str, object]:
    async with (
        aiohttp.ClientSession(headers=HEADERS) as session,
        session.post(f"{shop.urls[service]}{path}", json=body, headers=headers) as response,
    ):
        answer: dict[str, object] = await response.json()
        assert response.status in (200, 201), answer
        return answer


async def stocked(shop: System) -> None:
    await post(shop, "users", "/users", {"name": "Ada", "email": "ada@example.org"}, UNSAMPLED)
    item = {"name": "Lamp", "price": 100, "currency": "EUR", "stock": 50}
    await post(shop, "items", "/items", item, UNSAMPLED)


async def buy(shop: System, headers: dict[str, str]) -> None:
    body = {"item_id": 1, "quantity": 1, "payment_method": "pm_card_visa"}
    answer = await post(shop, "users", "/users/1/purchases", body, headers | {"Prefer": "wait=10"})
    assert answer["status"] == "completed", answer


def is_whole(spans: list[Collected]) -> bool:
    """Whether all is there that is known to come; whatever else a purchase takes is there by then, or nearly."""
    names = [span.name for span in spans]
    events = [span for span in spans if span.attributes.get("coordinator.command.type") == "payments.provider_event"]
    processed = [span for span in events if span.kind == "consumer"]
    return (
        names.count("POST /webhooks/stripe") >= WEBHOOKS and len(processed) >= WEBHOOKS and set(names) > PROVIDER_CALLS
    )


async def test_a_purchase_is_one_trace_from_the_request_to_the_webhooks(shop: System, collector: Collector) -> None:
    await stocked(shop)
    await buy(shop, SAMPLED)
    collector.wait_for(lambda: is_whole(collector.spans))
    # Each process exports the rest at its end.
    shop.stop()
    spans = collector.spans
    assert {span.trace_id for span in spans} == {TRACE}, [span for span in spans if span.trace_id != TRACE]
    assert {span.service for span in spans} == {
        *(f"gateway-{name}" for name in ("users", "payments")),
        *(f"coordinator-{name}" for name in SERVICES),
        "effects-payments",
    }
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    (root,) = (span for span in spans if span.parent_id == CALLER)
    assert (root.name, root.kind, root.service) == ("POST /users/{id}/purchases", "server", "gateway-users")
    assert root.attributes["http.response.status_code"] == 201
    assert all(span is root or span.parent_id in by_id for span in spans), "each has its parent"
    # What other systems keep goes along, but not through the provider.
    webhooks = {span.span_id for span in spans if span.name == "POST /webhooks/stripe"}
    told = [span for span in spans if webhooks & {span.span_id, *(each.span_id for each in ancestors(span, by_id))}]
    assert {span.tracestate for span in spans if span not in told} == {"vendor=1"}
    for span in spans:
        check_parent(span, by_id)
    for batch in (span for span in spans if span.name.startswith("batch ")):
        within = [span for span in spans if span.parent_id == batch.span_id]
        assert {span.name.partition(" ")[0] for span in within} >= {"COMMIT"}
        # To what has caused each of its commands: the span that issued it.
        assert batch.links
        assert {by_id[span_id].kind for _, span_id in batch.links} == {"producer"}
    check_attributes(spans)
    # The whole way: a command of the last step goes back, span by span, to the request.
    capture = next(span for span in spans if span.name == "call payments.effects.capture")
    way = [span.name.partition(" ")[0] for span in ancestors(capture, by_id)]
    assert way[-1] == "POST"
    assert way.count("process") >= 5
    webhook = next(span for span in spans if span.name == "POST /webhooks/stripe")
    assert by_id[webhook.parent_id].name == "publish effects.payments"


def check_parent(span: Collected, by_id: dict[str, Collected]) -> None:
    """A span begins no earlier than what caused it, and what it is says what that is."""
    if span.parent_id == CALLER:
        return
    parent = by_id[span.parent_id]
    assert span.began_ns >= parent.began_ns - 5_000_000, (span, parent)
    assert span.began_ns <= span.ended_ns
    kind, parents = span.name.partition(" ")[0], parent.name.partition(" ")[0]
    assert (
        parents
        in {
            "POST": {"publish"},
            "publish": {"POST", "process"},
            "wait": {"POST"},
            "process": {"publish"},
            "batch": {"process"},
            "SELECT": {"batch"},
            "COMMIT": {"batch"},
            "reply": {"batch"},
            "call": {"process"},
        }[kind]
    ), (span, parent)


def check_attributes(spans: list[Collected]) -> None:
    known = {"http.", "messaging.", "db.", "server.", "error.", "coordinator."}
    values = [str(value) for span in spans for value in span.attributes.values()]
    assert all(name.startswith(tuple(known)) for span in spans for name in span.attributes)
    for personal in ("ada@example.org", "Ada", "pm_card_visa", "Lamp"):
        assert not any(personal in value for value in values)
    commits = [span for span in spans if span.name.startswith("COMMIT")]
    assert {span.attributes["db.system.name"] for span in commits} == {"postgresql", "mysql", "mongodb"}
    process = next(span for span in spans if span.name == "process users")
    assert process.attributes["messaging.system"] == "rabbitmq"
    assert process.attributes["coordinator.command.status"] == "applied"


def ancestors(span: Collected, by_id: dict[str, Collected]) -> Iterator[Collected]:
    while span.parent_id in by_id:
        span = by_id[span.parent_id]
        yield span


async def test_what_is_not_sampled_has_no_spans(shop: System, collector: Collector) -> None:
    await stocked(shop)
    await buy(shop, UNSAMPLED)
    shop.stop()
    assert collector.spans == []


async def test_a_frozen_collector_costs_no_time(shop: System, collector: Collector) -> None:
    """Neither a purchase's, nor that of the end of a process."""
    await stocked(shop)
    await buy(shop, UNSAMPLED)
    collector.frozen.set()
    taken_s: dict[bool, list[float]] = {False: [], True: []}
    for number in range(12):
        is_sampled = number % 2 == 0
        began_s = time.perf_counter()
        await buy(shop, SAMPLED if is_sampled else UNSAMPLED)
        taken_s[is_sampled].append(time.perf_counter() - began_s)
    assert min(taken_s[True]) < 2 * min(taken_s[False]) + 0.1, taken_s
    began_s = time.monotonic()
    shop.stop()
    assert time.monotonic() - began_s < 10
