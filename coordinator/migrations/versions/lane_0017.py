"""The keys with which fingerprints of commands are made."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME

revision = "lane_0017"
down_revision = "lane_0016"
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
        "fingerprint_keys",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("secret", _ascii(), nullable=False),
        sa.Column("made_at", _time(), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def downgrade() -> None:
    op.drop_table("fingerprint_keys")
