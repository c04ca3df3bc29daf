"""The hooks of a gateway (coordinator/client/hooks.py), and those that come with it."""

from collections.abc import Sequence
from typing import Final, TypeAlias

from aiohttp import web
from msgspec import Struct

from coordinator.client.acting import Issued
from coordinator.client.hooks import Hooks
from coordinator.http.keys import CONTEXT


class Exchange(Struct, frozen=True):
    """A request and the response that is about to be sent; a hook may change the response's headers."""

    request: web.Request
    response: web.StreamResponse


GatewayHooks: TypeAlias = Hooks[Exchange]
HOOKS: Final[web.AppKey[GatewayHooks]] = web.AppKey("HOOKS")


async def server_timing(exchange: Exchange, issued: Sequence[Issued]) -> None:
    """Tell the client how its write spent its time: `Server-Timing` (W3C), in milliseconds.

    A browser's developer tools show it; `publish` is the broker's confirm, `apply` the queue and the lane.
    """
    if issued:
        spent_ms = exchange.request[CONTEXT].stages.spent_ms
        exchange.response.headers["Server-Timing"] = ", ".join(
            f"{stage};dur={spent:g}" for stage, spent in spent_ms.items()
        )
