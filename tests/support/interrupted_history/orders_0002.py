"""Amounts in cents, and who bought must be there. Most of it changes something else when it is done twice."""

import sqlalchemy as sa
from alembic import op

revision = "orders_0002"
down_revision = "orders_0001"


def upgrade() -> None:
    op.execute("UPDATE orders SET euros = euros * 100")
    op.execute("UPDATE orders SET euros = euros + 1")
    op.execute("UPDATE orders SET euros = euros + 1")
    with op.batch_alter_table("orders") as orders:
        orders.add_column(sa.Column("amount", sa.BigInteger()))
    op.execute("UPDATE orders SET amount = euros")
    with op.batch_alter_table("orders") as orders:
        orders.alter_column("amount", existing_type=sa.BigInteger(), nullable=False)
        orders.drop_column("euros")
    if op.get_bind().dialect.name != "sqlite":
        # Without a name of its own: a second one would not be refused.
        op.execute("ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers (id)")
    op.rename_table("customers", "buyers")
    op.execute("CREATE VIEW amounts AS SELECT id, amount FROM orders")
    op.execute("INSERT INTO buyers (id, name) SELECT id + 10, name FROM buyers")
