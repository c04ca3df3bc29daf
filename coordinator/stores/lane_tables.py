"""The tables that the coordinator keeps in every database beside the service's own.

The command log and the series are the public record: gateways and operators read them.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Column, Index, String, Table, Text, UniqueConstraint

from coordinator.service.rows import Row
from coordinator.stores import lane_columns, lease_table  # noqa: F401  # it adds its table
from coordinator.stores.audit_tables import AUDIT_MODELS, OperatorAct
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.lane_columns import ascii_text
from coordinator.stores.move_tables import MoveNote
from coordinator.stores.personal_tables import PersonalEntry

ORDERING_KEY_CHARACTERS_MAX = 500

metadata = lane_columns.metadata
_Ascii = ascii_text(64)
_Name = ascii_text(100)
_Time = lane_columns.TIME
_Json = lane_columns.JSON
_Bytes = lane_columns.BYTES


class LogEntry(Row, table="command_log", key="command_id"):
    """One settled command. `result` is JSON text; `fingerprint` tells whether a repeated id means the same command.

    `actor` is who asked for it first, as JSON text of his subject and tenant. `passage`: see `passages.py`.
    """

    command_id: str
    sequence: int
    epoch: int
    type: str
    fingerprint: str
    status: str
    result: str | None
    error_code: str | None
    error_message: str | None
    settled_at: datetime
    actor: str | None = None
    passage: str | None = None


class Series(Row, table="counters", key="name"):
    """The last number given out of one gapless series; under a name in `COUNTS`, how many rows there are."""

    name: str
    value: int


NAMELESS: Final = {"public": "dead_letters.nameless", "system": "dead_letters.nameless.system"}
"""By origin: how many letters there are whose messages had no id. It falls when they are removed."""
SENDERS_BYTES: Final = "dead_letters.senders.bytes"
"""How many bytes of arguments the letters have whose fault is the sender's (`is_of_sender`)."""
LANES_FAULTS: Final = frozenset(
    {"handler_error", "invalid_row", "database_refused", "row_unreadable", "upgrade_failed", "idempotency_mismatch"}
)
"""Why a command failed that may be good: a defect of the service's, or something in its database."""


class OutboxEntry(Row, table="outbox", key="id"):
    """A command that the lane emitted and the broker has not confirmed yet; `arguments` is JSON text.

    `lane` is its target: a lane, or a service's effects. `options` is JSON text, what else travels with it
    (`coordinator.service.options.Options`); None for nothing.
    """

    id: int
    lane: str
    command_id: str
    type: str
    arguments: bytes
    created_at: datetime
    continuation: str | None = None
    options: str | None = None


class Timer(Row, table="lane_timers", key="id"):
    """A command that the lane emits once it is due. `id` sorts timers by due time, and then as they were set.

    It is taken back with the command that it is `about`: its own, or one for whose answer the time is over when it is
    due. Two timers may have the same command: a handler that sets one again, since the log has forgotten what it
    handles, means the same. The other fields are those of the outbox entry that the timer becomes.
    """

    id: str
    due_at: datetime
    about: str
    lane: str
    command_id: str
    type: str
    arguments: bytes
    set_at: datetime
    continuation: str | None = None
    options: str | None = None


TIMERS_SERIES: Final = "lane_timers"
TIMERS_WAITING: Final = "lane_timers.waiting"
"""Under this name of a series: how many timers there are."""

COUNTS: Final = frozenset({*NAMELESS.values(), SENDERS_BYTES, TIMERS_WAITING})
"""The names of series that count rows, or their bytes: nothing is given out under them, and they fall."""


class PublisherPosition(Row, table="publishers", key="name"):
    """How far the commands of one publisher session are settled: its last `publisher-seq`. `gaps` are the ranges of
    numbers below it that never came, as JSON text: `[[first, last], …]`."""

    name: str
    sequence: int
    gaps: str = "[]"
    seen_at: datetime


class Cancellation(Row, table="cancellations", key="command_id"):
    """A command that an operator does not want applied. Gone once the command is settled as cancelled."""

    command_id: str
    reason: str
    requested_at: datetime


class ParkedCommand(Row, table="parked", key="command_id"):
    """A command that keeps its ordering key waiting, since it failed, or one that waits for it: it has no `error_code`.

    `position` is the order in which they came; `message` is the command as an element of a pack, which has no place for
    the `actor`: he is JSON text. `sender` has words of what the lane knew of its sender beside: `stranger`,
    `unbelieved` (`coordinator/protocol/senders.py`).
    """

    command_id: str
    ordering_key: str
    position: int
    message: bytes
    fingerprint: str
    reply_to: str | None
    correlation_id: str | None
    error_code: str | None
    error_message: str | None
    parked_at: datetime
    actor: str | None = None
    sender: str | None = None


class DeadLetter(Row, table="dead_letters", key="id", unique=("source",)):
    """A message that could not be applied, and why: a command of the lane, or an effect of its service.

    `source` tells whether another one is the same letter: `copies` counts how often that came. `target` is where it was
    to be applied, a lane or a service's effects. `arguments` is its body as it came, or the beginning of a larger one
    of `size_bytes`; `options` is JSON text (`coordinator.service.options.Options`); `sequence` is its place in the log.
    """

    id: int
    source: str
    target: str
    command_id: str | None
    type: str | None
    origin: str
    code: str
    reason: str
    traceback: str | None
    sequence: int | None
    arguments: bytes
    size_bytes: int
    options: str
    copies: int
    dead_at: datetime


def is_of_sender(letter: DeadLetter) -> bool:
    """Whether its message could not be applied by what the public had written, and has an id of the public's choice.

    Such letters are as many as somebody sends. Their bytes are counted, under `SENDERS_BYTES`.
    """
    return letter.origin == "public" and letter.command_id is not None and letter.code not in LANES_FAULTS


