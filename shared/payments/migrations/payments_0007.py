"""Several commands may wait for one reversal that is remembered."""

import sqlalchemy as sa
from alembic import op

revision = "payments_0007"
down_revision = "payments_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("payment_waiters", sa.Column("others", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "payment_reversal_waiters",
        sa.Column("payment_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("waiter", sa.String(256), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def downgrade() -> None:
    op.drop_table("payment_reversal_waiters")
    op.drop_column("payment_waiters", "others")
