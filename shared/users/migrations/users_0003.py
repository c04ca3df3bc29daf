"""Whose a user is. Those of before are nobody's."""

import sqlalchemy as sa
from alembic import op

revision = "users_0003"
down_revision = "users_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("owner", sa.String(301)))
    op.create_index("users_owner", "users", ["owner", "id"])


def downgrade() -> None:
    op.drop_index("users_owner", "users")
    op.drop_column("users", "owner")
