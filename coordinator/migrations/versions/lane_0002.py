"""Commands that wait for a key; the numbers that a publisher session left out."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME, MEDIUMBLOB

revision = "lane_0002"
down_revision = "lane_0001"
branch_labels = None
depends_on = None


def _ascii(length: int = 64) -> Any:
    return (
        sa.String(length)
        .with_variant(sa.String(length, collation="ascii_bin"), "mysql", "mariadb")
        .with_variant(sa.String(length, collation="C"), "postgresql")
    )


def upgrade() -> None:
    op.create_table(
        "parked",
        sa.Column("command_id", _ascii(), primary_key=True),
        sa.Column("ordering_key", sa.String(500), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb"), nullable=False),
        sa.Column("fingerprint", _ascii(), nullable=False),
        sa.Column("reply_to", sa.String(255)),
        sa.Column("correlation_id", sa.String(255)),
        sa.Column("error_code", sa.String(100)),
        sa.Column("error_message", sa.Text()),
        sa.Column(
            "parked_at",
            sa.DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb"),
            nullable=False,
        ),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    # MySQL takes no default for a text column: the rows that exist get theirs in between.
    op.add_column("publishers", sa.Column("gaps", sa.Text(), nullable=True))
    op.execute(sa.text("UPDATE publishers SET gaps = '[]'"))
    with op.batch_alter_table("publishers") as table:
        table.alter_column("gaps", existing_type=sa.Text(), nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("publishers") as table:
        table.drop_column("gaps")
    op.drop_table("parked")
