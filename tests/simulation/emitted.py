"""Publishing what was emitted: the product's own code, on a loop and a publisher that are simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from coordinator.protocol.decoding import decode
from coordinator.service.errors import Overloaded
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.emitting import Backoff, EmittedMessage, Target
from coordinator.transports.rabbitmq.emitted import EmittedCommands
from coordinator.transports.rabbitmq.properties import envelope_of
from tests.simulation.broker import Message
from tests.simulation.schedule import NEVER
from tests.simulation.stranger import PACK_MAX

if TYPE_CHECKING:
    from tests.simulation.process import Process

RETRY_DELAY_S = 0.1


class Confirm:
    """What of an asyncio.Future is used. As there, its callback comes a little later."""

    __slots__ = ("_callback", "_cancel", "_is_cancelled", "_is_done", "_soon", "error")

    def __init__(self, soon: Callable[[Callable[[], None]], None]) -> None:
        self._soon = soon
        self._callback: Callable[[Any], None] | None = None
        self._cancel: Callable[[], None] | None = None
        self._is_cancelled = self._is_done = False
        self.error: Exception | None = None

    def on_cancel(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callback = callback

    def answered(self, is_taken: bool) -> None:
        self.error = None if is_taken else Overloaded("the queue takes nothing")
        self._done()

    def cancel(self) -> bool:
        if self._is_done:
            return False
        self._is_cancelled = True
        if self._cancel is not None:
            self._cancel()
        self._done()
        return True

    def cancelled(self) -> bool:
        return self._is_cancelled

    def exception(self) -> Exception | None:
        return self.error

    def _done(self) -> None:
        self._is_done = True
        self._soon(self._call_back)

    def _call_back(self) -> None:
        if self._callback is not None:
            self._callback(self)


class _Publisher:
    """What the product's code sees of its process's publisher."""

    def __init__(self, process: Process, soon: list[Callable[[], None]]) -> None:
        self._process = process
        self._soon = soon

    def publish(self, exchange: str, target: str, properties: Any, body: bytes) -> Any:
        confirm = Confirm(self._soon.append)
        publisher = self._process.publisher
        ids = tuple(command.command_id for command in decode(envelope_of(properties, exchange), body))
        message = Message(exchange, properties, body, ids)
        number = publisher.publish(target, message, confirm.answered)
        confirm.on_cancel(lambda: publisher.forget(number))
        return confirm


class SimulatedEmitted(EmittedCommands):
    """Its timers are kept here, until the process's broker thread has its turn."""

    pack_commands_max = PACK_MAX

    def __init__(self, process: Process, on_confirmed: Callable[[Any], None]) -> None:
        self.soon: list[Callable[[], None]] = []
        self.timers: list[tuple[float, Target, Backoff]] = []
        self.withdrawn: set[int] = set()
        self.held: dict[int, str] = {}
        """What it may still publish: the ids of commands, by the numbers of their entries."""
        self._process = process
        publisher: Any = _Publisher(process, self.soon)

        def confirmed(entries: Iterable[OutboxEntry]) -> None:
            self._let_go(entry.id for entry in entries)
            on_confirmed(entries)

        super().__init__(publisher, confirmed, RETRY_DELAY_S)

    def publish(self, entries: Iterable[OutboxEntry]) -> None:
        given = list(entries)
        self.held.update((entry.id, entry.command_id) for entry in given)
        numbers = self._process.world.emitted[self._process.lane_name]
        for entry in given:
            numbers.setdefault(entry.command_id, entry.id)
        super().publish(given)

    def withdraw(self, ids: Iterable[int]) -> None:
        numbers = list(ids)
        self._let_go(numbers)
        self.withdrawn.update(numbers)
        super().withdraw(numbers)

    def stop(self) -> None:
        self.held.clear()
        super().stop()

    def _let_go(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.held.pop(number, None)

    def _send(self, target: Target, messages: Sequence[EmittedMessage]) -> None:
        for each in messages:
            if self._process.channel is None or self._process.emitted is not self:
                self._process.world.violation(f"{self._process} sends {each.entry.command_id} without its channel")
            if each.entry.id in self.withdrawn:
                self._process.world.violation(f"{self._process} sends {each.entry.command_id}, which was withdrawn")
        super()._send(target, messages)

    def step(self) -> bool:
        """Call back what is done, or whoever's time has come; False: there is nobody."""
        if self.soon:
            soon = list(self.soon)
            self.soon.clear()
            for callback in soon:
                callback()
            return True
        now = self._process.world.now
        for timer in self.timers:
            if timer[0] <= now and not self._is_hopeless(timer[1].name):
                self.timers.remove(timer)
                self._ask_again(timer[1], timer[2])
                return True
        return False

    def wake(self) -> float:
        if self.soon:
            return self._process.world.now
        return min((at for at, target, _ in self.timers if not self._is_hopeless(target.name)), default=NEVER)

    def _ask_later(self, target: Target, backoff: Backoff) -> None:
        self.timers.append((self._process.world.now + target.delay_s, target, backoff))

    def _warn(self, target: Target, error: BaseException) -> None:
        """Nobody reads it."""

    def _is_hopeless(self, target: str) -> bool:
        """Nobody would ask for ever, and so never come to rest."""
        world = self._process.world
        return world.is_calm and target in world.broker.is_missing
