"""`coordinator dev`: a whole system on one machine, and how an application declares what it needs there."""

from coordinator.dev.services import DevService, Helper, Place

__all__ = (
    # A service on a machine
    "DevService",
    "Helper",
    "Place",
)
