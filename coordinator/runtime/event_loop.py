"""The event loop that our processes run on."""

import asyncio


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where it is installed: it does not exist for every platform."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
