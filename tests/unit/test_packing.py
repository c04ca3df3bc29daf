"""Which commands travel in one message."""

import asyncio
from collections.abc import Sequence

import pytest
from msgspec import structs

from coordinator.protocol.decoding import decode
from coordinator.protocol.packing import PACK_BYTES_MAX, PACK_COMMANDS_MAX
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Envelope, encode_pack
from coordinator.transports.in_flight import InFlight, packs_of


async def issued(*commands: tuple[int, bytes]) -> list[InFlight]:
    loop = asyncio.get_running_loop()
    return [
        InFlight(
            CommandMessage(command_id=f"00000000-0000-7000-8000-{number:012d}", type="t.t", arguments=arguments),
            loop.create_future(),
            1.0,
        )
        for number, arguments in commands
    ]


def numbers(packs: Sequence[tuple[list[InFlight], bool]]) -> list[tuple[list[int], bool]]:
    return [([int(entry.command_id[-12:]) for entry in entries], is_alone) for entries, is_alone in packs]


async def test_what_is_issued_together_travels_together_in_order() -> None:
    entries = await issued(*((number, b"{}") for number in range(5)))
    assert numbers(list(packs_of(entries, lambda _: False))) == [([0, 1, 2, 3, 4], False)]


async def test_a_pack_is_bounded() -> None:
    many = await issued(*((number, b"{}") for number in range(2 * PACK_COMMANDS_MAX + 1)))
    assert [len(entries) for entries, _ in packs_of(many, lambda _: False)] == [PACK_COMMANDS_MAX] * 2 + [1]
    large = b'"' + b"x" * (PACK_BYTES_MAX // 2) + b'"'
    few = await issued((1, large), (2, large), (3, b"{}"), (4, large * 1))
    assert numbers(list(packs_of(few, lambda _: False))) == [([1], False), ([2, 3], False), ([4], False)]


@pytest.mark.parametrize("text", ["t.t", '"' * 50, "\\" * 50, "\x01" * 20, "é" * 50, "\U0001f600" * 25])
async def test_no_message_of_a_pack_is_above_its_limit_whatever_is_in_it(text: str) -> None:
    loop = asyncio.get_running_loop()
    messages = [
        CommandMessage(
            command_id=f"00000000-0000-7000-8000-{number:012d}",
            type=text,
            arguments=b'{"n":%d}' % number,
            deadline_ms=2**53 - 1,
            expected_version=2**53 - 1,
            publisher=text,
            publisher_seq=2**53 - 1,
            traceparent=text,
            continuation=text,
        )
        for number in range(PACK_COMMANDS_MAX)
    ]
    entries = [InFlight(message, loop.create_future(), 1.0) for message in messages]
    packs = [[entry.message for entry in pack] for pack, _ in packs_of(entries, lambda _: False)]
    assert [message for pack in packs for message in pack] == messages
    assert max(len(encode_pack(pack)) for pack in packs) <= PACK_BYTES_MAX


async def test_small_commands_fill_a_pack() -> None:
    """The bound must not be so careful that packs are cut for nothing."""
    many = await issued(*((number, b'{"id":123456,"amount":100}') for number in range(PACK_COMMANDS_MAX)))
    assert [len(entries) for entries, _ in packs_of(many, lambda _: False)] == [PACK_COMMANDS_MAX]


async def test_what_the_system_says_and_what_anybody_says_travel_apart_and_in_order() -> None:
    entries = await issued(*((number, b"{}") for number in range(5)))
    for entry in entries[2:4]:
        entry.message = structs.replace(entry.message, origin="system")
    assert numbers(list(packs_of(entries, lambda _: False))) == [([0, 1], False), ([2, 3], False), ([4], False)]


@pytest.mark.parametrize("arguments", [b"", b"{", b"nul", b"{}x", b"{'a': 1}"])
async def test_arguments_that_are_no_json_spoil_no_pack(arguments: bytes) -> None:
    entries = await issued((1, b"{}"), (2, arguments), (3, b"{}"), (4, b"{}"))
    packs = list(packs_of(entries, lambda _: False))
    assert numbers(packs) == [([1], False), ([2], False), ([3, 4], False)]
    body = encode_pack([entry.message for entry in packs[2][0]])
    assert [command.defect for command in decode(Envelope(content_type=PACK_CONTENT), body)] == [None, None]


async def test_an_id_whose_outcome_is_expected_travels_alone() -> None:
    entries = await issued((1, b"{}"), (2, b"{}"), (1, b"[]"), (3, b"{}"), (9, b"{}"))
    expected = entries[4].command_id
    assert numbers(list(packs_of(entries, expected.__eq__))) == [
        ([1, 2], False),
        ([1], True),
        ([3], False),
        ([9], True),
    ]
