"""Fields that stand behind a body in chunks (trailers, RFC 9112 section 7.1.2): no request after them is served.

aiohttp keeps the last of them, and takes it for a field of the next request on the connection. Where a proxy shares its
connections among clients, that request is another client's. So a connection ends with the answer to a body in chunks,
unless it is certain that nothing stood behind the last chunk. Trailers are a head's last part: no line of one ends as
that chunk does, since each has a colon.
"""

from typing import Any, Final

from aiohttp import web
from multidict import istr

from coordinator.http.unreadable_heads import UnquotingHandler

_TRANSFER_ENCODING: Final = istr("Transfer-Encoding")
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
"""The end of a body in chunks without trailers, and of the line before it."""
_KEPT: Final = len(_LAST_CHUNK)


class TrailerlessHandler(UnquotingHandler):
    """aiohttp's side of a connection on which no trailer becomes a field of the next request."""

    __slots__ = ("_latest",)

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._latest = b""
        """The last bytes that came."""

    def data_received(self, data: bytes) -> None:
        self._latest = (self._latest + data[-_KEPT:])[-_KEPT:]
        super().data_received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if _TRANSFER_ENCODING in request.headers and not self._has_ended_plainly(request):
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def _has_ended_plainly(self, request: web.BaseRequest) -> bool:
        """Whether all of the request is there, with no trailer, and nothing that came behind it."""
        is_last = not self._messages and not self._message_tail
        return request.content.is_eof() and is_last and self._latest == _LAST_CHUNK
