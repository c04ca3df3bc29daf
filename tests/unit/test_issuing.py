"""What no command can have is refused before it is issued, whatever carries it."""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import structs

from coordinator.client.writes import WriteOptions, Writes, execute
from coordinator.protocol.decoding import decode
from coordinator.protocol.issuing import issuable
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Envelope, encode_pack
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import InvalidCommand
from coordinator.service.ids import new_command_id, system_command_id
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.transports.rabbitmq.writes import RabbitWrites
from coordinator.worker.inprocess import InProcessWrites
from tests.support.ledger import LEDGER, Account, OpenAccount

ID = "0a1b2c3d-0000-7000-8000-0000000000ab"
COMMAND = CommandMessage(command_id=ID, type="ledger.open", arguments=b'{"owner":"a"}')
WRONG: list[tuple[str, Any, str]] = [
    *(("command_id", wrong, "invalid_command_id") for wrong in (None, "", "x" * 65, "\ud800", ID.replace("-", ""))),
    *(("command_id", f"{ID[:-1]}{wrong}", "invalid_command_id") for wrong in ("\x00", "é", "")),
    *(("command_id", re.sub("[0-9a-f]", digit, ID), "invalid_command_id") for digit in "0fF"),
    ("command_id", system_command_id("a", "b"), "reserved_command_id"),
    *(("type", wrong, "missing_command_type") for wrong in (None, "", "x" * 101, "ledger.\x00", "ledger.\ud800")),
    *(("deadline_ms", wrong, "invalid_header") for wrong in (-1, 1 << 63, 0.5)),
    *(("expected_version", wrong, "invalid_header") for wrong in (-1, 1 << 63, True)),
    ("continuation", "nowhere", "invalid_header"),
    ("arguments", "{}", "invalid_arguments"),
    ("origin", "elsewhere", "invalid_header"),
    ("publisher", "a", "invalid_header"),
]


def doors() -> list[Writes]:
    return [
        RabbitWrites(BrokerSettings(), confirm_timeout_s=1, wait_s=1, in_flight_max=9, log=None),
        InProcessWrites({LEDGER.name: MemoryStore(MemoryDatabase())}, [LEDGER]),
    ]


@pytest.mark.parametrize(("name", "value", "code"), WRONG)
async def test_what_no_command_can_have_is_refused_by_every_transport(name: str, value: Any, code: str) -> None:
    """Though it is not even connected: nothing of it is asked."""
    message = structs.replace(COMMAND, **{name: value})
    for writes in doors():
        with pytest.raises(InvalidCommand) as refused:
            await writes.issue(LEDGER.name, message, 0)
        assert (refused.value.code, refused.value.field) == (code, name)


def test_the_system_s_own_ids_are_its_own_to_use() -> None:
    message = structs.replace(COMMAND, command_id=system_command_id("a", "b"), origin="system")
    assert issuable(message) is message


@pytest.mark.parametrize("wrong", ["x" * 101, "\ud800"])
def test_an_option_without_weight_is_left_out(wrong: str) -> None:
    assert issuable(structs.replace(COMMAND, traceparent=wrong)) == COMMAND


def test_what_is_in_order_is_as_it_was() -> None:
    message = structs.replace(COMMAND, deadline_ms=0, expected_version=7, publisher="p", publisher_seq=1)
    assert issuable(message) is message
    assert issuable(structs.replace(message, command_id=ID.upper())) == message


@pytest.mark.parametrize("digit", "0fF")
def test_the_id_of_nobody_names_no_command_of_a_stranger_s(digit: str) -> None:
    nobodys = re.sub("[0-9a-f]", digit, ID)
    for message in (
        (Envelope(message_id=nobodys, type="ledger.open"), b"{}"),
        (
            Envelope(content_type=PACK_CONTENT),
            msgspec.json.encode([{"id": nobodys, "type": "ledger.open", "args": {}}]),
        ),
    ):
        (command,) = decode(*message)
        assert command.defect is not None
        assert (command.command_id, command.defect.code) == (None, "invalid_command_id")


@pytest.mark.parametrize("digit", "0f")
def test_what_an_earlier_release_accepted_under_the_id_of_nobody_goes_on(digit: str) -> None:
    nobodys = re.sub("[0-9a-f]", digit, ID)
    message = structs.replace(COMMAND, command_id=nobodys)
    assert issuable(message, is_new=False) is message
    parked = encode_pack([message])
    assert decode(Envelope(content_type=PACK_CONTENT, is_system=True), parked)[0].command_id == nobodys


@pytest.mark.parametrize("key", ["\ud800", "a\udfffb"])
async def test_a_key_that_is_no_text_is_refused_by_name(key: str) -> None:
    async with InProcessWrites({LEDGER.name: MemoryStore(MemoryDatabase())}, [LEDGER]) as writes:
        with pytest.raises(InvalidCommand, match="surrogate") as refused:
            await execute(writes, OpenAccount(owner="a"), Account, WriteOptions(idempotency_key=key))
    assert (refused.value.code, refused.value.field) == ("invalid_command", "idempotency_key")


async def test_one_id_in_two_spellings_is_one_command() -> None:
    async with InProcessWrites({LEDGER.name: MemoryStore(MemoryDatabase())}, [LEDGER]) as writes:
        one, other = [
            await execute(writes, OpenAccount(owner="a"), Account, WriteOptions(command_id=spelled))
            for spelled in (ID.upper(), ID)
        ]
    assert (one.command_id, other.command_id) == (ID, ID)
    assert (one.replayed, other.replayed) == (False, True)


async def test_a_deadline_that_no_message_can_have_is_refused() -> None:
    async with InProcessWrites({LEDGER.name: MemoryStore(MemoryDatabase())}, [LEDGER]) as writes:
        options = WriteOptions(command_id=new_command_id(), deadline=datetime(1969, 1, 1, tzinfo=UTC))
        with pytest.raises(InvalidCommand, match="deadline_ms"):
            await execute(writes, OpenAccount(owner="a"), Account, options)
