"""Emitted commands whose outcomes are to become commands."""

import sqlalchemy as sa
from alembic import op

revision = "lane_0003"
down_revision = "lane_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("continuation", sa.String(100)))


def downgrade() -> None:
    with op.batch_alter_table("outbox") as table:
        table.drop_column("continuation")
