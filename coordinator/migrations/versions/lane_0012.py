"""Whose personal data settled commands have left."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "lane_0012"
down_revision = "lane_0011"
branch_labels = None
depends_on = None


def _ascii() -> Any:
    return (
        sa.String(64)
        .with_variant(sa.String(64, collation="ascii_bin"), "mysql", "mariadb")
        .with_variant(sa.String(64, collation="C"), "postgresql")
    )


def upgrade() -> None:
    op.create_table(
        "personal_entries",
        sa.Column("id", _ascii(), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("command_id", _ascii(), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_index("personal_entries_sequence", "personal_entries", ["sequence"])


def downgrade() -> None:
    op.drop_table("personal_entries")
