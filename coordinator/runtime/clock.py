"""The time, as everything here keeps it."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The time to the millisecond, which is what every database here keeps."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
