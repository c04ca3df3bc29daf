"""The answer to bytes that are no request: it repeats none of them.

aiohttp's own words quote the line that it could not read, and that may be `Authorization`. An answer is kept and logged
by whatever stands between a gateway and its client.
"""

from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

_TOO_LONG: Final = "The request's line, or a field of its head, is too long.\n"
_UNREADABLE: Final = "This is no HTTP request that can be read.\n"


class UnquotingHandler(RequestHandler):
    """aiohttp's side of a connection, without its quotations."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, HttpProcessingError):
            message = _TOO_LONG if isinstance(exc, LineTooLong) else _UNREADABLE
        return super().handle_error(request, status, exc, message)
