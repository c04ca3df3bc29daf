"""Whose a purchase is, and which of his have not ended. Those of before are nobody's."""

import sqlalchemy as sa
from alembic import op

revision = "users_0004"
down_revision = "users_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("purchases", sa.Column("owner", sa.String(301)))
    op.create_index("purchases_owner", "purchases", ["owner", "ended_at", "id"])


def downgrade() -> None:
    op.drop_index("purchases_owner", "purchases")
    op.drop_column("purchases", "owner")
