"""Says what Redis had confirmed and has no longer: one line and one count in each process."""

from threading import Lock
from typing import Final

import structlog
from prometheus_client import Counter

from coordinator.transports.redis.loss import Loss
from coordinator.transports.redis.scripts import RUNS_MAX

LOST: Final = Counter(
    "coordinator_broker_lost_total",
    "Messages that Redis had confirmed and has no longer, as far as is known.",
    ["target"],
)
_said: Final[dict[str, dict[tuple[str, int], int]]] = {}
"""Of each target the losses that were said, by where they begin: the last number."""
_saying: Final = Lock()

log = structlog.get_logger("broker")


def report_lost(target: str, lost: Loss) -> None:
    """Say what is lost, but for what this process has said already of the same beginning of a run.

    The publisher and the consumer of a process see the same loss, each as far as it had come.
    """
    if not lost.began:
        report_missing(target, lost.first, lost.last)
        return
    with _saying:
        said = _said.setdefault(target, {})
        begin = (lost.began, lost.first)
        first = max(lost.first, said.get(begin, 0) + 1)
        said[begin] = max(lost.last, first - 1)
        while len(said) > RUNS_MAX:
            del said[next(iter(said))]
    if first <= lost.last:
        report_missing(target, first, lost.last)


def report_missing(target: str, first: int, last: int) -> None:
    """Say that these numbers are lost."""
    LOST.labels(target).inc(last - first + 1)
    log.error(
        "broker_lost_messages",
        target=target,
        first=first,
        last=last,
        what_to_do="Redis has them no longer: repeat the commands of that time with the same ids",
    )
