"""Up to which sequence an operator has accepted that commands are lost."""

import sqlalchemy as sa
from alembic import op

revision = "lane_0005"
down_revision = "lane_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("lane_lease", sa.Column("loss_accepted", sa.BigInteger()))


def downgrade() -> None:
    with op.batch_alter_table("lane_lease") as table:
        table.drop_column("loss_accepted")
