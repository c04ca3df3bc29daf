"""The mark of one lane, in its journal: it is tried until the newest is on disk."""

import asyncio
import threading
from typing import Final

import structlog

from coordinator.lane.high_water import Mark, both
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.telling import tell
from coordinator.transports.inprocess.journal import Journal, JournalUnavailable

RETRY_S: Final = 1.0

log = structlog.get_logger("inprocess")


class JournalMark:
    """Any thread may call `keep`; the rest is called within the event loop."""

    def __init__(self, lane: str, journal: Journal | None) -> None:
        self._lane = lane
        self._journal = journal
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._unwritten: Mark | None = None
        """The newest, until it is on disk."""
        self.mark: Mark | None = None
        """The newest that was found or is to be kept; None: the lane is not started, or has kept none yet."""
        self._is_late = False
        self._late: asyncio.Task[None] | None = None

    def start(self) -> Mark | None:
        """What is in the journal."""
        self._loop = asyncio.get_running_loop()
        if self._journal is not None and (found := self._journal.mark()) is not None:
            self.mark = found
        return self.mark

    def keep(self, mark: Mark) -> None:
        """Keep it, and what was known before."""
        with self._lock:
            self._unwritten = self.mark = mark if self.mark is None else both(self.mark, mark)
        if not self._write():
            tell(self._loop, self._write_later)

    async def close(self) -> None:
        """Try once more, once nobody keeps any."""
        await end_tasks(self._late)
        await asyncio.to_thread(self._write)

    def _write(self) -> bool:
        """Whether the newest is on disk. Called by the lane's thread, and another."""
        with self._writing:
            mark = self._unwritten
            if mark is None or self._journal is None:
                return True
            try:
                self._journal.keep(mark)
            except JournalUnavailable as error:
                if not self._is_late:
                    log.error("journal_unavailable", lane=self._lane, reason=str(error))  # it says it all
                self._is_late = True
                return False
            self._is_late = False
            with self._lock:
                self._unwritten = None if self._unwritten is mark else self._unwritten
            return True

    def _write_later(self) -> None:
        if self._late is None or self._late.done():
            self._late = asyncio.create_task(self._write_again(), name=f"mark of {self._lane}")

    async def _write_again(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            if await asyncio.to_thread(self._write):
                return
