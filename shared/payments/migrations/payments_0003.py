"""The time at which an operator gave the amounts of a payment: older events do not change them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME

revision = "payments_0003"
down_revision = "payments_0002"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")


def upgrade() -> None:
    with op.batch_alter_table("payments") as payments:
        payments.add_column(sa.Column("amounts_as_of", _TIME))


def downgrade() -> None:
    with op.batch_alter_table("payments") as payments:
        payments.drop_column("amounts_as_of")
