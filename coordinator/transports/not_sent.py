"""Outcomes that could not be sent: counted always, and logged once a minute, since there may be thousands a second."""

from time import monotonic

import structlog
from prometheus_client import Counter

WARNED_EVERY_S = 60.0
NOT_SENT = Counter("coordinator_lane_outcomes_not_sent_total", "Messages of outcomes that could not be sent.", ["lane"])

log = structlog.get_logger("consumer")


class NotSent:
    """Counts the unsent outcomes of one lane. Clients that wait find theirs in the command log."""

    def __init__(self, lane: str) -> None:
        self._lane = lane
        self._counter = NOT_SENT.labels(lane)
        self._unlogged = 0
        self._warned_at_s: float | None = None

    def count(self, reply_to: str) -> None:
        """Count one outcome; `reply_to` is where it should have gone."""
        self._counter.inc()
        self._unlogged += 1
        now_s = monotonic()
        if self._warned_at_s is None or now_s - self._warned_at_s >= WARNED_EVERY_S:
            self._warned_at_s = now_s
            log.warning("outcome_not_sent", lane=self._lane, reply_to=reply_to, times=self._unlogged)
            self._unlogged = 0
