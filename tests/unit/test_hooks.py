"""Hooks: in their order, contained, and without touching what a write does."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from coordinator.client import hooks as hooks_module
from coordinator.client.acting import Issued, begin_acting
from coordinator.client.hooks import HookedWrites, Hooks
from coordinator.protocol.wire import CommandMessage
from coordinator.service.errors import CommandPending
from coordinator.service.outcome import Outcome, OutcomeError

APPLIED = Outcome(command_id="1", type="t.x", status="applied", sequence=1)
REJECTED = Outcome(
    command_id="1", type="t.x", status="rejected", sequence=1, error=OutcomeError(code="no", message="no")
)


class Writes:
    """Settles every command as it is told."""

    def __init__(self, outcome: Outcome | Exception = APPLIED) -> None:
        self.outcome = outcome
        self.issued: list[CommandMessage] = []

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        del lane, wait_s
        self.issued.append(message)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def message(number: int = 1) -> CommandMessage:
    return CommandMessage(command_id=str(number), type="t.x", arguments=b"{}")


async def test_hooks_are_called_in_the_order_of_their_registration() -> None:
    seen: list[str] = []
    hooks: Hooks[Any] = Hooks()

    def noting(name: str) -> Any:
        async def hook(*_: object) -> None:
            seen.append(name)

        return hook

    hooks.on_rejection(noting("rejection"))
    for name in ("a", "b"):
        hooks.before_issue(noting(f"before {name}"))
        hooks.after_outcome(noting(f"after {name}"))
    await HookedWrites(Writes(REJECTED), hooks).issue("t", message(), None)
    assert seen == ["before a", "before b", "after a", "after b", "rejection"]
    seen.clear()
    await HookedWrites(Writes(APPLIED), hooks).issue("t", message(), None)
    assert "rejection" not in seen


async def test_a_hook_changes_what_a_command_travels_with_but_not_the_command() -> None:
    hooks: Hooks[Any] = Hooks()

    @hooks.before_issue
    async def deadline(_: str, given: CommandMessage) -> CommandMessage:
        return msgspec.structs.replace(given, deadline_ms=7)

    @hooks.before_issue
    async def forge(_: str, given: CommandMessage) -> CommandMessage:
        return msgspec.structs.replace(given, arguments=b'{"amount": 1000000}')

    writes = Writes()
    await HookedWrites(writes, hooks).issue("t", message(), None)
    assert writes.issued == [msgspec.structs.replace(message(), deadline_ms=7)]


async def test_what_a_hook_raises_or_never_finishes_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_module, "HOOK_TIMEOUT_S", 0.01)
    hooks: Hooks[str] = Hooks()
    seen: list[str] = []

    async def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    async def endless(*_: object) -> None:
        await asyncio.Event().wait()

    async def sound(*_: object) -> None:
        seen.append("sound")

    for hook in (broken, endless, sound):
        hooks.before_issue(hook)
        hooks.after_outcome(hook)
        hooks.on_response(hook)
    assert await HookedWrites(Writes(), hooks).issue("t", message(), None) == APPLIED
    await hooks.responding("exchange", [])
    assert seen == ["sound"] * 3


async def test_commands_are_handed_over_in_the_order_of_the_calls_however_long_a_hook_takes() -> None:
    hooks: Hooks[Any] = Hooks()
    turns = [asyncio.Event() for _ in range(5)]
    began = asyncio.Event()

    @hooks.before_issue
    async def slow_at_first(_: str, given: CommandMessage) -> None:
        began.set()
        await turns[int(given.command_id or 0)].wait()

    writes = Writes()
    hooked = HookedWrites(writes, hooks)
    issuing = [asyncio.create_task(hooked.issue("t", message(number), None)) for number in range(5)]
    await began.wait()
    for turn in reversed(turns):
        turn.set()
    await asyncio.gather(*issuing)
    assert [each.command_id for each in writes.issued] == ["0", "1", "2", "3", "4"]


async def test_a_response_is_told_of_the_commands_of_its_request_and_of_no_other() -> None:
    hooks: Hooks[str] = Hooks()
    told: dict[str, list[str | None]] = {}

    @hooks.on_response
    async def note(exchange: str, issued: Sequence[Issued]) -> None:
        told[exchange] = [each.message.command_id for each in issued]

    hooked = HookedWrites(Writes(), hooks)

    async def request(name: str, *numbers: int) -> None:
        issued = begin_acting().issued
        await asyncio.gather(*(hooked.issue("t", message(number), None) for number in numbers))
        await hooks.responding(name, issued)

    await asyncio.gather(request("one", 1, 2), request("other", 3), request("none"))
    assert told == {"one": ["1", "2"], "other": ["3"], "none": []}


async def test_a_command_without_an_outcome_calls_no_hook_for_one() -> None:
    hooks: Hooks[Any] = Hooks()
    seen: list[Issued] = []

    @hooks.after_outcome
    async def note(issued: Issued) -> None:
        seen.append(issued)

    with pytest.raises(CommandPending):
        await HookedWrites(Writes(CommandPending("1")), hooks).issue("t", message(), None)
    assert seen == []
