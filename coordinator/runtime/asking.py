"""What asks another server by HTTP for an operator: no answer is too long, too slow, or somebody else's."""

import io
import socket
import urllib.request
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection, IncompleteRead
from time import monotonic
from typing import Any, Final, Protocol

_PART_BYTES: Final = 64 << 10


def open_within(asked: str | urllib.request.Request, timeout_s: float, *, has_proxies: bool) -> Any:
    """The answer, an HTTPResponse, of which no byte is taken after `timeout_s` seconds: headers, too, may come one by
    one. A connection to one of several addresses of a name may take as long for each.

    No redirection is followed: what a request carries is for the server that was named, and for no other.
    `has_proxies`: those that the environment names are asked. Raises OSError, HTTPException, and HTTPError, whose `fp`
    is the answer.
    """
    handlers = (_NoRedirects, _HttpUntil, _HttpsUntil, *(() if has_proxies else (urllib.request.ProxyHandler({}),)))
    # Made here, since it reads the environment for proxies.
    return urllib.request.build_opener(*handlers).open(asked, timeout=timeout_s)


class _AnswerInParts(Protocol):
    length: int | None

    def read1(self, size: int, /) -> bytes: ...


def read_within(answer: _AnswerInParts, bytes_max: int) -> bytes:
    """The body, or its first `bytes_max` bytes.

    Raises OSError, also TimeoutError where it takes too long, and HTTPException for one that breaks off.
    """
    body = bytearray()
    while part := answer.read1(min(_PART_BYTES, bytes_max - len(body))):
        body += part
        if len(body) == bytes_max:
            return bytes(body)
    if answer.length:
        raise IncompleteRead(bytes(body), answer.length)
    return bytes(body)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class _BytesUntil(io.RawIOBase):
    """What comes over a connection, up to a time. The connection's own timeout is for each part of it."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, timeout_s: float, until_s: float) -> None:
        self._raw = raw
        self._connection = connection
        self._timeout_s = timeout_s
        self._until_s = until_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._until_s - monotonic()
        if left_s > 0:
            self._connection.settimeout(left_s)
            try:
                return self._raw.readinto(buffer)
            except TimeoutError:
                pass
        raise TimeoutError(f"its answer takes longer than {self._timeout_s} s")

    def close(self) -> None:
        self._raw.close()
        super().close()


class _AnswerUntil(HTTPResponse):
    def __init__(
        self, connection: socket.socket, *arguments: Any, timeout_s: float, until_s: float, **named: Any
    ) -> None:
        super().__init__(connection, *arguments, **named)
        self.fp = io.BufferedReader(_BytesUntil(self.fp.detach(), connection, timeout_s, until_s))


class _ConnectionUntil(HTTPConnection):
    def __init__(self, host: str, **named: Any) -> None:
        super().__init__(host, **named)
        _limit(self)


class _SecureConnectionUntil(HTTPSConnection):
    def __init__(self, host: str, **named: Any) -> None:
        super().__init__(host, **named)
        _limit(self)


def _limit(connection: HTTPConnection) -> None:
    """Its answers, and that of a proxy, are to be there at a time which is counted from here on."""
    timeout_s = connection.timeout or 0.0
    answer = partial(_AnswerUntil, timeout_s=timeout_s, until_s=monotonic() + timeout_s)
    connection.response_class = answer  # type: ignore[assignment]  # it is called


class _HttpUntil(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_ConnectionUntil, request)


class _HttpsUntil(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_SecureConnectionUntil, request)
