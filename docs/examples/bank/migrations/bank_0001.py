"""The tables as the application had them: made where a database is new, left as they are where they are there."""

import sqlalchemy as sa
from alembic import op

revision = "bank_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("email", sa.String(200), nullable=False, unique=True),
        sa.Column("balance_cents", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("branch", sa.String(20), nullable=False, server_default="main"),
        sa.Column("remark", sa.String(500)),
        if_not_exists=True,
    )
    op.create_table(
        "entries",
        sa.Column("account_id", sa.Integer(), sa.ForeignKey("accounts.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False),
        sa.Column("booked_at", sa.DateTime(), nullable=False, server_default=sa.func.now()),
        if_not_exists=True,
    )
