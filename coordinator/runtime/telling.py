"""What one thread tells another's event loop."""

import asyncio
from collections.abc import Callable


def tell(loop: asyncio.AbstractEventLoop | None, function: Callable[..., object], *arguments: object) -> bool:
    """Have `loop` call `function` soon. Called by any thread. False: it has not begun, or is closed.

    A loop closes when its own thread says so, also between another's look at it and its call.
    """
    if loop is None:
        return False
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        return False
    return True
