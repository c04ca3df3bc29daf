"""What a stranger's message costs a lane before it is refused: not much more than its bytes, however it is made."""

import gc
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from time import process_time
from types import SimpleNamespace
from typing import Annotated, Any

import msgspec
import pika
import pytest
from msgspec import Struct

from coordinator import Command, Digits, InvalidCommand
from coordinator.lane.request import READ_FIRST_BYTES_MAX, Request, is_same, prepare
from coordinator.protocol.decoding import TOKENS_MAX
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import BODY_BYTES_MAX, PACK_CONTENT
from coordinator.registry import registry
from coordinator.runtime.settings import LaneSettings
from coordinator.service.commands import parse
from coordinator.service.ids import new_command_id
from coordinator.service.nesting import has_more_tokens, taken_apart
from coordinator.service.upgrades import Upgrade, parse_sent
from coordinator.transports.rabbitmq.incoming import delivery_of

CPU_S_MAX = 0.15
"""One of these took 0.3 to 3.8 s. They take some 0.02 s on a machine that does nothing else."""
HANDLERS = {each.command.type: each for each in registry().service("users").handlers}
ID = new_command_id()
IN_PACK = b'{"id":"%s","type":"users.credit","args":' % ID.encode()


def filled(beginning: bytes, unit: bytes, end: bytes) -> bytes:
    """A message of the largest size, with so many units."""
    count = (BODY_BYTES_MAX - len(beginning) - len(end)) // (len(unit) + 1)
    return beginning + b",".join([unit] * count) + end


def read(body: bytes, content_type: str | None = None) -> list[Request]:
    """As a lane does, up to where it knows whether it takes the commands."""
    properties = pika.BasicProperties(message_id=ID, type="users.credit", content_type=content_type)
    method = SimpleNamespace(exchange="writes", delivery_tag=1, redelivered=False)
    delivery = delivery_of(method, properties, body, LaneSettings())
    return [prepare(command, HANDLERS, redelivered=False) for command in delivery.commands]


