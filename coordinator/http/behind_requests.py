"""What stands behind a request on its connection: a connection ends with the answer where aiohttp mistakes that.

- Fields behind a body in chunks (trailers, RFC 9112 section 7.1.2): it keeps the last one, and takes it for a field of
  the next request. Where a proxy shares its connections among clients, that request is another client's. So it is not
  served, unless it is certain that nothing stood behind the last chunk. No line of trailers ends as that chunk does,
  since each has a colon.
- What follows a request that offers another protocol (`Upgrade`): it drops what came together with it, or waits for an
  upgrade that nobody makes, and leaves the next request without an answer.
"""

from typing import Any, Final

from aiohttp import web
from multidict import istr

from coordinator.http.unreadable_heads import UnquotingHandler

_TRANSFER_ENCODING: Final = istr("Transfer-Encoding")
_UPGRADE: Final = istr("Upgrade")
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
"""The end of a body in chunks without trailers, and of the line before it."""
_KEPT: Final = len(_LAST_CHUNK)


class PlainlyEndedHandler(UnquotingHandler):
    """aiohttp's side of a connection that goes on only behind a request whose end is plain."""

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
        headers = request.headers
        if _UPGRADE in headers or (_TRANSFER_ENCODING in headers and not self._has_no_trailers(request)):
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def _has_no_trailers(self, request: web.BaseRequest) -> bool:
        """Whether all of the request is there, without trailers, and nothing that came behind it."""
        return request.content.is_eof() and not self._messages and self._latest == _LAST_CHUNK