class AnnouncedVersion(Row, table="command_versions", key="type"):
    """The highest version of a command type that any release has announced here: `coordinator migrate` writes it.

    With it an operator withdraws it, too. `origin` is `system` if only the system may issue that version, and `public`
    if anybody may; None: an earlier release has announced it, and did not say.
    """

    type: str
    version: int
    origin: str | None = None


class ApiKey(Row, table="api_keys", key="id"):
    """A caller's key: operators write them, gateways read them. `digest` is SHA-256 of its secret, in hexadecimal;
    `scopes` are separated by spaces."""

    id: str
    digest: str
    subject: str
    tenant: str | None
    scopes: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None


class IdempotencySecret(Row, table="idempotency_secrets", key="id"):
    """With what gateways make ids of the idempotency keys of those who ask: `coordinator migrate` makes the first one.

    The highest id is the one in use. `secret` is 256 random bits, in hexadecimal. It is empty in row 0, which stands
    for the ids that are made without one, where everybody may ask: a lane has it that had commands before it had
    secrets, `keys secret --remember-open` makes it, and `--forget-former` removes it.
    """

    id: int
    secret: str
    made_at: datetime


LANE_MODELS: tuple[type[Row], ...] = (
    LogEntry,
    Series,
    OutboxEntry,
    PublisherPosition,
    Cancellation,
    ParkedCommand,
    DeadLetter,
    AnnouncedVersion,
    FingerprintKey,
    Timer,
    PersonalEntry,
    MoveNote,
    *AUDIT_MODELS,
)
"""What the lane keeps as rows."""

LEFT_BY_LANE: tuple[type[Row], ...] = tuple(
    model for model in LANE_MODELS if model not in (AnnouncedVersion, OperatorAct)
)
"""Those of which none is written before the lane has its lease."""

Table(
    LogEntry.table,
    metadata,
    Column("command_id", _Ascii, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("type", String(100), nullable=False),
    Column("fingerprint", _Ascii, nullable=False),
    Column("status", _Ascii, nullable=False),
    Column("result", _Json),
    Column("error_code", String(100)),
    Column("error_message", Text),
    Column("settled_at", _Time, nullable=False),
    Column("actor", Text),
    Column("passage", Text),
    Index("command_log_sequence", "sequence", unique=True),
)

Table(
    Series.table,
    metadata,
    Column("name", _Ascii, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

Table(
    OutboxEntry.table,
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("lane", _Ascii, nullable=False),
    Column("command_id", _Ascii, nullable=False),
    Column("type", String(100), nullable=False),
    Column("arguments", _Bytes, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("continuation", String(100)),
    Column("options", Text),
    Index("outbox_lane", "lane", "id"),
)

Table(
    Timer.table,
    metadata,
    Column("id", _Ascii, primary_key=True),
    Column("due_at", _Time, nullable=False),
    Column("about", _Ascii, nullable=False),
    Column("lane", _Ascii, nullable=False),
    Column("command_id", _Ascii, nullable=False),
    Column("type", String(100), nullable=False),
    Column("arguments", _Bytes, nullable=False),
    Column("set_at", _Time, nullable=False),
    Column("continuation", String(100)),
    Column("options", Text),
    Index("lane_timers_about", "about", "id"),
)

Table(
    PublisherPosition.table,
    metadata,
    Column("name", _Name, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("gaps", Text, nullable=False),
    Column("seen_at", _Time, nullable=False),
)

Table(
    Cancellation.table,
    metadata,
    Column("command_id", _Ascii, primary_key=True),
    Column("reason", String(500), nullable=False),
    Column("requested_at", _Time, nullable=False),
)

Table(
    ParkedCommand.table,
    metadata,
    Column("command_id", _Ascii, primary_key=True),
    Column("ordering_key", String(ORDERING_KEY_CHARACTERS_MAX), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("message", _Bytes, nullable=False),
    Column("fingerprint", _Ascii, nullable=False),
    Column("reply_to", String(255)),
    Column("correlation_id", String(255)),
    Column("error_code", String(100)),
    Column("error_message", Text),
    Column("parked_at", _Time, nullable=False),
    Column("actor", Text),
    Column("sender", _Ascii),
)

Table(
    DeadLetter.table,
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("source", ascii_text(100), nullable=False),
    Column("target", _Ascii, nullable=False),
    Column("command_id", _Ascii),
    Column("type", String(100)),
    Column("origin", _Ascii, nullable=False),
    Column("code", String(100), nullable=False),
    Column("reason", Text, nullable=False),
    Column("traceback", Text),
    Column("sequence", BigInteger),
    Column("arguments", _Bytes, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("options", Text, nullable=False),
    Column("copies", BigInteger, nullable=False),
    Column("dead_at", _Time, nullable=False),
    UniqueConstraint("source", name="dead_letters_source_unique"),
    Index("dead_letters_command", "command_id"),
)

Table(
    AnnouncedVersion.table,
    metadata,
    Column("type", _Name, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("origin", _Ascii),
)

Table(
    ApiKey.table,
    metadata,
    Column("id", _Ascii, primary_key=True),
    Column("digest", _Ascii, nullable=False),
    Column("subject", String(200), nullable=False),
    Column("tenant", String(100)),
    Column("scopes", Text, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("created_by", String(200), nullable=False),
    Column("expires_at", _Time),
    Column("revoked_at", _Time),
    Column("revoked_by", String(200)),
)

Table(
    IdempotencySecret.table,
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("secret", _Ascii, nullable=False),
    Column("made_at", _Time, nullable=False),
)
