"""Hooks on the life cycle of a write, for programs that expose the library: an HTTP application, a script, a test.

    before_issue    a command is about to be handed over; its options may be changed
    after_outcome   its outcome has arrived, whatever it is
    on_rejection    its outcome is `rejected`
    on_response     the answer to the request that issued it is about to be sent

Hooks are coroutine functions, called in the order of their registration, each when the one before has returned. A hook
that raises, or takes longer than HOOK_TIMEOUT_S, is logged and changes nothing: a write never fails because of a hook.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import structlog

from coordinator.client.acting import Issued, note_issued
from coordinator.client.writes import Writes
from coordinator.protocol.wire import CommandMessage
from coordinator.service.outcome import Outcome
from coordinator.service.targets import ANYWHERE, Targets

HOOK_TIMEOUT_S: Final = 1.0

log = structlog.get_logger("hooks")


BeforeIssue = Callable[[str, CommandMessage], Awaitable[CommandMessage | None]]
"""Takes the lane and the message. A message that it returns replaces the given one. It must be the same command: only
its deadline, expected version and trace context may differ."""
OnOutcome = Callable[[Issued], Awaitable[None]]

Exchange = TypeVar("Exchange")
OnResponse = Callable[[Exchange, Sequence[Issued]], Awaitable[None]]
"""Takes the application's own request and response, and the commands that were issued in between."""


class Hooks(Generic[Exchange]):
    """The hooks of one application. Each method registers one, and returns it, so that it may decorate it."""

    def __init__(self) -> None:
        self._before_issue: list[BeforeIssue] = []
        self._after_outcome: list[OnOutcome] = []
        self._on_rejection: list[OnOutcome] = []
        self._on_response: list[OnResponse[Exchange]] = []

    def before_issue(self, hook: BeforeIssue) -> BeforeIssue:
        """Call it before each command is handed over."""
        self._before_issue.append(hook)
        return hook

    def after_outcome(self, hook: OnOutcome) -> OnOutcome:
        """Call it after each outcome."""
        self._after_outcome.append(hook)
        return hook

    def on_rejection(self, hook: OnOutcome) -> OnOutcome:
        """Call it after each outcome that is `rejected`, after those of `after_outcome`."""
        self._on_rejection.append(hook)
        return hook

    def on_response(self, hook: OnResponse[Exchange]) -> OnResponse[Exchange]:
        """Call it before each response is sent."""
        self._on_response.append(hook)
        return hook

    @property
    def has_before_issue(self) -> bool:
        """Whether there is a hook to call before a command is handed over."""
        return bool(self._before_issue)

    @property
    def has_on_response(self) -> bool:
        """Whether there is a hook to call before a response is sent."""
        return bool(self._on_response)

    async def issuing(self, lane: str, message: CommandMessage) -> CommandMessage:
        """The message as the hooks return it."""
        for hook in self._before_issue:
            changed = await _contained(hook, lane, message)
            if changed is not None and changed is not message:
                if _is_same(changed, message):
                    message = changed
                else:
                    log.error("hook_refused", hook=_name(hook), reason="it returned another command")
        return message

    async def concluded(self, issued: Issued) -> None:
        """An outcome has arrived."""
        for hook in self._after_outcome:
            await _contained(hook, issued)
        if issued.outcome is not None and issued.outcome.status == "rejected":
            for hook in self._on_rejection:
                await _contained(hook, issued)

    async def responding(self, exchange: Exchange, issued: Sequence[Issued]) -> None:
        """A response is about to be sent."""
        for hook in self._on_response:
            await _contained(hook, exchange, issued)


class HookedWrites:
    """Implements `Writes` around another, with the hooks of an application. It says for whom commands are issued."""

    def __init__(self, writes: Writes, hooks: Hooks[Any], targets: Targets = ANYWHERE) -> None:
        """`targets` say which lane of a service is meant."""
        self._writes = writes
        self._hooks = hooks
        self._targets = targets
        self._handing_over = asyncio.Lock()

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        lane = self._targets.of(lane)
        issued = note_issued(lane, message)
        if self._hooks.has_before_issue:
            # One after the other, so that commands are handed over in the order of the calls, however long a hook
            # takes.
            async with self._handing_over:
                issued.message = await self._hooks.issuing(lane, issued.message)
                handed_over = asyncio.ensure_future(self._writes.issue(lane, issued.message, wait_s))
            issued.outcome = await handed_over
        else:
            issued.outcome = await self._writes.issue(lane, issued.message, wait_s)
        await self._hooks.concluded(issued)
        return issued.outcome


async def _contained(hook: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    try:
        async with asyncio.timeout(HOOK_TIMEOUT_S):
            return await hook(*arguments)
    except Exception:  # no error of a hook may fail the write
        log.exception("hook_failed", hook=_name(hook))
        return None


def _is_same(one: CommandMessage, other: CommandMessage) -> bool:
    return _content(one) == _content(other)


def _content(message: CommandMessage) -> tuple[object, ...]:
    return message.command_id, message.type, message.command_version, message.arguments, message.actor


def _name(hook: object) -> str:
    return getattr(hook, "__qualname__", repr(hook))
