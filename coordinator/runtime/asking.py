"""What asks another server by HTTP for an operator: no answer is too long, too slow, or somebody else's."""

import urllib.request
from http.client import IncompleteRead
from time import monotonic
from typing import Final, Protocol

_PART_BYTES: Final = 64 << 10


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows none: what a request carries is for the server that was named, and for no other."""

    def redirect_request(self, *_: object) -> None:
        return None


class _AnswerInParts(Protocol):
    length: int | None

    def read1(self, size: int, /) -> bytes: ...


def read_within(answer: _AnswerInParts, bytes_max: int, timeout_s: float) -> bytes:
    """The body, or its first `bytes_max` bytes. The connection's own timeout is for each part of it.

    Raises OSError, also TimeoutError after `timeout_s` seconds, and HTTPException for one that breaks off.
    """
    until_s = monotonic() + timeout_s
    body = bytearray()
    while part := answer.read1(min(_PART_BYTES, bytes_max - len(body))):
        body += part
        if len(body) == bytes_max:
            return bytes(body)
        if monotonic() > until_s:
            raise TimeoutError(f"its answer takes longer than {timeout_s} s")
    if answer.length:
        raise IncompleteRead(bytes(body), answer.length)
    return bytes(body)
