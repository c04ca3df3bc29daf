"""What `coordinator dev` starts beside the coordinators and gateways of an application."""

from coordinator.dev.services import DevService, Helper, Place

__all__ = (
    # A service on a machine
    "DevService",
    "Helper",
    "Place",
)
