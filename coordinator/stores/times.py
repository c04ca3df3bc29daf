"""Times of databases, of which some keep no zone."""

from datetime import UTC, datetime
from typing import Any


def utc(value: Any) -> Any:
    """Datetimes in UTC: those without a zone (MySQL has none) are in it already. Other values as they are."""
    if not isinstance(value, datetime):
        return value
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
