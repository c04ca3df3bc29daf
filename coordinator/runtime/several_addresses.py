"""Connections to a name that has several addresses, some of which may be silent.

An event loop tries them one after the other, each for as long as the kernel waits for an answer: minutes. Whoever
limits the whole attempt would give up at the first one again and again, though the second one lives.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Final

Found = tuple[int, int, int, str, Any]
"""An address, as `getaddrinfo` returns it."""

SILENCE_S: Final = 0.25
"""How long an address may be silent before the next one is tried, too (as RFC 8305 has it)."""


class ToAnyAddress(asyncio.AbstractEventLoop):
    """An event loop whose connections are made to the first address of a name that answers."""

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        """As the loop's own."""
        if host is not None:
            kinds = {name: options.get(name, 0) for name in ("family", "proto", "flags")}
            found = await self.getaddrinfo(host, port, type=socket.SOCK_STREAM, **kinds)
            if options.get("ssl") and options.get("server_hostname") is None:
                options["server_hostname"] = host
            if len(found) > 1 and options.get("local_addr") is None:
                options["sock"] = await first_connected(self, found)
                host = port = None
                for name in kinds:
                    options.pop(name, None)
            elif len(found) == 1 and not any(found[0][4][2:]):
                # uvloop would look the name up once more, as it does by itself. The text has no scope of IPv6.
                host = found[0][4][0]
        return await super().create_connection(protocol_factory, host, port, **options)


async def first_connected(loop: asyncio.AbstractEventLoop, found: Sequence[Found]) -> socket.socket:
    """A socket that is connected to the first of these addresses that answers. Raises OSError if all refuse."""
    errors: list[OSError] = []
    waiting: set[asyncio.Task[socket.socket]] = set()
    try:
        for number, address in enumerate(found, 1):
            waiting.add(loop.create_task(_connected(loop, address)))
            limit_s = SILENCE_S if number < len(found) else None
            while waiting:
                done, _ = await asyncio.wait(waiting, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    waiting.remove(task)
                    if not isinstance(error := task.exception(), OSError):
                        waiting |= done - {task}
                        return task.result()
                    errors.append(error)
                if limit_s is not None:
                    break
    finally:
        for task in waiting:
            task.cancel()
            task.add_done_callback(_unwanted)
    texts = dict.fromkeys(map(str, errors))
    raise errors[0] if len(texts) == 1 else OSError("; ".join(texts))


async def _connected(loop: asyncio.AbstractEventLoop, address: Found) -> socket.socket:
    family, kind, protocol, _, where = address
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        await loop.sock_connect(made, where)
    except BaseException:
        made.close()
        raise
    return made


def _unwanted(task: "asyncio.Task[socket.socket]") -> None:
    """Another address was faster."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
