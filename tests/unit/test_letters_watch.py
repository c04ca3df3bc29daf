"""How many dead letters a lane has, for its metrics."""

import asyncio
import math
from typing import Any

from prometheus_client import REGISTRY

from coordinator.runtime.ending import end_tasks
from coordinator.service.errors import DatabaseUnavailable
from coordinator.worker.letters_watch import LettersWatch

WITHIN_S = 10.0


class Letters:
    """An admin of a database that is away at every other look."""

    def __init__(self) -> None:
        self.looks = 0
        self.is_closed = False

    def dead_letters(self) -> int:
        self.looks += 1
        if self.looks % 2 == 0:
            raise DatabaseUnavailable("it is away")
        return self.looks

    def close(self) -> None:
        self.is_closed = True


async def test_they_are_counted_again_and_again_and_unknown_while_the_database_is_away() -> None:
    admin: Any = Letters()
    seen: list[float] = []

    def shown() -> float:
        value = REGISTRY.get_sample_value("coordinator_lane_dead_letter_rows", {"lane": "ledger"})
        return math.nan if value is None else value

    watching = asyncio.create_task(LettersWatch("ledger", lambda: admin, every_s=0.01).run())
    async with asyncio.timeout(WITHIN_S):
        while not ({1.0, 3.0} <= set(seen) and any(map(math.isnan, seen[seen.index(1.0) :]))):
            await asyncio.sleep(0)
            seen.append(shown())
    await end_tasks(watching)
    assert admin.is_closed
