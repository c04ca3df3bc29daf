"""Which history of the lane the database has."""

import sqlalchemy as sa
from alembic import op

from coordinator.stores.lane_columns import ascii_text

revision = "lane_0019"
down_revision = "lane_0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("lane_lease", sa.Column("lineage", ascii_text(64)))
    op.add_column("lane_lease", sa.Column("supersedes", sa.Text()))


def downgrade() -> None:
    with op.batch_alter_table("lane_lease") as table:
        table.drop_column("supersedes")
        table.drop_column("lineage")
