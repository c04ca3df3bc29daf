"""Customers and orders, and the customers that there are from the start."""

import sqlalchemy as sa
from alembic import op

revision = "orders_0001"
down_revision = None


def upgrade() -> None:
    customers = op.create_table(
        "customers",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(200), nullable=False),
    )
    op.bulk_insert(customers, [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}])
    orders = op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("customer_id", sa.BigInteger(), nullable=False),
        sa.Column("euros", sa.BigInteger(), nullable=False),
    )
    op.create_index("orders_customer", "orders", ["customer_id", "id"])
    for number in (1, 2):
        op.get_bind().execute(orders.insert(), {"id": number, "customer_id": number, "euros": 10 * number})
