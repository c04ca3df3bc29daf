"""Dead letters: rows of the lane's database, written in the transaction that settles their commands.

So none is lost and none is there twice. Messages without an id cannot be deduplicated by it: identical ones are one
letter, which counts them, and the number of such letters is limited. With an id of his own each message of a stranger's
is a letter. So the bytes are limited that letters have for whose content nobody answers: beyond that they have none.
"""

import hashlib

import msgspec
from msgspec import UNSET

from coordinator.lane.control import DeadEffect
from coordinator.lane.delivery import OldLetter
from coordinator.lane.unit_of_work import BatchWork
from coordinator.protocol.wire import CommandMessage, Defect, options_of
from coordinator.service.outside_calls import effects_key
from coordinator.service.principal import BROKER_USER
from coordinator.service.text import storable, storable_end
from coordinator.stores.lane_tables import NAMELESS, SENDERS_BYTES, DeadLetter, Series, is_of_sender

ARGUMENTS_BYTES_MAX = 1 << 20
NAMELESS_BYTES_MAX = 1 << 16
REASON_CHARACTERS_MAX = 2000
TRACEBACK_CHARACTERS_MAX = 8000
_CODE_CHARACTERS_MAX = 100
_QUOTED_CHARACTERS_MAX = 200
"""Of the reason of a letter for whose arguments there is no room."""
_SERIES = "dead_letters"
_NOT_KEPT = " (its arguments were not kept: LANE_SENDERS_DEAD_BYTES_MAX)"


