"""The life of payments at a provider: the amounts held, taken and given back, refunds, and the commands that wait."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME

revision = "payments_0002"
down_revision = "payments_0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")
_NEW = (
    "payment_method",
    "provider_id",
    "captured",
    "refunded",
    "pending_action",
    "refund_id",
    "wanted",
    "reason_code",
    "reason",
    "updated_at",
)


def upgrade() -> None:
    with op.batch_alter_table("payments") as payments:
        payments.add_column(sa.Column("payment_method", sa.String(255)))
        payments.add_column(sa.Column("provider_id", sa.String(255)))
        payments.add_column(sa.Column("captured", sa.BigInteger(), nullable=False, server_default="0"))
        payments.add_column(sa.Column("refunded", sa.BigInteger(), nullable=False, server_default="0"))
        payments.add_column(sa.Column("pending_action", sa.String(20)))
        payments.add_column(sa.Column("refund_id", sa.BigInteger()))
        payments.add_column(sa.Column("wanted", sa.String(20)))
        payments.add_column(sa.Column("reason_code", sa.String(64)))
        payments.add_column(sa.Column("reason", sa.String(500)))
        payments.add_column(sa.Column("updated_at", _TIME))
    op.execute("UPDATE payments SET updated_at = created_at")
    with op.batch_alter_table("payments") as payments:
        payments.alter_column("updated_at", existing_type=_TIME, nullable=False)
    op.create_table(
        "refunds",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("provider_id", sa.String(255)),
        sa.Column("reason_code", sa.String(64)),
        sa.Column("reason", sa.String(500)),
        sa.Column("created_at", _TIME, nullable=False),
        sa.UniqueConstraint("provider_id", name="refunds_provider_id_unique"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_index("refunds_payment", "refunds", ["payment_id", "id"])
    op.create_table(
        "payment_waiters",
        sa.Column("payment_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("action", sa.String(256)),
        sa.Column("reversal", sa.String(256)),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def downgrade() -> None:
    op.drop_table("payment_waiters")
    op.drop_table("refunds")
    with op.batch_alter_table("payments") as payments:
        for name in _NEW:
            payments.drop_column(name)
