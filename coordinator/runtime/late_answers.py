"""Reports answers for which a process has waited too long. The code that waits is stuck in its call, and cannot.

For a lane it may be the lane's thread, which waits for its database, its projection or a handler of the service's; the
outbox watch, which waits for the database too; or the transport, for a confirm, or for a sign of life on a silent
connection, as an effect worker's does. A worker waits for its provider, too. The call goes on meanwhile: if a COMMIT is
given up it is not undone, and it may wait for a standby that is needed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import structlog
from prometheus_client import Gauge

from coordinator.runtime.awaited import Late

LANE_WAITED: Final = Gauge(
    "coordinator_lane_answer_late_seconds", "How long the lane has waited for one late answer; 0: for none.", ["lane"]
)
EFFECTS_WAITED: Final = Gauge(
    "coordinator_effects_answer_late_seconds",
    "How long the worker has waited for one late answer; 0: for none.",
    ["service"],
)
LOOK_EVERY_S = 1.0

log = structlog.get_logger("late")


class Waits(Protocol):
    """Somebody who waits for answers."""

    @property
    def late(self) -> Late | None:
        """The answer that is late, if one is."""


class LateAnswers:
    """The late answers of one lane, or of one worker of a service's effects, which note what they wait for."""

    def __init__(
        self,
        work: tuple[Literal["lane", "effects"], str],
        awaited: Sequence[Waits],
        about: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        """`about` has what else a line says of an answer, such as where it is to come from."""
        kind, self._name = work
        self._about = about or {}
        self._label, waited = ("lane", LANE_WAITED) if kind == "lane" else ("service", EFFECTS_WAITED)
        self._awaited = awaited
        self._seen: dict[int, Late] = {}
        waited.labels(self._name).set_function(self._longest_s)

    @property
    def late(self) -> Late | None:
        """The first of what is late; None: nothing is."""
        return next(filter(None, (each.late for each in self._awaited)), None)

    @property
    def reason(self) -> str | None:
        """The same in words."""
        late = self.late
        return None if late is None else str(late)

    async def run(self) -> None:
        """Log each once when it is late, and once when it has come. Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Log what has changed."""
        whose = {self._label: self._name}
        for place, awaited in enumerate(self._awaited):
            before, late = self._seen.pop(place, None), awaited.late
            if before is not None and not before.is_of_same_wait(late):
                log.info("answer_came", **whose, awaited=before.what)
            if late is not None:
                self._seen[place] = late
                if not late.is_of_same_wait(before):
                    about = dict(self._about.get(late.what, {}))
                    if late.why is not None:
                        about["why"] = late.why
                    log.error("answer_late", **whose, awaited=late.what, waited_s=round(late.waited_s, 1), **about)

    def _longest_s(self) -> float:
        return max((late.waited_s for each in self._awaited if (late := each.late) is not None), default=0.0)
