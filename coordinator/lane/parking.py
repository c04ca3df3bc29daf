"""The parked commands: which keys wait behind a command that failed under the policy `park-key`, and who waits.

The failed command is settled and dead-lettered. The commands behind it are kept in the lane's database, without a
sequence and without an outcome. Once the failed one is replayed, or an operator releases its key, they are applied in
the order in which they came, before anything else.
"""

import hashlib
from collections.abc import Container, Iterable
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.lane.authors import reference
from coordinator.lane.request import Handlers, Request, is_same, prepare
from coordinator.lane.row_texts import row_text
from coordinator.lane.unit_of_work import BatchWork
from coordinator.protocol.actors import HEADER_ACTOR, Logged, logged_actor
from coordinator.protocol.decoding import decode
from coordinator.protocol.fingerprints import UNKEYED, Fingerprints
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Envelope, encode_pack, sender_of, with_sender
from coordinator.service.descriptions import described
from coordinator.service.ids import replay_command_id
from coordinator.service.principal import Principal
from coordinator.service.targets import Targets
from coordinator.stores.lane_tables import ORDERING_KEY_CHARACTERS_MAX, LogEntry, ParkedCommand

ADDRESS_CHARACTERS_MAX = 255


class Standing(Struct, frozen=True):
    """Where a command stands among those that wait for its key.

    `fault` is the fault of its handler's `target`, which then names no key. `waiting` is the command that already waits
    under its id. A command that `is_behind` waits behind a failed one; if no delivery brings it, it keeps waiting.
    """

    key: str | None = None
    fault: str | None = None
    waiting: ParkedCommand | None = None
    is_behind: bool = False


ALONE = Standing()


class WaitingLoad(Struct, frozen=True):
    """How many commands wait, and the bytes of their messages."""

    commands: int = 0
    size_bytes: int = 0

    def with_one(self, row: ParkedCommand) -> "WaitingLoad":
        """Once this one waits, too."""
        return WaitingLoad(self.commands + 1, self.size_bytes + len(row.message))

    def without_one(self, row: ParkedCommand) -> "WaitingLoad":
        """Once this one waits no more."""
        return WaitingLoad(self.commands - 1, self.size_bytes - len(row.message))


NONE_WAIT: Final = WaitingLoad()


