"""Publishing emitted commands, until the transport has them.

The commands for one lane go as one message after the other, each with all that wait by then (a pack): a queue that is
full now and then refuses a message and takes the next one, and the order would be another. Of effects no order is
promised, since several workers have them; they go at once, each by itself.

A target that takes nothing, because its queue is missing or full, is asked again with one command, after pauses that
grow. Its other commands wait behind that one; commands for other targets do not.

An `Emitting` lasts as long as its consumer's channel. The lane may be another process's after that, whose operators may
withdraw what is not sent yet; and whoever has the lane next reads in the outbox what is still to be sent.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from time import monotonic, time
from typing import Any, ClassVar, Final

import structlog
from msgspec import Struct

from coordinator.client.publish_spans import PublishSpan, publish_span_of
from coordinator.lane.outbox import message_of
from coordinator.protocol.packing import PACK_COMMANDS_MAX, PackRoom, is_packable
from coordinator.protocol.wire import HEADER_REPLAYED, CommandMessage, headers_of
from coordinator.runtime.recording import Attributes
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.errors import OutcomeUnknown
from coordinator.service.options import Options
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.stores.lane_tables import OutboxEntry

RETRY_DELAY_S_MAX: Final = 30.0

log = structlog.get_logger("outbox")


class EmittedMessage(Struct, frozen=True):
    """An emitted command as it travels."""

    entry: OutboxEntry
    message: CommandMessage

    @property
    def is_replayed(self) -> bool:
        """Whether an operator has had it sent once more."""
        return Options.decode(self.entry.options).replayed

    @property
    def headers(self) -> dict[str, Any]:
        """Those of a message that has it alone."""
        headers = headers_of(self.message, is_lowered=self.message.origin == "public")
        if self.is_replayed:
            headers[HEADER_REPLAYED] = True
        return headers

    @property
    def at_s(self) -> int:
        """When it is published; of an effect, from whose age its worker knows what the other side may have forgotten,
        when it was emitted. In seconds since the Unix epoch."""
        return int(self.entry.created_at.timestamp() if self.entry.lane.startswith(EFFECTS_PREFIX) else time())


class Backoff:
    """A target is not asked while it has one. A timer of one that it has no more does nothing."""


class Target:
    """The commands for one lane, or for the workers of one service's effects."""

    def __init__(self, name: str, delay_s: float) -> None:
        self.name = name
        self.is_ordered = not name.startswith(EFFECTS_PREFIX)
        # Of a dict the first key is found behind the places of all that were removed before it.
        self.waiting: OrderedDict[int, OutboxEntry] = OrderedDict()
        """Those that no message has, by their numbers."""
        self.backoff: Backoff | None = None
        self.delay_s = self._first_delay_s = delay_s
        self.is_doubtful = False
        """It took nothing when it was asked last."""
        self._under_way: dict[asyncio.Future[None], list[OutboxEntry]] = {}
        self._ids_under_way: set[tuple[int, str]] = set()

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self._under_way

    @property
    def has_room(self) -> bool:
        """Whether another message may be on its way to it."""
        return not self._under_way or not (self.is_ordered or self.is_doubtful)

    def add(self, entry: OutboxEntry) -> None:
        """It waits, unless it is on its way: if it were sent twice, it could not be withdrawn."""
        if _id_of(entry) not in self._ids_under_way:
            self.waiting[entry.id] = entry

    def put_back(self, entries: Iterable[OutboxEntry]) -> None:
        """They wait before those that came after them, where there is an order."""
        for entry in entries:
            self.waiting.setdefault(entry.id, entry)
        if self.is_ordered:
            # Of effects, thousands may be refused at once, each by itself.
            self.waiting = OrderedDict(sorted(self.waiting.items()))

    def next(self, commands_max: int) -> list[EmittedMessage]:
        """The commands of the next message, at most so many; they wait no longer."""
        first = _emitted(self.waiting.popitem(last=False)[1])
        taken, room = [first], PackRoom(commands_max)
        if self.is_ordered and not self.is_doubtful and _is_packable(first) and room.take(first.message):
            while self.waiting:
                another = _emitted(next(iter(self.waiting.values())))
                if not (_is_packable(another) and room.take(another.message)):
                    break
                del self.waiting[another.entry.id]
                taken.append(another)
        return taken

    def sent(self, confirm: "asyncio.Future[None]", emitted: Sequence[EmittedMessage]) -> None:
        """They are on their way."""
        self._under_way[confirm] = [each.entry for each in emitted]
        self._ids_under_way.update(_id_of(each.entry) for each in emitted)

    def answered(self, confirm: "asyncio.Future[None]") -> list[OutboxEntry]:
        """Those of this message are on their way no more; none, if one of them was withdrawn meanwhile."""
        entries = self._under_way.pop(confirm, [])
        self._ids_under_way.difference_update(map(_id_of, entries))
        return entries

    def withdraw(self, numbers: AbstractSet[int]) -> None:
        """Those with these numbers are sent no more."""
        for number in numbers & self.waiting.keys():
            del self.waiting[number]
        for confirm, entries in list(self._under_way.items()):
            kept = [entry for entry in entries if entry.id not in numbers]
            if len(kept) < len(entries):
                # Even if its answer has arrived. The others may come twice, which their lane sees by their ids.
                self.answered(confirm)
                confirm.cancel()
                self.put_back(kept)

    def abandon(self) -> None:
        """None of them is sent any more; those under way may arrive, or not."""
        self.waiting.clear()
        for confirm in list(self._under_way):
            self.answered(confirm)
            confirm.cancel()

    def has_taken(self) -> None:
        """It takes messages, and is asked without a pause."""
        self.backoff, self.is_doubtful, self.delay_s = None, False, self._first_delay_s


