"""Which versions of command types the releases know that have migrated this database."""

import sqlalchemy as sa
from alembic import op

revision = "lane_0006"
down_revision = "lane_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "command_versions",
        sa.Column(
            "type",
            sa.String(100)
            .with_variant(sa.String(100, collation="ascii_bin"), "mysql", "mariadb")
            .with_variant(sa.String(100, collation="C"), "postgresql"),
            primary_key=True,
        ),
        sa.Column("version", sa.BigInteger(), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def downgrade() -> None:
    op.drop_table("command_versions")
