"""The event loop that our processes run on."""

import asyncio
from functools import cache
from typing import Any

from coordinator.runtime.lookups import OwnLookups
from coordinator.runtime.several_addresses import ToAnyAddress


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where it is installed: it does not exist for every platform."""
    made: asyncio.AbstractEventLoop = _loop_class()()
    return made


@cache
def _loop_class() -> Any:
    return type("Loop", (ToAnyAddress, OwnLookups, _base()), {})


def _base() -> type[asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        made = asyncio.new_event_loop()
        made.close()
        return type(made)
    return uvloop.Loop
