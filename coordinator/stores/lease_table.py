"""The table of a lane's lease: one row, which every transaction of the lane changes."""

from sqlalchemy import BigInteger, Column, String, Table, Text

from coordinator.stores.lane_columns import TIME, ascii_text, metadata

LEASE_TABLE = "lane_lease"

Table(
    LEASE_TABLE,
    metadata,
    Column("lane", ascii_text(64), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("batches", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("paused", String(500)),
    Column("loss_accepted", BigInteger),
    Column("holder", String(200), nullable=False),
    Column("taken_at", TIME, nullable=False),
    Column("move", Text),
    Column("proved", BigInteger),
    Column("lineage", ascii_text(64)),
    Column("supersedes", Text),
)
