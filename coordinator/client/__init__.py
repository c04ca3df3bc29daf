"""Issuing commands, and watching them being issued."""

from coordinator.client.hooks import HookedWrites, Hooks, Issued
from coordinator.client.writes import DEFAULT_OPTIONS, WriteOptions, Writes, Written, execute

__all__ = (
    # Issuing
    "Writes",
    "WriteOptions",
    "Written",
    "DEFAULT_OPTIONS",
    "execute",
    # Watching
    "Hooks",
    "HookedWrites",
    "Issued",
)