class Parking:
    """The parked commands of one lane. A transaction works on a copy, which replaces it after the commit."""

    def __init__(self, rows: Iterable[ParkedCommand] = ()) -> None:
        self.rows: dict[str, ParkedCommand] = {}
        """By command id, in the order in which they came. Other classes only read it."""
        self._heads: dict[str, ParkedCommand] = {}
        self._replays: dict[str, ParkedCommand] = {}
        """The heads by the ids of their replays: a replay releases its head, whatever its arguments name."""
        self._waiting: dict[str, int] = {}
        """How many commands wait, by key."""
        self._waiting_of: dict[Logged | None, WaitingLoad] = {}
        """The same by who asked for them, with their bytes; None: nobody who is known."""
        self.waiting = NONE_WAIT
        """All that wait. The failed ones, for which they wait, are not counted."""
        self._position = 0
        self._is_shared = False
        for row in sorted(rows, key=lambda row: row.position):
            self._note(row)

    def copy(self) -> "Parking":
        """A copy to work on. It shares its contents with this one until it is changed; this one stays as it is."""
        twin = Parking()
        twin.rows, twin._heads, twin._waiting, twin._replays = self.rows, self._heads, self._waiting, self._replays
        twin._waiting_of = self._waiting_of
        twin.waiting, twin._position, twin._is_shared = self.waiting, self._position, True
        return twin

    def _unshare(self) -> None:
        if self._is_shared:
            self.rows, self._heads, self._waiting = dict(self.rows), dict(self._heads), dict(self._waiting)
            self._replays, self._waiting_of, self._is_shared = dict(self._replays), dict(self._waiting_of), False

    @property
    def keys_waiting(self) -> int:
        """How many keys wait behind a failed command."""
        return len(self._heads)

    @property
    def since(self) -> datetime | None:
        """When the first of the keys that wait was parked; None: no key waits."""
        first = next(iter(self._heads.values()), None)
        return None if first is None else first.parked_at

    def waiting_of(self, actor: Principal | None) -> WaitingLoad:
        """Those of them for which he asked, whatever his credential was good for then."""
        return self._waiting_of.get(None if actor is None else Logged(actor.subject, actor.tenant), NONE_WAIT)

    def head(self, key: str) -> ParkedCommand | None:
        """The failed command that keeps this key waiting."""
        return self._heads.get(key)

    def replayed(self, command_id: str) -> ParkedCommand | None:
        """The failed command whose replay has this id; or the one with this id, once the log has forgotten it."""
        head = self._replays.get(command_id)
        if head is None:
            row = self.rows.get(command_id)
            head = row if row is not None and row.error_code is not None else None
        return head

    def has_failed(self, request: Request, fingerprints: Fingerprints) -> bool:
        """Whether this command, with this content, failed and makes its key wait."""
        row = self.rows.get(request.message.command_id or "")
        return row is not None and row.error_code is not None and is_same(fingerprints, row.fingerprint, request)

    def standing(self, request: Request) -> Standing:
        """Where a command stands."""
        try:
            key = _ordering_key(request)
        except BaseException as error:  # noqa: BLE001  # a function of the service's author
            return Standing(fault=f"target: {described(error)}", waiting=self._waits_as(request))
        if request.parked_key is not None:
            is_behind = key in self._heads
        else:
            is_behind = key is not None and self.must_wait(key, request.message.command_id or "")
        return Standing(key, None, self._waits_as(request), is_behind)

    def must_wait(self, key: str, command_id: str) -> bool:
        """Whether a command has to wait for this key: all do except the replay of the failed one."""
        head = self._heads.get(key)
        if head is None:
            return key in self._waiting
        return self.replayed(command_id) is not head

    @property
    def has_waiting(self) -> bool:
        """Whether any command waits."""
        return bool(self._waiting)

    def ready(self) -> list[ParkedCommand]:
        """The commands that no longer need to wait, in order."""
        if not self._waiting or all(key in self._heads for key in self._waiting):
            return []
        return [row for row in self.rows.values() if row.ordering_key not in self._heads]

    def wait(self, work: BatchWork, request: Request, standing: Standing) -> None:
        """Have a command wait for its key."""
        if standing.key is not None:
            self._put(work, _row(request, standing.key, self._position + 1, work.now))

    def settled(self, work: BatchWork, request: Request, standing: Standing, entry: LogEntry) -> None:
        """A command is settled. If it failed under `park-key`, its key waits: be it new, a replay, or a command that
        waited itself."""
        key = self._key_to_keep(request, standing, entry) if entry.status == "failed" else None
        self.leave(work, request)
        if key is not None:
            row = _row(request, key, self._position + 1, work.now)
            code, text = entry.error_code or "", entry.error_message or ""
            self._put(work, msgspec.structs.replace(row, error_code=code, error_message=text))

    def leave(self, work: BatchWork, request: Request) -> None:
        """A command is settled: it no longer waits. After a replay, nothing waits behind the failed command either."""
        for row in (self._waits_as(request), self.replayed(request.message.command_id or "")):
            if row is not None:
                self._drop(work, row)

    def release(self, work: BatchWork, key: str) -> None:
        """Let the commands with this key go on."""
        head = self._heads.get(key)
        if head is not None:
            self._drop(work, head)

    def release_behind(self, work: BatchWork, command_id: str) -> None:
        """Let the commands behind this failed one go on."""
        head = self.rows.get(command_id)
        if head is not None and head.error_code is not None:
            self._drop(work, head)

    def _waits_as(self, request: Request) -> ParkedCommand | None:
        """The waiting command with its id, if there is one."""
        row = self.rows.get(request.message.command_id or "")
        return row if row is not None and row.error_code is None else None

    def _key_to_keep(self, request: Request, standing: Standing, entry: LogEntry) -> str | None:
        """The key that waits for a failed command. For a replay, the key that it was to release, whatever it names."""
        head = self.replayed(entry.command_id)
        if head is not None:
            return head.ordering_key
        # A command that had no room to wait stands behind the failed one, and does not wait.
        is_too_many = standing.is_behind and request.parked_key is None
        return standing.key if request.parks_key and not is_too_many else None

    def _put(self, work: BatchWork, row: ParkedCommand) -> None:
        work.keep(row)
        self._note(row)

    def _note(self, row: ParkedCommand) -> None:
        self._unshare()
        self.rows[row.command_id] = row
        self._position = max(self._position, row.position)
        if row.error_code is None:
            actor = _actor_of(row)
            self._waiting[row.ordering_key] = self._waiting.get(row.ordering_key, 0) + 1
            self._waiting_of[actor] = self._waiting_of.get(actor, NONE_WAIT).with_one(row)
            self.waiting = self.waiting.with_one(row)
        else:
            self._heads[row.ordering_key] = row
            self._replays[replay_command_id(row.command_id)] = row

    def _drop(self, work: BatchWork, row: ParkedCommand) -> None:
        work.drop(row)
        self._unshare()
        del self.rows[row.command_id]
        if row.error_code is not None:
            del self._heads[row.ordering_key]
            del self._replays[replay_command_id(row.command_id)]
            return
        actor = _actor_of(row)
        self._waiting[row.ordering_key] -= 1
        self._waiting_of[actor] = self._waiting_of[actor].without_one(row)
        self.waiting = self.waiting.without_one(row)
        if not self._waiting[row.ordering_key]:
            del self._waiting[row.ordering_key]
        if not self._waiting_of[actor].commands:
            del self._waiting_of[actor]


