"""API keys, which gateways read."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME

revision = "lane_0008"
down_revision = "lane_0007"
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
        "api_keys",
        sa.Column("id", _ascii(), primary_key=True),
        sa.Column("digest", _ascii(), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("tenant", sa.String(100)),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("created_by", sa.String(200), nullable=False),
        sa.Column("expires_at", _time()),
        sa.Column("revoked_at", _time()),
        sa.Column("revoked_by", sa.String(200)),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def downgrade() -> None:
    op.drop_table("api_keys")
