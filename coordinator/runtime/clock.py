"""The time, with the precision that every part here keeps."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The time to the millisecond, the precision that every database here keeps."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
