"""`Expect: 100-continue`: a client asks whether to send its body (RFC 9110, section 10.1.1).

aiohttp says yes before the application has seen the request. Here a client hears so only once nothing refuses the
request: it is known who asks, the path is one of the gateway's, and the body is not too large. A handler may refuse
it later.
"""

from typing import Any, Final

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, CIMultiDictProxy

from coordinator.http.problems import RequestRefused, body_too_large, body_unreadable

CONTINUE: Final = "100-continue"
_EXPECT: Final = "Expect"
_ASKED: Final = web.RequestKey("ASKED", bool)


def put_off(request: web.BaseRequest) -> None:
    """Keep the question of a request from aiohttp. Raises RequestRefused (417) for another one."""
    expected = request.headers.get(_EXPECT)
    if expected is None:
        return
    if expected.lower() != CONTINUE:
        raise RequestRefused(417, "expectation_failed", f"Expect: {CONTINUE} is all that can be expected")
    headers = CIMultiDict(request.headers)
    headers.popall(_EXPECT)
    # Not by a clone, which would not be cancelled with its connection.
    changed: Any = request
    changed._headers = CIMultiDictProxy(headers)  # noqa: SLF001
    changed._cache.pop("headers", None)  # noqa: SLF001
    request[_ASKED] = True


async def ask_for_body(request: web.Request, bytes_max: int) -> None:
    """Answer the question, if the client of this request has asked it. Raises RequestRefused (413)."""
    if _ASKED not in request or request.match_info.http_exception is not None:
        return
    if (request.content_length or 0) > bytes_max:
        raise body_too_large(bytes_max)
    if request.version >= HttpVersion11:
        try:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        except ConnectionError as error:
            raise body_unreadable(error) from None
        # It is no part of the response.
        request.writer.output_size = 0
