"""Alembic's environment for every history: the lane's own, and each service's. `migrate.py` runs it."""

from alembic import context

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    target_metadata=attributes["metadata"],
    version_table=attributes["version_table"],
    transaction_per_migration=True,
    on_version_apply=lambda **_: attributes["version_written"](),
)
with context.begin_transaction():
    context.run_migrations()