class Emitting(ABC):
    """The emitted commands of one lane on their way, until `stop`. Used within the loop of its publisher."""

    messaging: ClassVar[Attributes]
    """What spans say of the messages."""
    pack_commands_max: ClassVar[int] = PACK_COMMANDS_MAX

    def __init__(self, on_confirmed: Callable[[Sequence[OutboxEntry]], None], retry_delay_s: float) -> None:
        self._on_confirmed = on_confirmed
        self._retry_delay_s = retry_delay_s
        self._targets: dict[str, Target] = {}
        self._warnings = RepeatedLine()
        self._is_stopped = False

    def publish(self, entries: Iterable[OutboxEntry]) -> None:
        """Publish these commands, however long it takes. After `stop` they are left."""
        by_target: defaultdict[str, list[OutboxEntry]] = defaultdict(list)
        for entry in entries if not self._is_stopped else ():
            by_target[entry.lane].append(entry)
        for name, its in by_target.items():
            target = self._targets.get(name)
            if target is None:
                target = self._targets[name] = Target(name, self._retry_delay_s)
            for entry in its:
                target.add(entry)
            self._go_on(target)

    def withdraw(self, ids: Iterable[int]) -> None:
        """Stop sending these commands: an operator has withdrawn them."""
        numbers = frozenset(ids)
        for target in list(self._targets.values()) if numbers else ():
            target.withdraw(numbers)
            self._go_on(target)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be sent, or may not be there yet."""
        return not self._targets

    def stop(self) -> None:
        """Send nothing any more, nor again. What is not confirmed stays in the outbox."""
        self._is_stopped = True
        for target in self._targets.values():
            target.abandon()
        self._targets.clear()

    def _go_on(self, target: Target) -> None:
        """Send what waits for a target, if it may be asked."""
        while target.waiting and target.backoff is None and target.has_room:
            self._send(target, target.next(self.pack_commands_max))
        if target.is_idle and self._targets.get(target.name) is target:
            del self._targets[target.name]

    def _send(self, target: Target, emitted: Sequence[EmittedMessage]) -> None:
        spans = [publish_span_of(each.message) for each in emitted]
        carried = [
            each if span is None else EmittedMessage(each.entry, span.carried)
            for each, span in zip(emitted, spans, strict=True)
        ]
        confirm = self._put(target.name, carried)
        target.sent(confirm, emitted)
        if begun := [span for span in spans if span is not None]:
            confirm.add_done_callback(partial(self._end, begun, target.name))
        confirm.add_done_callback(partial(self._on_done, target))

    @abstractmethod
    def _put(self, target: str, emitted: Sequence[EmittedMessage]) -> "asyncio.Future[None]":
        """Publish commands as one message; the future is done once it is safe, or fails where its target takes it not
        now."""

    def _end(self, spans: Sequence[PublishSpan], target: str, confirm: "asyncio.Future[None]") -> None:
        error = None if confirm.cancelled() else confirm.exception()
        shown = getattr(error, "code", None) or type(error).__name__
        for span in spans:
            span.end(target, self.messaging, error=None if error is None else str(shown))

    def _on_done(self, target: Target, confirm: "asyncio.Future[None]") -> None:
        # Nobody knows of a cancelled one whether the broker has it.
        error = OutcomeUnknown("nobody waits for the confirm") if confirm.cancelled() else confirm.exception()
        entries = target.answered(confirm)
        if not entries:
            # One of them is withdrawn, and the others wait again.
            return
        if error is None:
            target.has_taken()
            self._on_confirmed(entries)
        else:
            target.put_back(entries)
            self._refused(target, error)
        self._go_on(target)

    def _refused(self, target: Target, error: BaseException) -> None:
        target.is_doubtful = True
        if target.backoff is None:
            target.backoff = Backoff()
            self._ask_later(target, target.backoff)
            target.delay_s = min(target.delay_s * 2, RETRY_DELAY_S_MAX)
        self._warn(target, error)

    def _ask_later(self, target: Target, backoff: Backoff) -> None:
        asyncio.get_running_loop().call_later(target.delay_s, self._ask_again, target, backoff)

    def _ask_again(self, target: Target, backoff: Backoff) -> None:
        if target.backoff is backoff:
            target.backoff = None
            self._go_on(target)

    def _warn(self, target: Target, error: BaseException) -> None:
        if self._warnings.is_due(target.name, monotonic()):
            first = next(iter(target.waiting.values()))
            log.error("emitted_commands_not_taken", target=target.name, command_id=first.command_id, error=str(error))


def _emitted(entry: OutboxEntry) -> EmittedMessage:
    return EmittedMessage(entry, message_of(entry))


def _id_of(entry: OutboxEntry) -> tuple[int, str]:
    """If the database has lost commits, another command may have an entry's number."""
    return entry.id, entry.command_id


def _is_packable(emitted: EmittedMessage) -> bool:
    return is_packable(emitted.message) and not emitted.is_replayed
