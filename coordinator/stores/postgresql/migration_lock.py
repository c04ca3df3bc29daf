"""The lock of the server's that a migration has for as long as it runs: lanes that start beside it look at it."""

from typing import Final

MIGRATION_LOCK: Final = 0x77726974
"""The number of an advisory lock, which each database has its own of."""

IS_MIGRATING: Final = f"""
    SELECT EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 AND objid = {MIGRATION_LOCK} AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND granted
    )
"""  # noqa: S608  # a constant of ours
