"""Making the secrets of idempotency keys (`IdempotencySecret`)."""

import secrets
from datetime import UTC, datetime
from typing import Final

from coordinator.stores.lane_tables import IdempotencySecret

SECRET_BYTES: Final = 32


def new_secret(number: int) -> IdempotencySecret:
    """A secret that nobody knows."""
    return IdempotencySecret(id=number, secret=secrets.token_hex(SECRET_BYTES), made_at=datetime.now(UTC))


def first_secrets() -> list[IdempotencySecret]:
    """Those that a lane begins with; before the first there is the empty one, of ids that are made without a secret.

    It is there in every lane: a gateway that lets everybody in, at whatever time, makes such ids.
    """
    first = new_secret(1)
    return [IdempotencySecret(id=0, secret="", made_at=first.made_at), first]
