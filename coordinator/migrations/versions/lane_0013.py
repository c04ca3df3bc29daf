"""From which side announced commands come: a stranger's message of the system's own type stops no lane."""

import sqlalchemy as sa
from alembic import op

revision = "lane_0013"
down_revision = "lane_0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "command_versions",
        sa.Column(
            "origin",
            sa.String(64)
            .with_variant(sa.String(64, collation="ascii_bin"), "mysql", "mariadb")
            .with_variant(sa.String(64, collation="C"), "postgresql"),
        ),
    )


def downgrade() -> None:
    op.drop_column("command_versions", "origin")
