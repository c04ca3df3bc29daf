"""Deliberate bugs in what keeps strangers out and dead letters safe; part of tests/simulation/catalogue.py."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from coordinator.lane import admission as admission_module
from coordinator.lane import follow_up as follow_up_module
from coordinator.lane import orders as orders_module
from coordinator.lane import parking as parking_module
from coordinator.lane import repetition as repetition_module
from coordinator.lane import request as request_module
from coordinator.lane import settle as settle_module
from coordinator.lane.dead_letters import DeadLetters
from coordinator.lane.orders import Orders
from coordinator.lane.outbox import Outbox
from coordinator.lane.unit_of_work import BatchWork
from coordinator.protocol import decoding
from coordinator.service.continuation import Deferred
from coordinator.stores.lane_tables import DeadLetter
from coordinator.stores.port import Changes, Lease
from coordinator.transports.emitting import Target
from coordinator.transports.rabbitmq import incoming as incoming_module
from coordinator.transports.rabbitmq.emitted import EmittedCommands
from tests.simulation import broker as broker_module
from tests.simulation.database import Pending, rows_of
from tests.simulation.mutant import RARE_SEEDS_MAX, Mutant, rewritten
from tests.simulation.patching import Patches
from tests.simulation.process import Process
from tests.simulation.store import SimulatedTransaction

_IS_HANDED = "len(window.handed)"
_ALL_HANDED = "sum(len(each.handed) for each in self._windows.values())"


def _letters_apart(changes: Changes) -> tuple[Changes, Changes]:
    """What is about letters, and the rest."""
    letters = [rows for rows in changes.inserts if type(rows[0]) is DeadLetter]
    others = [rows for rows in changes.inserts if type(rows[0]) is not DeadLetter]
    return Changes([], [], letters), Changes(changes.deletes, changes.updates, others)


def _letter_after_the_commit(patches: Patches) -> None:
    def commit(original: Any, self: Any, lease: Lease, sequence: int, changes: Changes) -> None:
        letters, others = _letters_apart(changes)
        original(self, lease, sequence, others)
        if letters.inserts:
            self.store.call("second commit")
            process = self.store.process
            self.database.land(Pending(process, lease, sequence, letters, process.waiting, *process.seen.at_commit()))

    patches.wrap(SimulatedTransaction, "commit", commit)


def _letter_before_the_commit(patches: Patches) -> None:
    def commit(original: Any, self: Any, lease: Lease, sequence: int, changes: Changes) -> None:
        letters, others = _letters_apart(changes)
        added = rows_of(DeadLetter, letters.inserts)
        self.database.table(DeadLetter).update({row.id: row for row in added})
        original(self, lease, sequence, others)

    patches.wrap(SimulatedTransaction, "commit", commit)


def _window_shared(patches: Patches) -> None:
    patches.rewrite(Outbox, "pages", _IS_HANDED, _ALL_HANDED)
    patches.rewrite(Outbox, "emitted", _IS_HANDED, _ALL_HANDED)


def _fresh_replay_id(patches: Patches) -> None:
    numbers = itertools.count(1)
    patches.replace(orders_module, "_replay_id", lambda letter: f"{next(numbers):08x}-0000-8000-8000-{0:012d}")


def _withdrawal_ignored(patches: Patches) -> None:
    patches.replace(EmittedCommands, "withdraw", lambda self, ids: None)


def _expired_acknowledged(patches: Patches) -> None:
    def on_message(original: Any, self: Process, tag: int, message: Any, is_redelivered: bool) -> None:
        if not message.queue.is_dead:
            original(self, tag, message, is_redelivered)
            return
        self.acknowledger.delivered(tag)
        self.acknowledge(self.channel_number, [tag])

    patches.wrap(Process, "on_message", on_message)


def _nameless_counted_wrongly(patches: Patches) -> None:
    def remove(original: Any, self: DeadLetters, letter: DeadLetter) -> None:
        self._work.remove(letter)

    patches.wrap(DeadLetters, "remove", remove)


def _expired_is_applied(patches: Patches) -> None:
    patches.rewrite(
        incoming_module,
        "dead_delivery_of",
        "msgspec.structs.replace(command, deadline_ms=_LONG_AGO_MS)",
        "command",
    )
    patches.replace(broker_module, "dead_delivery_of", incoming_module.dead_delivery_of)


def _forged_letter_believed(patches: Patches) -> None:
    patches.rewrite(incoming_module, "dead_delivery_of", "and method.exchange == DEAD_EXCHANGE", "")
    patches.replace(broker_module, "dead_delivery_of", incoming_module.dead_delivery_of)


def _forbidden_type_obeyed(patches: Patches) -> None:
    patches.rewrite(
        request_module,
        "prepare",
        "if handler is None or not _may_send(message, handler):",
        "if handler is None:",
    )
    for module in (admission_module, parking_module, orders_module):
        patches.replace(module, "prepare", request_module.prepare)


def _withdrawn_page_sent(patches: Patches) -> None:
    patches.rewrite(Outbox, "withdrawn", "self._to_publish.pop(number, None)", "pass")


def mutants() -> Iterator[Mutant]:
    yield from _of_origin()
    yield from _of_letters()
    yield from _of_the_outbox()


def _of_origin() -> Iterator[Mutant]:
    yield rewritten(
        "origin-forgotten-at-parking",
        "what a stranger said is the system's once it has waited",
        parking_module,
        "_row",
        "with_origin=True",
        "with_origin=False",
    )
    yield rewritten(
        "origin-forgotten-in-the-outbox",
        "a stranger's continuation leaves the lane as the system's",
        BatchWork,
        "_entry_of",
        "None if options is NO_OPTIONS else options.encode()",
        "None",
    )
    yield rewritten(
        "origin-forgotten-when-put-off",
        "a stranger's continuation is the system's once it was put off",
        Deferred,
        "encode",
        'return text if self.origin == "system" else f"{text} {self.origin}"',
        "return text",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "origin-forgotten-in-letters",
        "a stranger's command is the system's once it was replayed",
        DeadLetters,
        "_add",
        "options_of(message)",
        'msgspec.structs.replace(options_of(message), origin="system")',
    )
    yield rewritten(
        "strangers-continuation-is-the-systems",
        "whoever names a continuation has the system say it",
        follow_up_module,
        "continuation_of",
        "origin=message.origin",
        'origin="system"',
    )
    yield rewritten(
        "lowered-origin-ignored",
        "all that comes through writes.system is the system's, a stranger's continuation too",
        decoding,
        "_origin",
        'or "public" in (said, envelope.headers.get(ORIGIN.header))',
        "",
    )
    yield rewritten(
        "forged-origin-believed",
        "a header makes anybody the system",
        decoding,
        "_message",
        '_origin(envelope, origin) if envelope.is_system else "public"',
        'envelope.headers.get(ORIGIN.header, "system" if envelope.is_system else "public")',
    )
    yield rewritten(
        "version-8-accepted-at-the-public-door",
        "a stranger takes the id of a command that the system will derive",
        decoding,
        "_message",
        "not envelope.is_system and is_system_id(clean_id)",
        "False",
    )
    yield Mutant("forbidden-type-obeyed", "a stranger's internal command is applied", _forbidden_type_obeyed)
    yield rewritten(
        "forbidden-continuation-taken",
        "a command is applied that names a continuation its sender may not issue",
        request_module,
        "_refused_continuation",
        "if handler is not None and not _may_issue(message, handler):",
        "if False:",
    )
    yield rewritten(
        "unknown-lane-admitted",
        "a command is applied whose continuation goes to nobody",
        request_module,
        "_refused_continuation",
        "if targets.known is not None and lane not in targets.known:",
        "if False:",
    )
    yield rewritten(
        "mismatch-of-the-systems-is-silent",
        "a system command whose id was taken is forgotten",
        repetition_module,
        "mismatched",
        'is_ours = message.origin == "system"',
        "is_ours = False",
    )
    yield rewritten(
        "mismatch-not-reported",
        "who waits for a system command whose id was taken waits for ever",
        repetition_module,
        "mismatched",
        "if letter is not None and deferred is not None:",
        "if False:",
    )


def _of_letters() -> Iterator[Mutant]:
    yield Mutant("letter-after-the-commit", "a crash in between loses the dead letter", _letter_after_the_commit)
    yield Mutant("letter-before-the-commit", "what was rolled back has a dead letter", _letter_before_the_commit)
    yield rewritten(
        "letter-lost-at-redelivery",
        "what fails when it comes a second time has no dead letter",
        settle_module,
        "recorded",
        "if basis.spared < BARE:",
        "if basis.spared < BARE and not request.redelivered:",
    )
    yield rewritten(
        "letter-of-what-blocks",
        "the command at which the lane stops has a dead letter, and can never be settled",
        settle_module,
        "recorded",
        "return Fate(None, block=Blocked(reason))",
        "letter = basis.letters.failed(message, Defect('x', ''), None, None)\n"
        "            return Fate(None, letter, block=Blocked(reason))",
    )
    yield rewritten(
        "nameless-unbounded",
        "strangers fill the table with letters without an id",
        DeadLetters,
        "_has_room",
        "if series is not None and series.value >= self._nameless_max:",
        "if False:",
    )
    yield rewritten(
        "senders-bytes-not-counted-down",
        "the bytes of letters that are gone take the room of new ones",
        DeadLetters,
        "remove",
        "elif is_of_sender(letter) and letter.arguments:",
        "elif False:",
    )
    yield rewritten(
        "copies-not-found",
        "a copy of a message without an id is another letter",
        DeadLetters,
        "nameless",
        "if known is not None:",
        "if False:",
    )
    yield Mutant(
        "nameless-not-counted-down",
        "removed letters take the place of new ones",
        _nameless_counted_wrongly,
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "old-letter-taken-in-twice",
        "a letter of an older release that comes twice is written twice",
        DeadLetters,
        "taken_in",
        'if self._work.find(DeadLetter, "source", source) is not None:',
        "if False:",
    )
    yield rewritten(
        "replay-keeps-the-letter",
        "what was replayed is still a dead letter",
        Orders,
        "_replay",
        "self._letters.remove(letter)",
        "pass",
    )
    yield Mutant("replay-under-a-fresh-id", "a replay waits behind the failure it is to mend", _fresh_replay_id)
    yield rewritten(
        "discard-releases-nobody",
        "what waits behind a discarded command waits for ever",
        Orders,
        "_discard",
        "self._parking.release_behind(self._work, letter.command_id)",
        "pass",
    )
    yield Mutant("expired-is-not-settled", "what expires is acknowledged, and gone", _expired_acknowledged)
    yield Mutant("expired-is-applied", "what expired takes effect long after its turn", _expired_is_applied)
    yield Mutant(
        "forged-letter-believed", "a stranger's letter keeps a command from being settled", _forged_letter_believed
    )
    yield rewritten(
        "dead-queue-consumed-by-a-standby",
        "a standby takes the lane over for the sake of a dead letter",
        Process,
        "look_after_dead_letters",
        "if self.is_active:",
        "if True:",
    )


def _of_the_outbox() -> Iterator[Mutant]:
    yield Mutant("window-shared-by-targets", "a queue that takes nothing holds up all the others", _window_shared)
    yield rewritten(
        "waiting-shared-by-targets",
        "what is refused by one queue has the commands of the others wait",
        EmittedCommands,
        "publish",
        "self._targets.get(name)",
        "next(iter(self._targets.values()), None)",
    )
    yield Mutant(
        "emitted-overtake",
        "an emitted command that a full queue refuses comes after those behind it",
        lambda patches: patches.replace(Target, "has_room", property(lambda self: True)),
        RARE_SEEDS_MAX,
    )
    yield Mutant(
        "withdrawal-ignored",
        "a withdrawn command that waits to be sent is sent",
        _withdrawal_ignored,
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "emitted-without-channel",
        "a process that has lost the lane's channel goes on sending what waits",
        EmittedCommands,
        "stop",
        "target.abandon()",
        "pass",
    )
    yield Mutant(
        "withdrawn-page-sent",
        "a command is sent that was read by the transaction that withdrew it",
        _withdrawn_page_sent,
    )
    yield rewritten(
        "withdrawal-of-nothing",
        "an order to withdraw leaves the commands in the outbox",
        Orders,
        "_withdraw",
        "self._work.remove(entry)",
        "pass",
    )