class DeadLetters:
    """Writes and removes the dead letters of one transaction."""

    def __init__(self, work: BatchWork, lane: str, nameless_max: int, senders_bytes_max: int) -> None:
        self._work = work
        self._lane = lane
        self._nameless_max = nameless_max
        self._senders_bytes_max = senders_bytes_max

    def failed(
        self, message: CommandMessage, defect: Defect, traceback: str | None, sequence: int | None
    ) -> DeadLetter:
        """The letter of a command that failed; a command fails once."""
        return self._add(message.command_id or "", message, defect, traceback, sequence)

    def mismatched(self, message: CommandMessage, fingerprints: tuple[str, ...], defect: Defect) -> DeadLetter | None:
        """The letter of a command of the system's with another command's id; None: there is one already.

        It is known by any of its fingerprints, of which a new letter has the first.
        """
        sources = [f"{message.command_id} {each}" for each in dict.fromkeys(fingerprints)]
        if any(self._work.find(DeadLetter, "source", each) is not None for each in sources):
            return None
        return self._add(sources[0], message, defect, None, None)

    def nameless(self, message: CommandMessage, defect: Defect, target: str | None = None) -> DeadLetter | None:
        """The letter of a message without a usable id; None: there are too many of them, and it is dropped."""
        source = source_of_nameless(message, defect, target or self._lane)
        known = self._work.find(DeadLetter, "source", source)
        if known is not None:
            return self._work.save(msgspec.structs.replace(known, copies=known.copies + 1))
        if not self._has_room(message.origin):
            return None
        return self._add(source, message, defect, None, None, target)

    def taken_in(
        self, message: CommandMessage, letter: OldLetter, *, is_borne_out: bool
    ) -> tuple[DeadLetter | None, bool]:
        """A letter of an older release becomes a row, once; also whether there were too many, and it is dropped.

        If nothing here confirms a letter, anybody may have written it: it is kept like a message without an id.
        """
        defect = Defect(letter.code, letter.reason)
        if message.command_id is None or not is_borne_out:
            row = self.nameless(msgspec.structs.replace(message, command_id=None), defect, letter.target)
            return row, row is None
        source = f"{letter.target} {message.command_id}" if letter.target != self._lane else message.command_id
        if self._work.find(DeadLetter, "source", source) is not None:
            return None, False
        return self._add(source, message, defect, letter.traceback, letter.sequence, letter.target), False

    def of_effect(self, command: DeadEffect) -> DeadLetter | None:
        """The letter of an effect; None: there are too many without an id. It replaces an earlier one of the effect."""
        target = effects_key(self._lane)
        message = CommandMessage(
            command_id=command.command_id,
            type=command.effect_type,
            arguments=command.body.encode("utf-8", "replace"),
            origin=command.origin,
            command_version=None if command.effect_version is UNSET else command.effect_version,
            # Its worker brings the letter for whom the effect was, in the effect's trace.
            actor=self._work.actor,
            traceparent=self._work.traceparent,
            tracestate=self._work.tracestate,
        )
        defect = Defect(command.code, command.reason)
        if message.command_id is None:
            return self.nameless(message, defect, target)
        # A stranger that uses the id of one of our effects cannot change that effect's letter.
        claimed = "" if command.origin == "system" else f" {command.origin}"
        source = f"{target} {message.command_id}{claimed}"
        known = self._work.find(DeadLetter, "source", source)
        if known is not None:
            return self._work.save(
                msgspec.structs.replace(
                    known,
                    code=storable(defect.code, _CODE_CHARACTERS_MAX),
                    reason=storable(defect.message, REASON_CHARACTERS_MAX),
                    traceback=_end(command.traceback),
                    copies=known.copies + 1,
                    dead_at=self._work.now,
                )
            )
        return self._add(source, message, defect, command.traceback, None, target, command.size_bytes)

    def remove(self, letter: DeadLetter) -> None:
        """Remove a letter for good."""
        self._work.remove(letter)
        if letter.command_id is None:
            self._count(NAMELESS[letter.origin], -1)
        elif is_of_sender(letter) and letter.arguments:
            self._count(SENDERS_BYTES, -len(letter.arguments))

    def emptied(self, letter: DeadLetter, without: DeadLetter) -> None:
        """A letter stays without its content."""
        self._work.replace(without)
        if is_of_sender(letter) and letter.arguments:
            self._count(SENDERS_BYTES, -len(letter.arguments))

    def _add(
        self,
        source: str,
        message: CommandMessage,
        defect: Defect,
        traceback: str | None,
        sequence: int | None,
        target: str | None = None,
        size_bytes: int | None = None,
    ) -> DeadLetter:
        bytes_max = ARGUMENTS_BYTES_MAX if message.command_id is not None else NAMELESS_BYTES_MAX
        letter = self._limited(
            message,
            DeadLetter(
                id=self._work.next_id(_SERIES),
                source=source,
                target=target or self._lane,
                command_id=message.command_id,
                type=message.type,
                origin=message.origin,
                code=storable(defect.code, _CODE_CHARACTERS_MAX),
                reason=storable(defect.message, REASON_CHARACTERS_MAX),
                traceback=_end(traceback),
                sequence=sequence,
                arguments=message.arguments[:bytes_max],
                size_bytes=size_bytes or message.size_bytes or len(message.arguments),
                options=options_of(message).encode(),
                copies=1,
                dead_at=self._work.now,
            ),
        )
        return self._work.add_numbered(letter)

    def _limited(self, message: CommandMessage, letter: DeadLetter) -> DeadLetter:
        """Count the bytes of a letter whose fault is the sender's; beyond the limit one of nobody known has none."""
        if not letter.arguments or not is_of_sender(letter):
            return letter
        series = self._work.get(Series, SENDERS_BYTES)
        size = len(letter.arguments)
        is_full = size + (0 if series is None else series.value) > self._senders_bytes_max
        if is_full and not _is_vouched_for(message):
            # The reason quotes what came, and the sender chose the words of its trace.
            options = msgspec.structs.replace(options_of(message), traceparent=None, tracestate=None).encode()
            reason = storable(letter.reason, _QUOTED_CHARACTERS_MAX) + _NOT_KEPT
            return msgspec.structs.replace(letter, arguments=b"", reason=reason, options=options)
        self._count(SENDERS_BYTES, size)
        return letter

    def _has_room(self, origin: str) -> bool:
        """Count one more without an id. Strangers' letters have a room of their own, and fill up only that."""
        series = self._work.get(Series, NAMELESS[origin])
        if series is not None and series.value >= self._nameless_max:
            return False
        self._count(NAMELESS[origin], 1)
        return True

    def _count(self, name: str, change: int) -> None:
        series = self._work.get(Series, name)
        if series is None:
            self._work.add(Series(name=name, value=max(0, change)))
        else:
            self._work.save(Series(name=name, value=max(0, series.value + change)))


def is_emptied(letter: DeadLetter) -> bool:
    """Whether a new letter has no arguments since there was no room for them."""
    return not letter.arguments and letter.reason.endswith(_NOT_KEPT)


def _is_vouched_for(message: CommandMessage) -> bool:
    """Whether a gateway that the lane believes has said who asks: such a one refuses most of what is wrong itself."""
    return message.actor is not None and not message.actor.subject.startswith(BROKER_USER)


def source_of_nameless(message: CommandMessage, defect: Defect | None, target: str) -> str:
    """The source of a message without an id: two messages with the same source are one letter."""
    code = None if defect is None else defect.code
    # If messages with different conditions were one letter, only one of them would be sent again.
    conditions = (message.deadline_ms, message.expected_version, message.continuation)
    # As releases without versions have it.
    version = () if message.command_version is None else (message.command_version,)
    actor = () if message.actor is None else (message.actor.as_json,)
    parts = (target, message.type, message.origin, code, *conditions, *version, *actor)
    digest = hashlib.blake2b("".join(f"{part}\n" for part in parts).encode(), digest_size=16)
    digest.update(message.arguments)
    return f"nameless {digest.hexdigest()}"


def _end(traceback: str | None) -> str | None:
    return None if traceback is None else storable_end(traceback, TRACEBACK_CHARACTERS_MAX)
