"""Which commands travel in one message."""

import asyncio
from collections.abc import Sequence

import pytest

from shared.messaging.packing import PACK_BYTES_MAX, PACK_COMMANDS_MAX, InFlight, packs_of
from shared.messaging.wire import PACK_CONTENT, CommandMessage, Envelope, decode, encode_pack


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


@pytest.mark.parametrize("arguments", [b"", b"{", b"nul", b"{}x", b"{'a': 1}"])
async def test_arguments_that_are_no_json_spoil_no_pack(arguments: bytes) -> None:
    entries = await issued((1, b"{}"), (2, arguments), (3, b"{}"), (4, b"{}"))
    packs = list(packs_of(entries, lambda _: False))
    assert numbers(packs) == [([1], False), ([2], False), ([3, 4], False)]
    body = encode_pack([entry.message for entry in packs[2][0]])
    assert [command.problem for command in decode(Envelope(content_type=PACK_CONTENT), body)] == [None, None]


async def test_an_id_whose_outcome_is_expected_travels_alone() -> None:
    entries = await issued((1, b"{}"), (2, b"{}"), (1, b"[]"), (3, b"{}"), (9, b"{}"))
    expected = entries[4].command_id
    assert numbers(list(packs_of(entries, expected.__eq__))) == [
        ([1, 2], False),
        ([1], True),
        ([3], False),
        ([9], True),
    ]
