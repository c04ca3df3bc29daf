"""Ending tasks for good: one cancellation is not always enough."""

import asyncio
from typing import Any, Final

AGAIN_S: Final = 5.0
"""How long a cancelled task may take before it is cancelled again: longer than the end of any of ours, such as the two
seconds in which a connection to the broker closes, so that none is cut short."""


async def end_tasks(*tasks: "asyncio.Future[Any] | None") -> None:
    """Cancel tasks and return once all have ended; what they return or raise stays with them.

    A cancellation may be lost: `asyncio.wait_for` of Python 3.11 drops one that comes when its call has just ended, and
    drivers of databases use it. A task that tries its call again for ever would then never end, and whoever waits for
    it, a process that stops, would not either. So a task that goes on is cancelled again.
    """
    pending = {task for task in tasks if task is not None and not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
    for ended in tasks:
        # What it raised is read here, or asyncio would report it.
        if ended is not None and not ended.cancelled():
            ended.exception()
