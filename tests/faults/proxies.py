"""The proxies before all servers of one purpose: one server, or the members of a cluster."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from tests.faults.proxy import AtCommit, TcpProxy


class Proxies:
    """One proxy for each server's port. What is done to them is done to each."""

    def __init__(self, each: Sequence[tuple[int, TcpProxy]]) -> None:
        """Each has the port of its server."""
        self.each = each

    @classmethod
    async def before(cls, ports: Sequence[int], stack: AsyncExitStack) -> "Proxies":
        """Before the servers at these ports of loopback; they end with the stack."""
        return cls([(port, await stack.enter_async_context(TcpProxy(port))) for port in ports])

    def through(self, url: str) -> str:
        """The address that names these servers, by way of the proxies."""
        for port, proxy in self.each:
            url = url.replace(f":{port}", f":{proxy.port}")
        return url

    @property
    def is_asked(self) -> bool:
        """Whether a server owes an answer."""
        return any(proxy.is_asked for _, proxy in self.each)

    def cut(self) -> None:
        """As of TcpProxy."""
        for _, proxy in self.each:
            proxy.cut()

    def stall(self) -> None:
        """As of TcpProxy."""
        for _, proxy in self.each:
            proxy.stall()

    def resume(self) -> None:
        """As of TcpProxy."""
        for _, proxy in self.each:
            proxy.resume()

    async def strike_at_commit(self, what: AtCommit, within_s: float, late_s: float = 0.0) -> bool:
        """As of TcpProxy: the next COMMIT at whichever server it comes to."""
        striking = [asyncio.create_task(proxy.strike_at_commit(what, within_s, late_s)) for _, proxy in self.each]
        try:
            for ended in asyncio.as_completed(striking):
                if await ended:
                    return True
            return False
        finally:
            for task in striking:
                task.cancel()
            await asyncio.gather(*striking, return_exceptions=True)
