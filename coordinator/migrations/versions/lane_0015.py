"""How commands came through their lane: when they were delivered and committed, and what they led to."""

import sqlalchemy as sa
from alembic import op

revision = "lane_0015"
down_revision = "lane_0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("command_log", sa.Column("passage", sa.Text()))


def downgrade() -> None:
    op.drop_column("command_log", "passage")
