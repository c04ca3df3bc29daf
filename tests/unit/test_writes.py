"""Issuing a command: what is checked before it is handed over, and what need not be checked again."""

import asyncio
import re
from typing import Any

import msgspec
import pytest
from msgspec import structs

from coordinator.client import writes as module
from coordinator.client.blocking import BlockingWrites
from coordinator.client.writes import WriteOptions, execute
from coordinator.protocol.wire import CommandMessage
from coordinator.service.commands import Command, parse
from coordinator.service.errors import InvalidCommand
from coordinator.service.outcome import Outcome
from tests.support.ledger import Deposit


class Noted(Command):
    type = "ledger.noted"
    what: Any


class Taking:
    """Takes every command, and applies none."""

    def __init__(self) -> None:
        self.taken: list[CommandMessage] = []

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        self.taken.append(message)
        return Outcome(command_id=message.command_id, type=message.type, status="applied", sequence=len(lane))


async def test_a_command_that_was_parsed_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    taking, command = Taking(), parse(Deposit, {"id": 7, "amount": 5})
    monkeypatch.setattr(module, "validated", lambda _: pytest.fail("it is in order"))
    await execute(taking, command, type(None), WriteOptions(parsed=command))
    (message,) = taking.taken
    assert msgspec.json.decode(message.arguments) == {"id": 7, "amount": 5}


async def test_only_the_very_command_that_was_parsed_is_taken_unchecked() -> None:
    taking, command = Taking(), parse(Deposit, {"id": 7, "amount": 5})
    wrong = structs.replace(command, amount="five")
    for options in (WriteOptions(), WriteOptions(parsed=command)):
        with pytest.raises(InvalidCommand, match="amount"):
            await execute(taking, wrong, type(None), options)
    assert taking.taken == []


@pytest.mark.parametrize("is_parsed", [True, False])
async def test_what_no_lane_takes_is_not_issued(is_parsed: bool) -> None:
    deep: Any = 0
    for _ in range(101):
        deep = [deep]
    taking = Taking()
    for what in (deep, "\ud800"):
        command = parse(Noted, {"what": what})
        with pytest.raises(InvalidCommand):
            await execute(taking, command, type(None), WriteOptions(parsed=command if is_parsed else None))
    assert taking.taken == []


@pytest.mark.parametrize("given", [Deposit, Noted, {"id": 7}, "ledger.deposit", None], ids=repr)
async def test_what_is_no_command_is_a_mistake_of_the_program_and_not_of_its_client(given: Any) -> None:
    taking = Taking()
    says = "a command's class: make a command of it, " if isinstance(given, type) else "a command is meant, such as "
    with pytest.raises(TypeError, match=re.escape(says)):
        await execute(taking, given, type(None), WriteOptions())
    with pytest.raises(TypeError, match=re.escape(says)):
        await asyncio.to_thread(BlockingWrites(pytest.fail).execute, given, type(None))
    assert taking.taken == []
