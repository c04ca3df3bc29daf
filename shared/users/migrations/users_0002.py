"""Purchases, the steps of sagas, and what users have bought in all."""

import sqlalchemy as sa
from alembic import op

revision = "users_0002"
down_revision = "users_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "purchases",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("payment_method", sa.String(255), nullable=False),
        sa.Column("price", sa.BigInteger()),
        sa.Column("amount", sa.BigInteger()),
        sa.Column("currency", sa.String(3)),
        sa.Column("payment_id", sa.BigInteger()),
        sa.Column("reservation_id", sa.BigInteger()),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("emitted", sa.BigInteger(), nullable=False),
        sa.Column("reason_code", sa.String(100)),
        sa.Column("reason", sa.String(500)),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )
    op.create_index("purchases_user", "purchases", ["user_id", "id"])
    op.create_table(
        "saga_steps",
        sa.Column("command_id", sa.String(64), primary_key=True),
        sa.Column("saga", sa.String(50), nullable=False),
        sa.Column("saga_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("direction", sa.String(10), nullable=False),
        sa.Column("command_type", sa.String(100), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("error_code", sa.String(100)),
        sa.Column("error_message", sa.String(500)),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )
    op.create_index("saga_steps_of", "saga_steps", ["saga", "saga_id", "number"])
    op.create_table(
        "purchase_totals",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("purchases", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_purchase_totals_user_id", "purchase_totals", ["user_id"])


def downgrade() -> None:
    op.drop_table("purchase_totals")
    op.drop_table("saga_steps")
    op.drop_table("purchases")
