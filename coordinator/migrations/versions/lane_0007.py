"""Timers: commands that a lane emits once they are due."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME, MEDIUMBLOB

revision = "lane_0007"
down_revision = "lane_0006"
branch_labels = None
depends_on = None


def _ascii() -> Any:
    return (
        sa.String(64)
        .with_variant(sa.String(64, collation="ascii_bin"), "mysql", "mariadb")
        .with_variant(sa.String(64, collation="C"), "postgresql")
    )


def _time() -> Any:
    return sa.DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "lane_timers",
        sa.Column("id", _ascii(), primary_key=True),
        sa.Column("due_at", _time(), nullable=False),
        sa.Column("about", _ascii(), nullable=False),
        sa.Column("lane", _ascii(), nullable=False),
        sa.Column("command_id", _ascii(), nullable=False),
        sa.Column("type", sa.String(100), nullable=False),
        sa.Column("arguments", sa.LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb"), nullable=False),
        sa.Column("set_at", _time(), nullable=False),
        sa.Column("continuation", sa.String(100)),
        sa.Column("options", sa.Text()),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_index("lane_timers_about", "lane_timers", ["about", "id"])


def downgrade() -> None:
    op.drop_table("lane_timers")
