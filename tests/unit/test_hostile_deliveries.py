"""Whatever strangers publish: reading a delivery never raises, and a lane settles it, on a real database."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.migrations.migrate import migrate
from coordinator.protocol.fields import FIELDS
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import PACK_CONTENT, options_of
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings, LaneSettings
from coordinator.service.ids import is_uuid, new_command_id
from coordinator.stores.open import open_store
from coordinator.transports.rabbitmq.incoming import dead_delivery_of, delivery_of
from coordinator.transports.rabbitmq.topology import DEAD_EXCHANGE, SYSTEM_EXCHANGE, WRITES_EXCHANGE
from tests.support import hostile
from tests.support.examples import examples

SETTINGS = LaneSettings()
TAGS = count(1)
CREDIT = b'{"id":1,"amount":5}'
HEADERS = [field.header for field in FIELDS] + ["x-death", "reason", "sequence", "error", "reply-packs"]
PROPERTIES = (
    *("message_id", "type", "content_type", "content_encoding", "correlation_id", "reply_to", "expiration"),
    *("user_id", "app_id", "cluster_id"),
)


def read(properties: pika.BasicProperties, body: bytes, exchange: str = WRITES_EXCHANGE) -> list[Delivery]:
    """As the lane's queue and the queue of dead letters have it; what is wrong with how it was read fails here."""
    method = SimpleNamespace(exchange=exchange, delivery_tag=next(TAGS), redelivered=False)
    dead = SimpleNamespace(exchange=DEAD_EXCHANGE, delivery_tag=next(TAGS), redelivered=True)
    deliveries = [delivery_of(method, properties, body, SETTINGS)]
    deliveries.append(dead_delivery_of("users", dead, properties, body, SETTINGS))
    for delivery in deliveries:
        assert delivery.commands
        for command in delivery.commands:
            assert command.command_id is None or is_uuid(command.command_id)
            assert isinstance(command.arguments, bytes)
            UNKEYED.of(command)
            options_of(command)
            for text in (command.type, command.publisher, command.traceparent, command.continuation):
                assert text is None or text.encode().decode() == text
            numbers = (command.deadline_ms, command.expected_version, command.publisher_seq)
            assert all(number is None or type(number) is int for number in numbers)
    return deliveries


odd_texts = st.sampled_from(hostile.TEXTS) | st.text(st.characters(exclude_categories=[]), max_size=20)
odd_bytes = st.sampled_from([*hostile.NO_UTF8.values()]) | st.binary(max_size=20)
odd_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | odd_texts | odd_bytes | st.datetimes() | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
json_texts = st.sampled_from([text.encode("utf-8", "surrogatepass") for text in (*hostile.ODD_JSON, *hostile.NUMBERS)])


@pytest.mark.properties
@examples(200)
@given(
    headers=st.none() | st.dictionaries(st.sampled_from(HEADERS) | odd_texts, odd_values, max_size=6),
    properties=st.dictionaries(st.sampled_from(PROPERTIES), odd_texts | odd_bytes, max_size=4),
    priority=st.none() | st.integers(0, 255),
    body=odd_bytes | json_texts | st.just(CREDIT),
    is_pack=st.booleans(),
    exchange=st.sampled_from([WRITES_EXCHANGE, SYSTEM_EXCHANGE, "", "nonsense"]),
)
def test_a_delivery_is_read_whatever_its_properties_and_its_body_are(
    headers: Any, properties: dict[str, Any], priority: int | None, body: bytes, is_pack: bool, exchange: str
) -> None:
    if is_pack:
        properties["content_type"] = PACK_CONTENT
    read(pika.BasicProperties(headers=headers, priority=priority, **properties), body, exchange)


# Each is one message: its properties, and its body.
Case = tuple[pika.BasicProperties, bytes]


def corpus() -> Iterator[Case]:
    """Every text in every place where a text may stand, and every wrong byte; then shapes that are too deep or wide."""
    texts: list[Any] = [*hostile.TEXTS, *hostile.NO_UTF8.values()]
    for text in texts:
        for place in ("message_id", "type", "reply_to", "correlation_id", "content_type"):
            known = {"message_id": new_command_id(), "type": "users.credit"} | {place: text}
            yield pika.BasicProperties(**known), CREDIT
        headers = {field.header: text for field in FIELDS}
        yield pika.BasicProperties(message_id=new_command_id(), type="users.credit", headers=headers), CREDIT
        if isinstance(text, str):
            text = text.encode("utf-8", "surrogatepass")  # noqa: PLW2901
        for body in (text, b'"%s"' % text, b'{"id":1,"amount":5,"%s":1}' % text, b'{"name":"%s","email":"a@b"}' % text):
            yield pika.BasicProperties(message_id=new_command_id(), type="users.create"), body
            yield (
                pika.BasicProperties(content_type=PACK_CONTENT),
                b'[{"id":"%s","type":"users.create","args":%s}]' % (new_command_id().encode(), body),
            )
    flood = {f"x-{number}": "y" for number in range(10_000)}
    deep: Any = "bottom"
    for _ in range(500):
        deep = {"in": [deep]}
    for headers in (flood, {"traceparent": deep}, {"x-death": deep}, {"x-death": [deep] * 100}, {"": None}):
        yield pika.BasicProperties(message_id=new_command_id(), type="users.credit", headers=headers), CREDIT
    for element in (b"{}", b"0", b"[]", b'{"id":1}', b"null", b'{"args":{}}'):
        for wide in (999, 1000, 1001, 10_001):
            yield pika.BasicProperties(content_type=PACK_CONTENT), b"[" + b",".join([element] * wide) + b"]"


def test_a_lane_settles_all_of_the_corpus_and_goes_on(tmp_path: Any) -> None:
    """Everything in one process: no delivery is left, and none stops the command behind it."""
    service = registry().service("users")
    url = f"sqlite:///{tmp_path}/users.db"
    migrate(service, DatabaseSettings(database_url=url))
    store = open_store(url, service)
    clock = SimpleNamespace(now_s=0.0)
    lane = Lane(service, store, lambda: datetime(2026, 1, 1, tzinfo=UTC), "test", SETTINGS, lambda: clock.now_s)
    good = pika.BasicProperties(message_id=new_command_id(), type="users.create")
    deliveries = [delivery for case in corpus() for delivery in read(*case)]
    deliveries.append(read(good, b'{"name":"Ada","email":"ada@example.org"}')[0])
    settled: set[int] = set()
    statuses: dict[str | None, str] = {}

    def apply(some: list[Delivery]) -> None:
        decision = lane.apply(some)
        assert isinstance(decision, Settlement), decision
        settled.update(decision.tags)
        statuses.update((outcome.command_id, outcome.status) for outcome in decision.outcomes)
        if lane.has_batch:
            apply([])

    for start in range(0, len(deliveries), 400):
        apply(deliveries[start : start + 400])
    # Those that wait for a predecessor, as the numbers of the corpus would have it.
    clock.now_s += SETTINGS.gap_timeout_s
    apply([])
    store.close()
    assert settled == {delivery.tag for delivery in deliveries}
    assert statuses[good.message_id] == "applied"


@pytest.mark.parametrize("bytes_", hostile.NO_UTF8.values(), ids=hostile.NO_UTF8.keys())
def test_arguments_that_are_no_utf_8_are_kept_as_they_came(bytes_: bytes) -> None:
    """Of bytes that mean nothing no reader makes another text."""
    body = b'{"name":"%s"}' % bytes_
    properties = pika.BasicProperties(message_id=new_command_id(), type="users.create")
    assert [each.arguments for delivery in read(properties, body) for each in delivery.commands] == [body, body]
