"""Publishing emitted commands, until the transport has them.

A target that takes nothing, because its queue is missing or full, is asked again with one command, after pauses that
grow. Its other commands wait behind that one; commands for other targets do not.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import ClassVar

import structlog

from coordinator.client.publish_spans import PublishSpan, publish_span_of
from coordinator.lane.outbox import message_of
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.recording import Attributes
from coordinator.stores.lane_tables import OutboxEntry

RETRY_DELAY_S_MAX = 30.0
WARNED_EVERY_S = 60.0

log = structlog.get_logger("outbox")


class _WaitingTarget:
    """The commands that wait for one target, in order, and when it is asked again."""

    def __init__(self, delay_s: float) -> None:
        self.entries: dict[int, OutboxEntry] = {}
        self.delay_s = delay_s
        self.warned_at_s: float | None = None


class Emitting(ABC):
    """The emitted commands of one lane on their way. Used within the loop of its publisher."""

    messaging: ClassVar[Attributes]
    """What spans say of the messages."""

    def __init__(self, on_confirmed: Callable[[Sequence[OutboxEntry]], None], retry_delay_s: float) -> None:
        self._on_confirmed = on_confirmed
        self._retry_delay_s = retry_delay_s
        self._waiting: dict[str, _WaitingTarget] = {}
        self._under_way: dict[int, asyncio.Future[None]] = {}
        self._is_stopped = False

    def publish(self, entries: Iterable[OutboxEntry]) -> None:
        """Publish these commands, however long it takes."""
        for entry in entries:
            waiting = self._waiting.get(entry.lane)
            if waiting is None:
                self._send(entry)
            else:
                waiting.entries[entry.id] = entry

    def withdraw(self, ids: Iterable[int]) -> None:
        """Stop sending these commands: an operator has withdrawn them."""
        for number in ids:
            confirm = self._under_way.pop(number, None)
            if confirm is not None:
                confirm.cancel()
            for waiting in self._waiting.values():
                waiting.entries.pop(number, None)

    def stop(self) -> None:
        """Stop publishing. Unconfirmed commands stay in the outbox."""
        self._is_stopped = True

    def _send(self, entry: OutboxEntry) -> None:
        if entry.id in self._under_way:
            # The table was read again meanwhile. If the command were sent twice, it could not be withdrawn.
            return
        message = message_of(entry)
        span = publish_span_of(message)
        confirm = self._put(entry, message if span is None else span.carried)
        self._under_way[entry.id] = confirm
        if span is not None:
            confirm.add_done_callback(partial(self._end, span, entry.lane))
        confirm.add_done_callback(partial(self._on_done, entry))

    @abstractmethod
    def _put(self, entry: OutboxEntry, message: CommandMessage) -> "asyncio.Future[None]":
        """Publish a command; the future is done once it is safe, or fails where its target takes it not now."""

    def _end(self, span: PublishSpan, target: str, confirm: "asyncio.Future[None]") -> None:
        error = None if confirm.cancelled() else confirm.exception()
        shown = getattr(error, "code", None) or type(error).__name__
        span.end(target, self.messaging, error=None if error is None else str(shown))

    def _on_done(self, entry: OutboxEntry, confirm: "asyncio.Future[None]") -> None:
        if self._under_way.get(entry.id) is not confirm:
            # It is withdrawn, even if its answer had arrived; the commands behind it for its target go on.
            self._go_on(entry.lane)
            return
        del self._under_way[entry.id]
        error = confirm.exception()
        if error is None:
            self._on_confirmed([entry])
            self._go_on(entry.lane)
        elif not self._is_stopped:
            self._wait(entry, error)

    def _go_on(self, target: str) -> None:
        waiting = self._waiting.pop(target, None)
        if waiting is not None:
            self.publish(waiting.entries.values())

    def _wait(self, entry: OutboxEntry, error: BaseException) -> None:
        waiting = self._waiting.get(entry.lane)
        if waiting is None:
            waiting = self._waiting[entry.lane] = _WaitingTarget(self._retry_delay_s)
            self._ask_later(entry.lane, waiting)
        waiting.entries[entry.id] = entry
        self._warn(entry, error, waiting)

    def _ask_later(self, target: str, waiting: _WaitingTarget) -> None:
        asyncio.get_running_loop().call_later(waiting.delay_s, self._ask_again, target, waiting)

    def _warn(self, entry: OutboxEntry, error: BaseException, waiting: _WaitingTarget) -> None:
        now_s = monotonic()
        if waiting.warned_at_s is None or now_s - waiting.warned_at_s >= WARNED_EVERY_S:
            waiting.warned_at_s = now_s
            log.error("emitted_commands_not_taken", target=entry.lane, command_id=entry.command_id, error=str(error))

    def _ask_again(self, target: str, waiting: _WaitingTarget) -> None:
        if self._is_stopped or self._waiting.get(target) is not waiting:
            return
        waiting.delay_s = min(waiting.delay_s * 2, RETRY_DELAY_S_MAX)
        if not waiting.entries:
            del self._waiting[target]
            return
        self._ask_later(target, waiting)
        number = min(waiting.entries)
        if number not in self._under_way:
            self._send(waiting.entries.pop(number))
