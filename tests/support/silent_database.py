"""A database that takes a question and never answers it: a process ends all the same."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from coordinator.runtime.ending import end_tasks

WITHIN_S = 20.0


def check_it_ends(asking: Callable[[Callable[[], None]], Coroutine[Any, Any, None]]) -> None:
    """`asking` is given what a question does that is never answered. Python waits for threads of the loop's own."""
    is_asked, answers = threading.Event(), threading.Event()

    def stands_still() -> None:
        is_asked.set()
        answers.wait(WITHIN_S)

    async def stopped_meanwhile() -> None:
        running = asyncio.create_task(asking(stands_still))
        assert await asyncio.to_thread(is_asked.wait, WITHIN_S)
        await end_tasks(running)

    began_s = monotonic()
    asyncio.run(stopped_meanwhile())
    took_s = monotonic() - began_s
    answers.set()
    assert took_s < WITHIN_S / 2
