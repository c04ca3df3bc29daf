"""Gateways that ask nobody who he is, since only this machine reaches them: pages of other sites, and who comes through
a proxy of this machine, are kept out.

A browser of this machine reaches them, too, and with it whatever page it shows: by a form that it sends, or as its own
where a name of its site leads here (DNS rebinding). A proxy asks by the address that it was given, for whoever reaches
it. One that adds no field of its own cannot be told from a program of this machine.

So it is where a gateway lets everybody in, and a setting says by which names (`ACCESS_OPEN_AS`), as in a container of a
developer's machine; but for proxies, since these may be meant.
"""

from functools import lru_cache
from typing import Final

from aiohttp import web
from msgspec import Struct

from coordinator.access.opening import is_own_machine
from coordinator.access.settings import AccessSettings
from coordinator.http.problems import RequestRefused
from coordinator.runtime.host_names import LOOPBACK_NAMES, host_of


class AskedAs(Struct, frozen=True):
    """How a gateway may be asked that asks nobody who he is: by the names of this machine, and by these.

    `by_proxy`: also through a proxy that says so.
    """

    names: frozenset[str] = frozenset()
    by_proxy: bool = False


ASKED_AS: Final = web.AppKey("ASKED_AS", AskedAs)
"""Not there where any way will do."""
PROXY_FIELDS: Final = frozenset(
    {
        "forwarded",
        "via",
        *("x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-proxyuser-ip", "x-scheme"),
        *("true-client-ip", "fastly-client-ip"),
    }
)
"""What proxies add to a request (RFC 7239, RFC 9110 section 7.6.3, and what is usual beside), in small letters."""
PROXY_BEGINNINGS: Final = ("x-forwarded", "x-original-forwarded", "x-envoy-", "cf-")
"""Of names of fields that proxies add."""
_REMEMBERED_MAX: Final = 100
_OWN_MACHINE: Final = AskedAs()


def asked_as(access: AccessSettings, host: str) -> AskedAs | None:
    """How a gateway on this address may be asked; None: in any way, or whoever asks proves who he is."""
    if is_own_machine(access, host):
        return _OWN_MACHINE
    if access.methods == "none" and access.open_as:
        return AskedAs(frozenset(access.open_as.split()), by_proxy=True)
    return None


def check_own_machine(request: web.Request, asked: AskedAs = _OWN_MACHINE) -> None:
    """Raises RequestRefused (403) for a request that a page of another site may have sent, or somebody elsewhere.

    Browsers always say the name by which they ask, and the origin of what changes something. What says neither is none.
    """
    headers = request.headers
    named = (headers.get("Host"), headers.get("Origin"), authority_of(request))
    is_own = all(each is None or names_this_machine(each) or _host_of(each) in asked.names for each in named)
    if is_own and not is_of_another_site(request) and (asked.by_proxy or not is_passed_on(request)):
        return
    if asked.by_proxy:
        names = ", ".join(sorted(asked.names))
        text = f"this gateway asks nobody who he is, so it is asked as localhost, 127.0.0.1 or {names} (ACCESS_OPEN_AS)"
        raise RequestRefused(403, "forbidden", f"{text}, and by no page of another site")
    raise RequestRefused(
        403,
        "forbidden",
        "this gateway asks nobody who he is (ACCESS_METHODS is not set), so it is asked as localhost, a name below "
        "it (acme.localhost) or 127.0.0.1 alone, through no proxy and by no page of another site; "
        "ACCESS_METHODS=none lets everybody in",
    )


def is_passed_on(request: web.Request) -> bool:
    """Whether a proxy says that it has passed the request on: nobody knows who has sent it."""
    names = map(str.lower, request.headers)
    return any(name in PROXY_FIELDS or name.startswith(PROXY_BEGINNINGS) for name in names)


def authority_of(request: web.BaseRequest) -> str | None:
    """The whole address in the request line, which counts more than `Host` (RFC 9112, section 3.2.2); mostly None."""
    target = request.raw_path
    return None if target.startswith("/") or target == "*" else target


def is_of_another_site(request: web.Request) -> bool:
    """Whether a browser says that a page of another site has sent the request. A link that is followed is no such one:
    the page does not see what it leads to (https://www.w3.org/TR/fetch-metadata)."""
    headers = request.headers
    if headers.get("Sec-Fetch-Site") != "cross-site":
        return False
    is_link = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return request.method not in ("GET", "HEAD") or not is_link


def names_this_machine(text: str | None) -> bool:
    """Whether a `Host`, an `Origin`, or an address names this machine, or is not there."""
    if text is None:
        return True
    host = _host_of(text)
    # Names below it lead to this machine, too: RFC 6761, section 6.3. Each of several tenants has one.
    return host in LOOPBACK_NAMES or host.endswith(".localhost")


@lru_cache(maxsize=_REMEMBERED_MAX)
def _host_of(text: str) -> str:
    """Empty: it names none."""
    return host_of(text if "://" in text else f"//{text}") or ""
