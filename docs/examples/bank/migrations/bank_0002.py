"""What the lane needs: versions, and texts that are unique as they are written."""

import sqlalchemy as sa
from alembic import op

revision = "bank_0002"
down_revision = "bank_0001"


def upgrade() -> None:
    # Rows from before have none, and are read as version 1.
    op.add_column("accounts", sa.Column("version", sa.BigInteger()))
    if op.get_context().dialect.name in ("mysql", "mariadb"):
        # Its own collations take `Ada@…` and `ada@…` for one text.
        text = sa.String(200, collation="utf8mb4_bin")
        op.alter_column("accounts", "email", existing_type=sa.String(200), existing_nullable=False, type_=text)
