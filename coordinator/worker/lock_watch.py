"""Asks who is in the way of a lane's statement that waits, while it waits: afterwards no database can tell.

The lane's thread is stuck in its statement then. So the process asks, by another connection with the lane's own rights,
and notes the answer beside what the lane waits for: readiness, `answer_late` and a suspended lane's reason have it.
"""

import asyncio
from typing import Final

import structlog

from coordinator.runtime.awaited import Awaited, Late
from coordinator.service.descriptions import described
from coordinator.stores.port import Store, WaitExplaining
from coordinator.stores.watched import CALLS

ASK_AFTER_S: Final = 1.0
"""Before the shortest wait for a lock ends, that for the lease (2 s), and before an answer is late."""
LOOK_EVERY_S: Final = 0.5
ASK_AGAIN_S: Final = 5.0
"""A wait that goes on may have another reason by then."""

log = structlog.get_logger("lane")


class LockWatch:
    """Watches the statements of one lane's thread."""

    def __init__(self, lane: str, store: Store, awaited: Awaited) -> None:
        """`store` is the lane's own, without what watches it."""
        self._lane = lane
        self._store = store if isinstance(store, WaitExplaining) else None
        self._awaited = awaited
        self._asked: tuple[float, float] | None = None
        """Since when the wait lasts about which was asked, and how long it had lasted then."""

    async def run(self) -> None:
        """Until cancelled; at once, where the database knows no waits."""
        while self._store is not None:
            await self.look(self._store)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, store: WaitExplaining) -> None:
        """Ask, if the statement of now waits for so long that it is time to."""
        wait = self._awaited.now
        if wait is None or wait.what not in CALLS or not self._is_due(wait):
            return
        self._asked = wait.since_s, wait.waited_s
        try:
            why = await asyncio.to_thread(store.explain_wait)
        except Exception as error:  # noqa: BLE001  # the database may be away: then that is what the lane says
            log.debug("wait_not_explained", lane=self._lane, reason=described(error))
            why = None
        self._awaited.explain(wait, why)

    def _is_due(self, wait: Late) -> bool:
        if self._asked is None or self._asked[0] != wait.since_s:
            return wait.waited_s >= ASK_AFTER_S
        return wait.waited_s - self._asked[1] >= ASK_AGAIN_S
