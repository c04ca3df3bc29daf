"""Why the messages of an outside account do not go on just now: in words, in a metric, and in the log."""

import time
from functools import partial
from typing import Final, Literal

import structlog
from msgspec import Struct
from prometheus_client import Gauge

from coordinator.runtime.repeated_line import RepeatedLine

HELD: Final = Gauge(
    "coordinator_ingress_held",
    "1 while the next message of the account waits, by the cause.",
    ["account", "cause"],
)

Cause = Literal["rate", "lane_busy", "lane_full", "lane_missing", "broker", "refused"]
CAUSES: Final[tuple[Cause, ...]] = ("rate", "lane_busy", "lane_full", "lane_missing", "broker", "refused")
QUIET: Final[frozenset[Cause]] = frozenset({"rate", "lane_busy"})
"""What is meant to be so."""

log = structlog.get_logger("ingress")


class Hold(Struct, frozen=True):
    """Why the next message waits. `words` are for operators."""

    cause: Cause
    words: str


class Holds:
    """Whether the messages of one account wait."""

    def __init__(self, account: str) -> None:
        self._account = account
        self._line = RepeatedLine()
        self._is_logged = False
        self.now: Hold | None = None
        for cause in CAUSES:
            HELD.labels(account, cause).set_function(partial(self._is, cause))

    def begin(self, hold: Hold) -> None:
        """The next message waits."""
        self.now = hold
        if hold.cause not in QUIET and self._line.is_due(hold.words, time.monotonic()):
            self._is_logged = True
            log.warning("ingress_held", account=self._account, cause=hold.cause, why=hold.words)

    def end(self) -> None:
        """It has gone on."""
        self.now = None
        if self._is_logged:
            self._is_logged = False
            log.info("ingress_goes_on", account=self._account)

    def leave(self) -> None:
        """It is left to the next consumer, and waits there."""
        self.now = None

    def _is(self, cause: Cause) -> float:
        return float(self.now is not None and self.now.cause == cause)
