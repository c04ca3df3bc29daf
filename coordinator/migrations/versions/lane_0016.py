"""Moves of a lane to another database: what the lease tells of one, and the keys that change meanwhile."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import MEDIUMBLOB

revision = "lane_0016"
down_revision = "lane_0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "move_notes",
        sa.Column("epoch", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("batches", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb"), nullable=False),
    )
    op.add_column("lane_lease", sa.Column("move", sa.Text()))


def downgrade() -> None:
    op.drop_column("lane_lease", "move")
    op.drop_table("move_notes")
