"""The tables that the coordinator keeps in every database beside the service's own.

The command log and the counters are the public record: gateways and operators read them.
"""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger, Column, DateTime, Index, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.dialects.mysql import DATETIME, LONGTEXT, MEDIUMBLOB

from shared.rows import Row

LEASE_TABLE = "lane_lease"

metadata = MetaData()

# Ids, codes and types are compared byte by byte on every database; MySQL's default collation would not.
_Ascii = (
    String(64)
    .with_variant(String(64, collation="ascii_bin"), "mysql", "mariadb")
    .with_variant(String(64, collation="C"), "postgresql")
)
_Time = DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")
_Json = Text().with_variant(LONGTEXT(), "mysql", "mariadb")


class LogEntry(Row, frozen=True, kw_only=True):
    """One settled command. `result` is JSON text; `fingerprint` tells whether a repeated id means the same command."""

    table: ClassVar[str] = "command_log"
    key: ClassVar[str] = "command_id"

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


class Counter(Row, frozen=True, kw_only=True):
    """The last number given out of one gapless series."""

    table: ClassVar[str] = "counters"
    key: ClassVar[str] = "name"

    name: str
    value: int


class OutboxEntry(Row, frozen=True, kw_only=True):
    """A command emitted by a handler and not yet confirmed by the broker; `arguments` is JSON text."""

    table: ClassVar[str] = "outbox"
    key: ClassVar[str] = "id"

    id: int
    lane: str
    command_id: str
    type: str
    arguments: bytes
    created_at: datetime


LANE_MODELS: tuple[type[Row], ...] = (LogEntry, Counter, OutboxEntry)
"""What the lane keeps as rows."""

Table(
    LEASE_TABLE,
    metadata,
    Column("lane", _Ascii, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("batches", BigInteger, nullable=False),
    Column("holder", String(200), nullable=False),
    Column("taken_at", _Time, nullable=False),
)

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
    Index("command_log_sequence", "sequence", unique=True),
)

Table(
    Counter.table,
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
    Column("arguments", LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb"), nullable=False),
    Column("created_at", _Time, nullable=False),
)