def _actor_of(row: ParkedCommand) -> Logged | None:
    return None if row.actor is None else logged_actor(row.actor)


def message_of(row: ParkedCommand) -> CommandMessage:
    """A parked command as it came, except for its publisher session, which has gone on."""
    # Its limits were checked when it came.
    headers = {} if row.actor is None else {HEADER_ACTOR: row.actor}
    envelope = Envelope(content_type=PACK_CONTENT, is_system=True, headers=headers)
    [message] = decode(envelope, row.message, len(row.message))
    return with_sender(message, row.sender)


def prepared(
    row: ParkedCommand,
    handlers: Handlers,
    targets: Targets,
    cancelled: Container[str | None] = (),
    fingerprints: Fingerprints = UNKEYED,
) -> Request:
    """A parked command, ready to be applied."""
    return prepare(
        message_of(row),
        handlers,
        fingerprints,
        redelivered=False,
        targets=targets,
        reply_to=row.reply_to,
        correlation_id=row.correlation_id,
        parked_key=row.ordering_key,
        cancelled=cancelled,
    )


def _ordering_key(request: Request) -> str | None:
    """The row that a command is about, as text; None if it names none."""
    if request.parked_key is not None:
        return request.parked_key
    handler, command = request.handler, request.command
    if handler is None or handler.target is None or command is None:
        return None
    key = row_text(reference(handler.target(command)))
    if len(key) > ORDERING_KEY_CHARACTERS_MAX:
        digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        return f"{key.partition('=')[0]}#{digest}"
    return key


def _row(request: Request, key: str, position: int, now: datetime) -> ParkedCommand:
    message = msgspec.structs.replace(request.message, publisher=None, publisher_seq=None)
    return ParkedCommand(
        command_id=message.command_id or "",
        ordering_key=key,
        position=position,
        message=encode_pack([message], with_origin=True),
        fingerprint=request.fingerprint,
        reply_to=_short(request.reply_to),
        correlation_id=_short(request.correlation_id),
        error_code=None,
        error_message=None,
        parked_at=now,
        actor=None if message.actor is None else message.actor.as_json,
        sender=sender_of(message),
    )


def _short(text: str | None) -> str | None:
    """The text if every database takes it, else None: any other address leads nowhere anyway."""
    return text if text is not None and text.isprintable() and len(text) <= ADDRESS_CHARACTERS_MAX else None
