"""The client's side: issuing commands, hooks on that, and reads of databases and of the command log."""

from coordinator.client.acting import Issued
from coordinator.client.blocking import BlockingWrites
from coordinator.client.hooks import HookedWrites, Hooks
from coordinator.client.writes import DEFAULT_OPTIONS, WriteOptions, Writes, Written, execute

__all__ = (
    # Issuing
    "Writes",
    "WriteOptions",
    "Written",
    "DEFAULT_OPTIONS",
    "execute",
    "BlockingWrites",
    # Watching
    "Hooks",
    "HookedWrites",
    "Issued",
)
