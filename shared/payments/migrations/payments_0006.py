"""For whom a payment was opened. Those of before are nobody's."""

import sqlalchemy as sa
from alembic import op

revision = "payments_0006"
down_revision = "payments_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Nobody else's name is the same to the database, whatever the collation of the table.
    op.add_column("payments", sa.Column("owner", sa.String(301, collation="utf8mb4_bin")))
    op.create_index("payments_owner", "payments", ["owner", "id"])


def downgrade() -> None:
    op.drop_index("payments_owner", "payments")
    op.drop_column("payments", "owner")
