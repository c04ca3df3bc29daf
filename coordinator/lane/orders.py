"""Orders: how a lane carries out the commands that act on itself (coordinator/lane/control.py)."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET, Struct

from coordinator.lane.control import (
    CancelTimers,
    DeadEffect,
    Discarded,
    DiscardLetter,
    Forget,
    ForgetAsked,
    ForgetStep,
    Order,
    Release,
    Replayed,
    ReplayLetter,
    TimersCancelled,
    WithdrawEmitted,
    Withdrawn,
)
from coordinator.lane.dead_letters import DeadLetters
from coordinator.lane.forgetting import Forgetting
from coordinator.lane.outbox import Outbox
from coordinator.lane.parking import Parking
from coordinator.lane.request import Handlers, prepare
from coordinator.lane.unit_of_work import BatchWork
from coordinator.protocol.decoding import MALFORMED_COMMAND, UNREAD_PACK
from coordinator.protocol.wire import INVALID_HEADER, CommandMessage, Defect
from coordinator.service.commands import Command
from coordinator.service.continuation import Emission
from coordinator.service.errors import Rejected
from coordinator.service.ids import replay_command_id, system_command_id
from coordinator.service.options import Options
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.service.principal import BROKER_USER, NO_SCOPES, Principal
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.lane_tables import DeadLetter, OutboxEntry, Timer
from coordinator.stores.operator_acts import made_act
from coordinator.stores.passages import child_text

_ACTS: Final[Mapping[type[Command], str]] = {
    Release: "release",
    ReplayLetter: "dead replay",
    DiscardLetter: "dead discard",
    WithdrawEmitted: "outbox discard",
    CancelTimers: "timers cancel",
    Forget: "forget",
    ForgetAsked: "forget --actor",
}
"""As operators know them: by the names of the commands that give the orders."""


class Orders:
    """Carries them out within one transaction."""

    def __init__(
        self,
        work: BatchWork,
        parking: Parking,
        letters: DeadLetters,
        handlers: Handlers,
        bytes_max: int,
        forgetting: Forgetting,
        outbox: Outbox,
    ) -> None:
        """`bytes_max` is the largest message that the lane takes."""
        self._forgetting = forgetting
        self._outbox = outbox
        self._work = work
        self._parking = parking
        self._letters = letters
        self._handlers = handlers
        self._bytes_max = bytes_max

    def carry_out(self, command: Command, account: str | None) -> Struct | None:
        """Carry one command out and return its result. An operator's is kept with its author. Raises Rejected.

        `account` is the broker's that has published it. Who is named in the message proves nothing: its publisher wrote
        that, as he did `by`.
        """
        done = self._carried_out(command)
        if isinstance(command, Order) and not (isinstance(command, Forget) and command.dry_run):
            self._work.add(self._act(command, done, account))
        return done

    def _act(self, order: Order, done: Struct | None, account: str | None) -> OperatorAct:
        work = self._work
        details = msgspec.to_builtins(done) if done is not None else msgspec.to_builtins(order)
        for field in ("by", "reason"):
            details.pop(field, None)
        if isinstance(order, ReplayLetter):
            given = {"with_arguments": order.args is not UNSET, "without_deadline": order.without_deadline}
            given |= {"as_system": order.as_system, "as_sender": order.as_sender, "alone": order.alone}
            details |= {name: True for name, is_so in given.items() if is_so}
        return made_act(
            work.now,
            order.by,
            _ACTS[type(order)],
            details,
            account=None if account is None else f"{BROKER_USER}{account}",
            reason=order.reason,
            number=work.command_id,
        )

    def _carried_out(self, command: Command) -> Struct | None:
        match command:
            case Release():
                self._release(command)
            case ReplayLetter():
                return self._replay(command)
            case DiscardLetter():
                return self._discard(command)
            case WithdrawEmitted():
                return self._withdraw(command)
            case CancelTimers():
                return self._cancel_timers(command)
            case Forget() | ForgetAsked() | ForgetStep():
                return self._forgetting.carry_out(command)
            case DeadEffect():
                if self._letters.of_effect(command) is None:
                    raise Rejected("too_many_letters", "there are too many dead letters without an id: discard some")
        return None

    def _release(self, command: Release) -> None:
        head = self._parking.head(command.ordering_key)
        if head is None or head.command_id != command.command_id.lower():
            text = f"nothing waits for {command.ordering_key} behind command {command.command_id}"
            raise Rejected("not_parked", text)
        self._parking.release(self._work, command.ordering_key)

    def _replay(self, command: ReplayLetter) -> Replayed:
        letter = self._letter(command.letter)
        emission = self._emission_of(letter, command)
        self._letters.remove(letter)
        try:
            self._work.send_out(emission)
            self._work.children.append(child_text(emission.lane, emission.type, emission.command_id))
        except ValueError as error:
            # Such as a letter to effects that this application no longer has.
            raise Rejected("not_replayable", f"dead letter {letter.id} cannot be sent: {error}") from None
        return Replayed(
            letter=letter.id,
            target=letter.target,
            command_id=letter.command_id,
            replayed_as=emission.command_id,
            by=command.by,
        )

    def _discard(self, command: DiscardLetter) -> Discarded:
        letter = self._letter(command.letter)
        self._letters.remove(letter)
        if letter.command_id is not None:
            self._parking.release_behind(self._work, letter.command_id)
        return Discarded(letter=letter.id, target=letter.target, command_id=letter.command_id, by=command.by)

    def _withdraw(self, command: WithdrawEmitted) -> Withdrawn:
        entries = [self._work.get(OutboxEntry, number) for number in dict.fromkeys(command.entries)]
        found = [entry for entry in entries if entry is not None and not self._outbox.is_confirmed(entry)]
        if taken := [f"{entry.id} ({entry.lane})" for entry in found if self._outbox.is_taken(entry)]:
            text = f"in one process these entries are with their targets already: {', '.join(taken[:20])}"
            todo = "`coordinator cancel`, with the target as its --lane, keeps a command from being applied there"
            raise Rejected("handed_over", f"{text}. {todo}; a call to the outside is not taken back")
        for entry in found:
            head = self._parking.replayed(entry.command_id)
            if head is not None:
                text = (
                    f"entry {entry.id} is the replay of command {head.command_id}, for which {head.ordering_key} waits"
                )
                raise Rejected(
                    "replay_of_parked", f"{text}: release the key instead (`coordinator release`), or cancel the replay"
                )
        for entry in found:
            self._work.remove(entry)
        return Withdrawn(command_ids=[entry.command_id for entry in found], by=command.by)

    def _cancel_timers(self, command: CancelTimers) -> TimersCancelled:
        timers = [self._work.get(Timer, key) for key in dict.fromkeys(command.timers)]
        found = [timer for timer in timers if timer is not None]
        for timer in found:
            self._work.remove_timer(timer)
        return TimersCancelled(command_ids=[timer.command_id for timer in found], by=command.by)

    def _letter(self, number: int) -> DeadLetter:
        letter = self._work.get(DeadLetter, number)
        if letter is None:
            raise Rejected("letter_not_found", f"there is no dead letter {number}")
        return letter

    def _emission_of(self, letter: DeadLetter, command: ReplayLetter) -> Emission:
        """The command to send once more. Raises Rejected if it would only fail again, or mean something else."""
        unread = _unread(letter)
        if unread is not None:
            raise Rejected("not_replayable", f"dead letter {letter.id} {unread}")
        is_whole = letter.size_bytes == len(letter.arguments)
        if command.args is UNSET and not is_whole:
            text = (
                f"dead letter {letter.id} keeps only a part of its {letter.size_bytes} bytes: give its arguments again"
            )
            raise Rejected("not_replayable", text)
        arguments = letter.arguments if command.args is UNSET else bytes(command.args)
        options = Options.decode(letter.options)
        if command.args is not UNSET and not command.as_sender:
            options = msgspec.structs.replace(options, actor=_without_scopes(options.actor))
        if letter.target.startswith(EFFECTS_PREFIX):
            if letter.origin != "system" and not command.as_system:
                text = f"dead letter {letter.id} is a stranger's, and only lanes ask for effects"
                raise Rejected("forbidden_command_type", text)
            # The effect keeps its id, since that is the idempotency key at the other side.
            return Emission(
                lane=letter.target,
                command_id=letter.command_id or system_command_id("letter", letter.target, str(letter.id)),
                type=letter.type or "",
                arguments=arguments,
                options=Options(
                    replayed=True,
                    command_version=options.command_version,
                    actor=options.actor,
                    traceparent=options.traceparent,
                    tracestate=options.tracestate,
                ),
            )
        if command.without_deadline:
            options = msgspec.structs.replace(options, deadline_ms=None)
        elif options.deadline_ms is not None and options.deadline_ms < self._work.now.timestamp() * 1000:
            text = f"the deadline of the command of dead letter {letter.id} is over: it would only expire"
            raise Rejected("deadline_over", text)
        if options.continuation is not None and not _is_unanswered(letter):
            if not command.alone:
                text = (
                    f"what asked for the command of dead letter {letter.id} was told that it failed, and has gone back "
                    f"({options.continuation}): a replay would be applied alone. Discard it, or say --alone"
                )
                raise Rejected("already_told", text)
            options = msgspec.structs.replace(options, continuation=None)
        # A client that waited for the old id has got its outcome; it does not know the new id.
        options = msgspec.structs.replace(
            options,
            origin="system" if command.as_system else options.origin,
            replayed=True,
        )
        emission = Emission(
            lane=letter.target,
            command_id=_replay_id(letter),
            type=letter.type or "",
            arguments=arguments,
            continuation=options.continuation,
            options=options,
        )
        self._check(letter, emission)
        return emission

    def _check(self, letter: DeadLetter, emission: Emission) -> None:
        """Raises Rejected for a command that this lane, in its present state, would not even try."""
        message = CommandMessage(
            # Its own says who has made it: the replay has one of the system's, whoever sent the command.
            command_id=letter.command_id,
            type=emission.type,
            arguments=emission.arguments,
            origin=emission.options.origin,
            command_version=emission.options.command_version,
        )
        defect = prepare(message, self._handlers, redelivered=False).defect
        if len(message.arguments) > self._bytes_max:
            text = f"its arguments have {len(message.arguments)} bytes; at most {self._bytes_max} are taken"
            defect = defect or Defect("message_too_large", text)
        if defect is not None:
            code = defect.code if defect.code == "forbidden_command_type" else "not_replayable"
            raise Rejected(code, f"the command of dead letter {letter.id} would fail again: {defect.message}")


def _without_scopes(actor: Principal | None) -> Principal | None:
    """For whom an operator asks with arguments of his own: he is not lent what another's credential was good for."""
    return None if actor is None else msgspec.structs.replace(actor, scopes=NO_SCOPES)


def _is_unanswered(letter: DeadLetter) -> bool:
    """Whether its command never had an outcome, since it never came as far as the log."""
    return letter.command_id is not None and letter.sequence is None and letter.source == letter.command_id


def _unread(letter: DeadLetter) -> str | None:
    """The unreadable part of its command, if the command would be another one without it, whatever its arguments."""
    if letter.type is None:
        return "would fail again: nobody knows its type"
    if letter.code == INVALID_HEADER:
        return f"came with a condition that cannot be read ({letter.reason}): discard it, and send what was meant"
    if letter.code == MALFORMED_COMMAND or (letter.code in UNREAD_PACK and not letter.arguments):
        return "was in a pack, and was not read: discard it, and have its publisher send it again"
    return None


def _replay_id(letter: DeadLetter) -> str:
    if letter.command_id is None:
        return system_command_id("letter", letter.target, str(letter.id))
    if letter.source != letter.command_id:
        return system_command_id(letter.source, "replay")
    return replay_command_id(letter.command_id) if letter.sequence is not None else letter.command_id
