"""The lane's own tables: lease, command log, counters, outbox."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME, LONGTEXT, MEDIUMBLOB

revision = "lane_0001"
down_revision = None
branch_labels = None
depends_on = None

_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def _ascii(length: int = 64) -> Any:
    return (
        sa.String(length)
        .with_variant(sa.String(length, collation="ascii_bin"), "mysql", "mariadb")
        .with_variant(sa.String(length, collation="C"), "postgresql")
    )


def _time() -> Any:
    return sa.DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "lane_lease",
        sa.Column("lane", _ascii(), primary_key=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("batches", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("paused", sa.String(500)),
        sa.Column("holder", sa.String(200), nullable=False),
        sa.Column("taken_at", _time(), nullable=False),
        **_MYSQL,
    )
    op.create_table(
        "command_log",
        sa.Column("command_id", _ascii(), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(100), nullable=False),
        sa.Column("fingerprint", _ascii(), nullable=False),
        sa.Column("status", _ascii(), nullable=False),
        sa.Column("result", sa.Text().with_variant(LONGTEXT(), "mysql", "mariadb")),
        sa.Column("error_code", sa.String(100)),
        sa.Column("error_message", sa.Text()),
        sa.Column("settled_at", _time(), nullable=False),
        **_MYSQL,
    )
    op.create_index("command_log_sequence", "command_log", ["sequence"], unique=True)
    op.create_table(
        "counters",
        sa.Column("name", _ascii(), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False),
        **_MYSQL,
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("lane", _ascii(), nullable=False),
        sa.Column("command_id", _ascii(), nullable=False),
        sa.Column("type", sa.String(100), nullable=False),
        sa.Column("arguments", sa.LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb"), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        **_MYSQL,
    )
    op.create_table(
        "publishers",
        sa.Column("name", _ascii(100), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", _time(), nullable=False),
        **_MYSQL,
    )
    op.create_table(
        "cancellations",
        sa.Column("command_id", _ascii(), primary_key=True),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("requested_at", _time(), nullable=False),
        **_MYSQL,
    )


def downgrade() -> None:
    for table in ("cancellations", "publishers", "outbox", "counters", "command_log", "lane_lease"):
        op.drop_table(table)
