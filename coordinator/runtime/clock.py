"""The time, with the precision that every part here keeps."""

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The time to the millisecond, the precision that every database here keeps."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def now_ms() -> int:
    """The time in whole ms since the Unix epoch."""
    return time.time_ns() // 1_000_000
