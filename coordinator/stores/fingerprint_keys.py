"""The keys with which a lane makes fingerprints of its commands (coordinator/protocol/fingerprints.py)."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Column, Table

from coordinator.protocol.fingerprints import FIRST_KEY
from coordinator.runtime.clock import utc_now
from coordinator.service.rows import Row
from coordinator.stores import lane_columns

_SECRET_BYTES: Final = 32


class FingerprintKey(Row, table="fingerprint_keys", key="id"):
    """The highest id is the one in use. `secret` is 256 random bits, in hexadecimal.

    None is ever removed, since the log's entries are compared with theirs.
    """

    id: int
    secret: str
    made_at: datetime


Table(
    FingerprintKey.table,
    lane_columns.metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("secret", lane_columns.ascii_text(64), nullable=False),
    Column("made_at", lane_columns.TIME, nullable=False),
)


def next_fingerprint_key(known: Sequence[FingerprintKey]) -> FingerprintKey:
    """Another key of a lane that has these. It never is the first: that one makes ids, which must stay the same."""
    return new_fingerprint_key(max((FIRST_KEY, *(key.id for key in known))) + 1)


def first_fingerprint_key() -> FingerprintKey:
    """That of a lane that no process has had."""
    return new_fingerprint_key(FIRST_KEY)


def new_fingerprint_key(number: int) -> FingerprintKey:
    """One that nobody knows. It counts at once: each fingerprint names its own."""
    return FingerprintKey(id=number, secret=secrets.token_hex(_SECRET_BYTES), made_at=utc_now())
