"""Who sent a command that waits for its key: what the lane knew of him beside who asked."""

import sqlalchemy as sa
from alembic import op

revision = "lane_0014"
down_revision = "lane_0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "parked",
        sa.Column(
            "sender",
            sa.String(64)
            .with_variant(sa.String(64, collation="ascii_bin"), "mysql", "mariadb")
            .with_variant(sa.String(64, collation="C"), "postgresql"),
        ),
    )


def downgrade() -> None:
    op.drop_column("parked", "sender")
