"""Metrics of a lane's queue, as its consumers see it."""

from typing import Final

from prometheus_client import Gauge

UNACKNOWLEDGED: Final = Gauge(
    "coordinator_lane_unacknowledged", "Messages that were delivered and wait here.", ["lane"]
)
OLDEST_AGE: Final = Gauge(
    "coordinator_lane_oldest_age_seconds", "Since the oldest of them was sent, by its publisher; 0: none.", ["lane"]
)
READY: Final = Gauge(
    "coordinator_lane_ready_messages",
    "Messages of the lane's queue that no coordinator holds; NaN: the broker does not say.",
    ["lane"],
)
