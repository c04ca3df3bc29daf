"""Questions in threads for whose end nobody waits.

Python waits for the threads of an event loop's executor, first as the loop is closed and again at its exit: for ever,
where a server that stands still never answers.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def asked(question: Callable[[], T], name: str) -> "asyncio.Future[T]":
    """The answer of a thread of its own, which has this name. Raises what the question raises."""
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()

    def ask() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:  # noqa: BLE001  # whoever asks gets it
            answer.set_exception(error)

    threading.Thread(target=ask, name=name, daemon=True).start()
    told = asyncio.wrap_future(answer)
    # Of one for which nobody waits any more, since its process stops, asyncio would log the error with its traceback.
    told.add_done_callback(lambda done: done.cancelled() or done.exception())
    return told
