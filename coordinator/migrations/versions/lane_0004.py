"""Dead letters as rows; what else travels with an emitted command, and an index by its target."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME, MEDIUMBLOB

revision = "lane_0004"
down_revision = "lane_0003"
branch_labels = None
depends_on = None


def _ascii(length: int = 64) -> Any:
    return (
        sa.String(length)
        .with_variant(sa.String(length, collation="ascii_bin"), "mysql", "mariadb")
        .with_variant(sa.String(length, collation="C"), "postgresql")
    )


def upgrade() -> None:
    op.add_column("outbox", sa.Column("options", sa.Text()))
    op.create_index("outbox_lane", "outbox", ["lane", "id"])
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("source", _ascii(100), nullable=False),
        sa.Column("target", _ascii(), nullable=False),
        sa.Column("command_id", _ascii()),
        sa.Column("type", sa.String(100)),
        sa.Column("origin", _ascii(), nullable=False),
        sa.Column("code", sa.String(100), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("traceback", sa.Text()),
        sa.Column("sequence", sa.BigInteger()),
        sa.Column("arguments", sa.LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb"), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("copies", sa.BigInteger(), nullable=False),
        sa.Column(
            "dead_at",
            sa.DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb"),
            nullable=False,
        ),
        sa.UniqueConstraint("source", name="dead_letters_source_unique"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_index("dead_letters_command", "dead_letters", ["command_id"])


def downgrade() -> None:
    op.drop_table("dead_letters")
    op.drop_index("outbox_lane", table_name="outbox")
    with op.batch_alter_table("outbox") as table:
        table.drop_column("options")
