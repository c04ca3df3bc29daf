"""Times of databases, of which some keep no zone."""

from datetime import UTC, datetime
from typing import Any


def utc(value: Any) -> Any:
    """Datetimes in UTC: those without a zone (MySQL has none) are in it already. Other values as they are."""
    if not isinstance(value, datetime):
        return value
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def without_zone(value: Any) -> Any:
    """A time for a database that keeps no zone: UTC without saying so. Other values as they are."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


def read_utc(value: Any) -> datetime | None:
    """The same of what a driver returns for a time. Raises TypeError, and OverflowError for a time of year 0 or 10000.

    A driver leaves what Python has no datetime for as a text, or as an object of its own.
    """
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if value is None:
        return None
    raise TypeError(f"a {type(value).__name__} where a datetime belongs")
