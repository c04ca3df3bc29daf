"""What the provider did with a payment, and refunds."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME

revision = "payments_0002"
down_revision = "payments_0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")
_ADDED = (
    sa.Column("payment_method", sa.String(100)),
    sa.Column("provider_id", sa.String(100)),
    sa.Column("captured", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("refunded", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("reason_code", sa.String(100)),
    sa.Column("reason", sa.String(500)),
    sa.Column("updated_at", _TIME),
)


def upgrade() -> None:
    for column in _ADDED:
        op.add_column("payments", column.copy())
    op.execute(sa.text("UPDATE payments SET updated_at = created_at"))
    with op.batch_alter_table("payments") as table:
        table.alter_column("updated_at", existing_type=_TIME, nullable=False)
    op.create_table(
        "refunds",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("provider_id", sa.String(100)),
        sa.Column("reason", sa.String(500)),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_index("refunds_payment", "refunds", ["payment_id", "id"])
    op.create_table(
        "payment_actions",
        sa.Column("payment_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("refund_id", sa.BigInteger()),
        sa.Column("waiting", sa.String(256)),
        sa.Column("is_reversal_wanted", sa.BigInteger(), nullable=False),
        sa.Column("waiting_for_reversal", sa.String(256)),
        sa.Column("began_at", _TIME, nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def downgrade() -> None:
    op.drop_table("payment_actions")
    op.drop_table("refunds")
    with op.batch_alter_table("payments") as table:
        for column in _ADDED:
            table.drop_column(column.name)
