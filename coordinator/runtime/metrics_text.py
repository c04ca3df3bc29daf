"""The text of all metrics of this process, which those who ask at a time share.

To make it takes some milliseconds of the event loop, and a gateway has it at the port of its clients, unless it has one
for metrics: whoever asked again and again would take the time of all others. So behind each text the loop has nine
times as long for other things, and whoever asks meanwhile gets the next one.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from prometheus_client import generate_latest

REST_TIMES: Final = 9
"""How much longer than it took to make a text none is made: so they take a tenth of a processor at most."""


class MetricsText:
    """Used by all of one process; `make` has the text of now."""

    def __init__(self, make: Callable[[], bytes] = generate_latest) -> None:
        self._make = make
        self._text = b""
        self._began_s = self._due_s = 0.0

    async def latest(self) -> bytes:
        """One whose making begins now or later: no metric in it is older than the question."""
        came_s = monotonic()
        while self._began_s < came_s:
            now_s = monotonic()
            if now_s < self._due_s:
                await asyncio.sleep(self._due_s - now_s)
                continue
            self._text, self._began_s = self._make(), now_s
            ended_s = monotonic()
            self._due_s = ended_s + REST_TIMES * (ended_s - now_s)
        return self._text


METRICS_TEXT: Final = MetricsText()
