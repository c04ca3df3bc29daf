"""Payments are found by their id at the provider, of which alone some of its events tell."""

from alembic import op

revision = "payments_0005"
down_revision = "payments_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("payments_provider_id", "payments", ["provider_id"])


def downgrade() -> None:
    op.drop_index("payments_provider_id", "payments")
