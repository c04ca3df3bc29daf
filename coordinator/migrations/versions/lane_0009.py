"""Who asked for a command, in the log and of commands that wait."""

import sqlalchemy as sa
from alembic import op

revision = "lane_0009"
down_revision = "lane_0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("command_log", sa.Column("actor", sa.Text()))
    op.add_column("parked", sa.Column("actor", sa.Text()))


def downgrade() -> None:
    op.drop_column("parked", "actor")
    op.drop_column("command_log", "actor")
