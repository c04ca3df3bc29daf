"""Looking names up without keeping anything else waiting.

uvloop looks up two names at a time, and asyncio as many as its executor has threads: while the server of one name does
not answer, all other names of the process wait behind it, and the end of the process waits, too.
"""

import asyncio
import socket
import threading
from functools import partial
from typing import Any

from coordinator.runtime.telling import tell


class OwnLookups(asyncio.AbstractEventLoop):
    """An event loop in which each name is looked up by a thread of its own, for all who ask meanwhile."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lookups: dict[Any, asyncio.Future[Any]] = {}

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002  # as asyncio has it
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """As the loop's own."""
        asked = (host, port, family, type, proto, flags)
        if (lookup := self._lookups.get(asked)) is None:
            lookup = self.create_future()
            # Nobody waits for its end, and neither does the process.
            thread = threading.Thread(target=_look_up, args=(self, lookup, asked), name=f"looks up {host}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # There may be room for a thread later.
                raise OSError(str(error)) from error
            self._lookups[asked] = lookup
            lookup.add_done_callback(partial(self._forget, asked))
        return await asyncio.shield(lookup)

    def _forget(self, asked: Any, lookup: "asyncio.Future[Any]") -> None:
        self._lookups.pop(asked, None)
        if not lookup.cancelled():
            # Whoever asked may have gone.
            lookup.exception()


def _look_up(loop: asyncio.AbstractEventLoop, lookup: "asyncio.Future[Any]", asked: Any) -> None:
    try:
        answer = partial(lookup.set_result, socket.getaddrinfo(*asked))
    except Exception as error:  # noqa: BLE001  # whoever asked gets it
        answer = partial(lookup.set_exception, error)
    tell(loop, answer)
