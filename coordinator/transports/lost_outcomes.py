"""Outcomes that were lost on their way: the command log has them.

They went to a connection, or to a queue, that is gone: of this process, or of the lane's. Only the first of the two
shows here. So the log is asked at once after a connection was lost, and regularly for what should have come by then.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Final, NoReturn

import structlog
from prometheus_client import Counter

from coordinator.client.command_log import CommandLog
from coordinator.protocol.fingerprints import UNKEYED, is_keyed
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.outcomes import from_log
from coordinator.transports.in_flight import InFlight, is_of

LOOK_EVERY_S: Final = 0.5
LOOK_AFTER_S: Final = 0.5
"""How long after its confirm a command's outcome should have come. A lane that is not busy needs a hundredth of it."""
IDS_AT_ONCE: Final = 100
"""The entries of so many are in memory at once."""
LOOKUPS_S = 1.0
"""How long the log is asked at a time, however many wait."""
FOUND: Final = Counter(
    "coordinator_gateway_outcomes_found_total", "Outcomes that did not come, and were found in the command log."
)

log = structlog.get_logger("writes")


class LostOutcomes:
    """Gives outcomes that the log has to those who wait for them. Used within one event loop."""

    def __init__(self, command_log: CommandLog, waiting: Callable[[], Iterable[Iterable[InFlight]]]) -> None:
        """`waiting` has all who wait, in parts in which the oldest is the first."""
        self._log = command_log
        self._waiting = waiting
        self._is_back = asyncio.Event()

    def connection_is_back(self) -> None:
        """The connection to which outcomes come was lost, and is back: look now."""
        self._is_back.set()

    async def keep_looking(self) -> NoReturn:
        """Look again and again, which costs nothing while all outcomes come in time."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._is_back.wait()
            until = time.perf_counter() - (0.0 if self._is_back.is_set() else LOOK_AFTER_S)
            self._is_back.clear()
            for overdue in [_overdue(entries, until) for entries in self._waiting()]:
                await self.find(overdue, in_order=True)

    async def find(self, entries: Sequence[InFlight], *, in_order: bool = False) -> None:
        """Ask the log for the outcomes of these; with `in_order`, only as long as it has some. Never raises for that.

        A lane settles in its order: where it has not come to the oldest, it has not come to the others.
        """
        try:
            async with asyncio.timeout(LOOKUPS_S):
                for start in range(0, len(entries), IDS_AT_ONCE):
                    some = entries[start : start + IDS_AT_ONCE]
                    found = await self._log.find_all([entry.command_id for entry in some])
                    is_any_keyed = any(is_keyed(each.fingerprint) for each in found.values())
                    fingerprints = await self._log.fingerprints() if is_any_keyed else UNKEYED
                    for entry in some:
                        one = found.get(entry.command_id)
                        if one is not None and is_of(one, entry.message, fingerprints) and not entry.outcome.done():
                            FOUND.inc()
                            entry.outcome.set_result(from_log(one, replayed=False))
                    if in_order and not found:
                        return
        except (TimeoutError, DatabaseUnavailable):
            pass
        except Exception:  # such as an entry of another release: the caller must not wait for ever
            log.exception("log_unreadable")


def _overdue(entries: Iterable[InFlight], until: float) -> list[InFlight]:
    return [
        entry for entry in takewhile(lambda each: each.was_confirmed_by(until), entries) if not entry.outcome.done()
    ]
