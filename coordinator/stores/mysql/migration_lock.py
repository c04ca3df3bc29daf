"""The lock of the server's that a migration has for as long as it runs: lanes that start beside it look at it."""

import hashlib
from typing import Final

IS_MIGRATING: Final = "SELECT IS_USED_LOCK(%s) IS NOT NULL"
_CHARACTERS_MAX: Final = 64


def migration_lock(database: str) -> str:
    """Its name, of which MySQL takes 64 characters."""
    name = f"migrate {database}"
    return name if len(name) <= _CHARACTERS_MAX else hashlib.sha256(name.encode()).hexdigest()
