"""What one thread tells another's event loop, and when nobody hears it."""

import asyncio
import threading

from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.telling import tell


async def test_a_running_loop_is_told_by_another_thread() -> None:
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    threading.Thread(target=tell, args=(asyncio.get_running_loop(), heard.set_result, "it")).start()
    assert await heard == "it"


def test_a_loop_that_has_not_begun_or_is_closed_is_told_nothing() -> None:
    loop = new_event_loop()
    loop.close()
    assert not tell(loop, print)
    assert not tell(None, print)
