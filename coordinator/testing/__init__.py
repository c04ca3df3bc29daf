"""Trying handlers without a server: the lane of a service, on a store in memory, one command after the other."""

from coordinator.testing.lane import NOW, Emitted, LaneInMemory, Tried

__all__ = (
    "NOW",
    "Emitted",
    "LaneInMemory",
    "Tried",
)
