"""Gateways that ask nobody who he is, since only this machine reaches them: pages of other sites are kept out.

A browser of this machine reaches them, too, and with it whatever page it shows: by a form that it sends, or as its own
where a name of its site leads here (DNS rebinding).
"""

from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from coordinator.http.problems import RequestRefused

OWN_MACHINE: Final = web.AppKey("OWN_MACHINE", bool)
"""There, and true, where a gateway is for this machine alone."""
_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_REMEMBERED_MAX: Final = 100


def check_own_machine(request: web.Request) -> None:
    """Raises RequestRefused (403) for a request that a page of another site may have sent.

    Browsers always say the name by which they ask, and the origin of what changes something. What says neither is none.
    """
    headers = request.headers
    if not (names_this_machine(headers.get("Host")) and names_this_machine(headers.get("Origin"))):
        raise RequestRefused(
            403,
            "forbidden",
            "this gateway asks nobody who he is (ACCESS_METHODS is not set), so it is asked as localhost or 127.0.0.1 "
            "alone, and by no page of another site; ACCESS_METHODS=none lets everybody in",
        )


@lru_cache(maxsize=_REMEMBERED_MAX)
def names_this_machine(text: str | None) -> bool:
    """Whether a `Host`, or an `Origin`, names this machine, or is not there."""
    if text is None:
        return True
    try:
        return urlsplit(text if "://" in text else f"//{text}").hostname in _NAMES
    except ValueError:
        return False