MESSAGES = {
    "lists in an argument": (filled(b'{"id":1,"amount":[', b"[]", b"]}"), None),
    "numbers in an argument": (filled(b'{"id":1,"amount":[', b"1.5", b"]}"), None),
    "brackets": (b"[" * BODY_BYTES_MAX, None),
    "objects behind an escaped colon": (filled(b'{"id":1,"amount":["\\u003a",', b'{"a":0}', b"]}"), None),
    "a pack of numbers": (filled(b"[", b"0", b"]"), PACK_CONTENT),
    "a pack of objects": (filled(b"[", b"{}", b"]"), PACK_CONTENT),
    "a pack of lists that ends wrong": (filled(b"[", b"[]", b",x]"), PACK_CONTENT),
    "a pack that does not end": (filled(b"[", b"[]", b""), PACK_CONTENT),
    "a packed command of many members": (filled(b"[" + IN_PACK + b"x,", b'"a":[]', b"}]"), PACK_CONTENT),
    "lists in a packed command's argument": (filled(b"[" + IN_PACK + b'{"id":[', b"[]", b"]}}]"), PACK_CONTENT),
    "a pack of one number": (b"[" + b"1" * (BODY_BYTES_MAX - 2) + b"]", PACK_CONTENT),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_of_the_largest_size_is_refused_for_little(kind: str) -> None:
    body, content_type = MESSAGES[kind]
    spent_s = []
    for _ in range(3):
        gc.collect()
        began_s = process_time()
        requests = read(body, content_type)
        spent_s.append(process_time() - began_s)
        assert len(requests) == 1
        assert requests[0].defect is not None
    assert min(spent_s) < CPU_S_MAX


def test_a_long_number_costs_about_what_a_long_text_does() -> None:
    """Each look for texts and brackets took seven times as long over what is neither."""
    looks: tuple[Callable[[bytes], object], ...] = (
        lambda text: taken_apart(text, 2),
        lambda text: has_more_tokens(text, TOKENS_MAX),
    )
    number, words = b"1" * BODY_BYTES_MAX, b'"' + b"a" * BODY_BYTES_MAX
    for look in looks:
        assert cpu_s(partial(look, number)) < 4 * cpu_s(partial(look, words))


def test_large_arguments_that_are_refused_are_known_by_their_bytes() -> None:
    """To bring them into one form would cost as much as their sender likes. What is taken has one form, as before."""
    beginning, end = b'{"id":1,"amount":"', b'"}'

    def of_size(size: int) -> Request:
        (request,) = read(beginning + b"a" * (size - len(beginning) - len(end)) + end)
        assert request.defect is not None
        return request

    small, large = of_size(READ_FIRST_BYTES_MAX), of_size(READ_FIRST_BYTES_MAX + 1)
    assert small.fingerprint == UNKEYED.of(small.message) != UNKEYED.of(small.message, small.message.arguments)
    assert large.fingerprint == UNKEYED.of(large.message, large.message.arguments)
    assert is_same(UNKEYED, large.fingerprint, of_size(READ_FIRST_BYTES_MAX + 1))
    assert not is_same(UNKEYED, large.fingerprint, of_size(READ_FIRST_BYTES_MAX + 2))
    (spaced,) = read(b'{"amount" : 5, "id" : 1}' + b" " * READ_FIRST_BYTES_MAX)
    (close,) = read(b'{"id":1,"amount":5}')
    assert spaced.defect is None
    assert spaced.fingerprint == close.fingerprint
    # A later release may take what this one refuses.
    assert is_same(UNKEYED, UNKEYED.of(spaced.message, spaced.message.arguments), spaced)


class Sold(Command, type="users.sold", version=2):
    price: Decimal
    parts: Any = None


class Line(Struct):
    price: Decimal


class Priced(Command, type="users.priced"):
    prices: list[Decimal] = msgspec.field(default_factory=list)
    exact: list[Annotated[Decimal, Digits(5, 2)]] = msgspec.field(default_factory=list)
    named: dict[str, Decimal] = msgspec.field(default_factory=dict)
    lines: tuple[Line, ...] = ()


NUMBERS = filled(b'{"price":1,"parts":[', b"1.5", b"]}")


def cpu_s(act: Callable[[], object], times: int = 5) -> float:
    """The least that it took of so many times."""
    spent_s = []
    for _ in range(times):
        gc.collect()
        began_s = process_time()
        act()
        spent_s.append(process_time() - began_s)
    return min(spent_s)


def test_numbers_of_older_arguments_cost_little_more_than_to_make_them() -> None:
    upgrades = (Upgrade(Sold, 1, lambda given: {"price": given["price"]}),)
    bare_s = cpu_s(lambda: msgspec.json.Decoder(float_hook=Decimal).decode(NUMBERS))
    assert cpu_s(lambda: parse_sent(Sold, NUMBERS, 1, upgrades)) < 2.5 * bare_s


DECIMALS = {
    "numbers": filled(b'{"prices":[', b"1.5", b"]}"),
    "texts": filled(b'{"prices":[', b'"1.5"', b"]}"),
    "one odd text": filled(b'{"prices":["1_0",', b"1.5", b"]}"),
    "an odd text behind": filled(b'{"prices":[', b"1.5", b',"1_0"]}'),
    "too large behind": filled(b'{"prices":[', b"1.5", b",1e999]}"),
    "of few digits": filled(b'{"exact":[', b"1.5", b"]}"),
    "of many digits behind": filled(b'{"exact":[', b"1.5", b",1.555]}"),
    "names": b'{"named":{%s}}' % b",".join(b'"%d":1.5' % number for number in range(80_000)),
    "lines": filled(b'{"lines":[', b'{"price":1.5}', b"]}"),
}


@pytest.mark.parametrize("kind", DECIMALS)
def test_decimals_cost_little_more_than_to_make_them(kind: str) -> None:
    """To look at each of them took a lane ten to thirty times as long."""

    def read() -> None:
        with suppress(InvalidCommand):
            parse(Priced, DECIMALS[kind])

    bare_s = cpu_s(lambda: msgspec.json.decode(DECIMALS[kind], type=Priced))
    assert cpu_s(read) < 6 * bare_s
