"""Making the secrets of idempotency keys (`IdempotencySecret`)."""

import secrets
from datetime import UTC, datetime
from typing import Final

from coordinator.stores.lane_tables import IdempotencySecret

SECRET_BYTES: Final = 32


def new_secret(number: int) -> IdempotencySecret:
    """A secret that nobody knows."""
    return IdempotencySecret(id=number, secret=secrets.token_hex(SECRET_BYTES), made_at=datetime.now(UTC))


def first_secrets(has_settled: bool) -> list[IdempotencySecret]:
    """Those that a lane begins with; `has_settled`: it has settled commands whose ids were made without a secret."""
    first = new_secret(1)
    before = IdempotencySecret(id=0, secret="", made_at=first.made_at)
    return [before, first] if has_settled else [first]
