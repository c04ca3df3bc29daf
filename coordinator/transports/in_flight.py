"""Commands that callers wait for: how they are put into messages, and when the last caller has its outcome."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from coordinator.protocol.actors import is_anothers
from coordinator.protocol.fingerprints import Fingerprints
from coordinator.protocol.packing import PackRoom, is_json_text
from coordinator.protocol.wire import CommandMessage
from coordinator.service.outcome import Outcome
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.outcomes import is_forgotten


class InFlight:
    """A command that a caller waits for: `outcome` is its outcome, or the error why there is none."""

    __slots__ = ("command_id", "confirmed_at", "correlation_id", "message", "outcome", "pack", "wait_s")

    def __init__(self, message: CommandMessage, outcome: "asyncio.Future[Outcome]", wait_s: float) -> None:
        self.command_id = message.command_id or ""
        self.message = message
        self.outcome = outcome
        self.wait_s = wait_s
        self.confirmed_at: float | None = None
        self.correlation_id: str | None = None
        self.pack: Pack | None = None

    @property
    def has_outcome(self) -> bool:
        """Whether its outcome has come."""
        return self.outcome.done() and not self.outcome.cancelled() and self.outcome.exception() is None

    def was_confirmed_by(self, moment: float) -> bool:
        """Whether the broker has had it since then, by `perf_counter`."""
        return self.confirmed_at is not None and self.confirmed_at <= moment

    def fail(self, error: Exception) -> None:
        """Give the error to the caller that waits, unless it is too late for that."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Pack:
    """The commands of one message, from its publishing until no caller waits for any of them.

    One that `must_come` has numbers of a session: it is published again, whoever waits, until the broker has it or
    `withdraw` is called.
    """

    __slots__ = ("_confirm", "_entries", "_must_come", "_remaining", "timers")

    def __init__(self, entries: list[InFlight], confirm: "asyncio.Future[None]", *, must_come: bool = False) -> None:
        self._entries = entries
        self._confirm = confirm
        self._must_come = must_come
        self._remaining = len(entries)
        self.timers: list[asyncio.TimerHandle] = []
        for entry in entries:
            entry.pack = self

    def confirmed(self) -> list[InFlight]:
        """The broker has the message: the commands that still have no outcome."""
        now = time.perf_counter()
        waiting = [entry for entry in self._entries if not entry.outcome.done()]
        for entry in waiting:
            entry.confirmed_at = now
        return waiting

    def fail(self, error: Callable[[InFlight], Exception]) -> None:
        """Give the error to all callers that wait."""
        for entry in self._entries:
            entry.fail(error(entry))

    def forget(self) -> None:
        """No caller waits for this command any more; after the last one the message need not be published again."""
        self._remaining -= 1
        if self._remaining == 0 and not (self._must_come and not self._confirm.done()):
            self.withdraw()

    def withdraw(self) -> None:
        """The message is not published again."""
        self.cancel_timers()
        self._confirm.cancel()

    def cancel_timers(self) -> None:
        """Cancel the timers of all commands."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


def packs_of(issued: Sequence[InFlight], is_expected: Callable[[str], bool]) -> Iterator[tuple[list[InFlight], bool]]:
    """Put commands into messages, in their order; with each, whether only the correlation id identifies its outcome.

    That is so if the outcome of another command with the same id may yet come: the command then travels alone. So does
    a command whose arguments are not JSON, since it would make the whole pack unreadable. The commands of one pack have
    one origin, since the system's own go through another exchange, and no more actors than its head has room for.
    """
    if len(issued) == 1:
        # In no pack it spoils none, and needs no room in one.
        yield list(issued), is_expected(issued[0].command_id)
        return
    pack: list[InFlight] = []
    ids: set[str] = set()
    room = PackRoom()
    for entry in issued:
        message = entry.message
        is_alone = entry.command_id in ids or is_expected(entry.command_id)
        is_json = is_json_text(message.arguments)
        is_other = bool(pack) and pack[0].message.origin != message.origin
        if pack and (is_alone or is_other or not is_json or not room.take(message)):
            yield pack, False
            pack = []
        if is_alone:
            yield [entry], True
            continue
        ids.add(entry.command_id)
        if not pack:
            room = PackRoom()
            room.take(message)
        pack.append(entry)
        if not is_json:
            yield pack, False
            pack = []
    if pack:
        yield pack, False


def is_of(found: LogEntry, message: CommandMessage, fingerprints: Fingerprints) -> bool:
    """Whether an entry of the log is this command's, and is for whoever asks for it: as the lane would decide."""
    is_told = message.origin == "system" or not is_anothers(found.actor, message.actor)
    if is_forgotten(found):
        # Where it is forgotten who asked, the lane tells nothing of it.
        return is_told and found.type == message.type and (message.origin == "system" or found.actor is not None)
    return is_told and fingerprints.is_same(found.fingerprint, message)
