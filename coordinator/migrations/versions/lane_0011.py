"""The audit: which rows commands have changed, from where on that is complete, and what operators did."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME

revision = "lane_0011"
down_revision = "lane_0010"
branch_labels = None
depends_on = None


def _ascii(length: int) -> Any:
    return (
        sa.String(length)
        .with_variant(sa.String(length, collation="ascii_bin"), "mysql", "mariadb")
        .with_variant(sa.String(length, collation="C"), "postgresql")
    )


def _time() -> Any:
    return sa.DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")


def _table(name: str, *columns: Any) -> None:
    op.create_table(name, *columns, mysql_engine="InnoDB", mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin")


def upgrade() -> None:
    _table(
        "row_changes",
        sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("place", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("row_table", _ascii(63), nullable=False),
        sa.Column("row_key", _ascii(200), nullable=False),
        sa.Column("how", _ascii(20), nullable=False),
        sa.Column("version", sa.BigInteger()),
    )
    op.create_index("row_changes_row", "row_changes", ["row_table", "row_key", "sequence"])
    _table(
        "audited_tables",
        sa.Column("row_table", _ascii(63), primary_key=True),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
    )
    _table(
        "operator_acts",
        sa.Column("id", _ascii(64), primary_key=True),
        sa.Column("done_at", _time(), nullable=False),
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("account", sa.String(200)),
        sa.Column("act", _ascii(100), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(500)),
    )


def downgrade() -> None:
    op.drop_table("operator_acts")
    op.drop_table("audited_tables")
    op.drop_table("row_changes")
