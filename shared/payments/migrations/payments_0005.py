"""An index on the payments' id at the provider, since some of its events have nothing else."""

from alembic import op

revision = "payments_0005"
down_revision = "payments_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("payments_provider_id", "payments", ["provider_id"])


def downgrade() -> None:
    op.drop_index("payments_provider_id", "payments")
