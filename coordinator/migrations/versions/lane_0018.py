"""Up to which sequence the lane's commits are known to be on a synchronous standby, too."""

import sqlalchemy as sa
from alembic import op

revision = "lane_0018"
down_revision = "lane_0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("lane_lease", sa.Column("proved", sa.BigInteger()))


def downgrade() -> None:
    with op.batch_alter_table("lane_lease") as table:
        table.drop_column("proved")
