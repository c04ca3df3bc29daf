"""Making the secrets of idempotency keys (`IdempotencySecret`)."""

import secrets
from datetime import datetime, timedelta
from typing import Final

from coordinator.runtime.clock import utc_now
from coordinator.stores.lane_tables import IdempotencySecret

SECRET_BYTES: Final = 32
SECRET_COUNTS_S: Final = 600.0
"""For how long what a gateway has read of the secrets counts, and how long a secret counts on when the next is made.

It is no setting: two gateways must not differ.
"""
NEW_LANE_COUNTS_S: Final = 10.0
"""For how long what was read counts where the lane has never run: a move may replace it, and waits for so long."""
SECRET_SETTLES_S: Final = 30.0
"""For how long none counts then, so that what was accepted with the one before is in the log."""


def new_secret(number: int) -> IdempotencySecret:
    """A secret that nobody knows."""
    return IdempotencySecret(id=number, secret=secrets.token_hex(SECRET_BYTES), made_at=utc_now())


def open_secret() -> IdempotencySecret:
    """The empty one: what is in the log under an id that is made without a secret, by a gateway that lets everybody in,
    counts for whoever has the key. Everybody can make such an id, and so use up a key of somebody else's.
    """
    return IdempotencySecret(id=0, secret="", made_at=utc_now())


def first_secrets(*, is_new: bool) -> list[IdempotencySecret]:
    """Those that a lane begins with. Of one that `is_new`, whose log is empty, no gateway has let anybody in yet."""
    first = new_secret(1)
    return [first] if is_new else [open_secret(), first]


def counts_from(secret: IdempotencySecret) -> datetime:
    """From when on gateways use it, at the latest some seconds afterwards."""
    if secret.id <= 1:
        return secret.made_at
    return secret.made_at + timedelta(seconds=SECRET_COUNTS_S + SECRET_SETTLES_S)
