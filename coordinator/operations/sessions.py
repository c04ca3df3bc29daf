"""Sessions of browsers: made from a credential, kept in memory, short.

A session holds its credential and asks again what it is good for, so a revoked key ends it. Its cookie is HttpOnly and
SameSite=Strict; whatever changes something shows the session's mark in a header besides, which no other site can know.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Collection
from typing import Final, Literal, TypedDict
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from coordinator.access.authenticator import NotAuthentic
from coordinator.http.connections import giving_way
from coordinator.http.own_machine import authority_of, is_of_another_site, is_passed_on
from coordinator.http.problems import REALM, RequestRefused
from coordinator.operate.output import as_user
from coordinator.operations.lane_access import LaneAccess, LaneRights, rights_of_everybody
from coordinator.runtime.host_names import LOOPBACK_NAMES, host_of
from coordinator.runtime.token_bucket import TokenBucket

COOKIE: Final = "operations_session"
"""With the port, since a cookie is of a host, whatever the port: two gateways of one machine have one each."""
HOST_PREFIX: Final = "__Host-"
"""Browsers take a cookie of such a name from HTTPS alone, for all paths and no other host (RFC 6265bis)."""
MARK_HEADER: Final = "Operations-Mark"
SESSIONS_MAX: Final = 1000
CREDENTIAL_CHARACTERS_MAX: Final = 8000
SESSIONS_OF_ONE_MAX: Final = 20
"""Of one who signs in; the one that he has not used for longest makes room, and nobody else's."""
FAILURES_A_MINUTE: Final = 20
"""Wrong credentials that are logged, of all who send some; more of them are told to wait. A right one always counts:
strangers keep nobody out."""
log = structlog.get_logger("operations")


class _CookieAttributes(TypedDict):
    """To end a cookie one must name what it was set with."""

    path: str
    httponly: bool
    samesite: Literal["Strict"]
    secure: bool


class _Session:
    """One browser's."""

    def __init__(self, credential: str, share: str, ends_s: float) -> None:
        self.credential = credential
        self.share = share
        self.ends_s = ends_s
        self.mark = secrets.token_urlsafe(24)


class Sessions:
    """All of them. `access` None: who asks by a name of this machine, or by one of `open_as`, may do everything."""

    def __init__(
        self,
        access: LaneAccess | None,
        lanes: tuple[str, ...],
        session_s: float,
        *,
        open_as: Collection[str] = (),
        is_behind_tls: bool = False,
    ) -> None:
        """`open_as`: beside the names of this machine; without any, nobody comes through a proxy.

        `is_behind_tls`: viewers come by HTTPS, though it does not come that way from the proxy.
        """
        self._access = access
        self._session_s = session_s
        self._open_as = LOOPBACK_NAMES | frozenset(open_as)
        self._is_own_machine = not open_as
        self._is_behind_tls = is_behind_tls
        self._sessions: dict[str, _Session] = {}
        """In the order in which they were used last."""
        self._failures = TokenBucket(FAILURES_A_MINUTE / 60, FAILURES_A_MINUTE, time.monotonic())
        self._open_mark = secrets.token_urlsafe(24)
        everything = frozenset(lanes)
        self._everybody = rights_of_everybody(as_user(), everything)

    @property
    def asks(self) -> bool:
        """Whether viewers must prove who they are."""
        return self._access is not None

    async def sign_in(self, request: web.Request, credential: str) -> web.Response:
        """Begin a session: the response has its cookie. Raises RequestRefused (401, 429), and Unavailable."""
        if self._access is None:
            return web.Response(status=204)
        try:
            with giving_way(request):
                rights = await self._access.rights_of(credential)
        except NotAuthentic as error:
            # A guess costs no more than at a gateway, and there are 2^256 keys: only the log has to be spared.
            if not self._failures.take(time.monotonic()):
                refused = RequestRefused(429, "too_many_sign_ins", "too many wrong keys were tried: wait a few seconds")
                refused.retry_after_s = max(1, int(self._failures.more_in_s))
                raise refused from None
            log.warning("sign_in_refused", remote=request.remote, reason=str(error))
            raise _unauthenticated(f"the key does not count: {error}", self._cookie(request)) from None
        self._make_room(rights.share)
        token = secrets.token_urlsafe(32)
        self._sessions[_digest(token)] = _Session(credential, rights.share, time.monotonic() + self._session_s)
        log.info("signed_in", author=rights.author, remote=request.remote)
        response = web.Response(status=204)
        response.set_cookie(self._cookie(request), token, max_age=int(self._session_s), **self._attributes(request))
        return response

    def _cookie(self, request: web.Request) -> str:
        address = None if request.transport is None else request.transport.get_extra_info("sockname")
        name = f"{COOKIE}_{address[1]}" if isinstance(address, tuple) else COOKIE
        return HOST_PREFIX + name if self._is_https(request) else name

    def _is_https(self, request: web.Request) -> bool:
        return self._is_behind_tls or request.secure

    def _attributes(self, request: web.Request) -> _CookieAttributes:
        return {"path": "/", "httponly": True, "samesite": "Strict", "secure": self._is_https(request)}

    def _token(self, request: web.Request) -> str:
        return request.cookies.get(self._cookie(request), "")

    def sign_out(self, request: web.Request) -> web.Response:
        """End the session of a request."""
        self._sessions.pop(_digest(self._token(request)), None)
        response = web.Response(status=204)
        response.del_cookie(self._cookie(request), **self._attributes(request))
        return response

    async def rights_of(self, request: web.Request) -> tuple[LaneRights, str]:
        """What whoever asks may do, and the mark of his session. Raises RequestRefused (401), and Unavailable."""
        if self._access is None:
            return self._everybody, self._open_mark
        key = _digest(self._token(request))
        session = self._sessions.get(key)
        if session is None or session.ends_s <= time.monotonic():
            self._sessions.pop(key, None)
            raise _unauthenticated("sign in with a key: there is no session, or it is over", self._cookie(request))
        # An open page asks again and again, and so makes room for none that only signs in.
        self._sessions[key] = self._sessions.pop(key)
        try:
            return await self._access.rights_of(session.credential), session.mark
        except NotAuthentic as error:
            self._sessions.pop(key, None)
            raise _unauthenticated(f"the key does not count any more: {error}", self._cookie(request)) from None

    def check_host(self, request: web.Request) -> None:
        """Raises RequestRefused (403) for what a page of another site, or somebody elsewhere, asks of a port that asks
        nobody who he is."""
        if self._access is not None:
            return
        addresses = [f"//{request.headers.get('Host', '')}"]
        if (authority := authority_of(request)) is not None:
            addresses.append(authority if "://" in authority else f"//{authority}")
        is_named = all(host_of(each) in self._open_as for each in addresses)
        if not is_named or is_of_another_site(request) or (self._is_own_machine and is_passed_on(request)):
            names = " or ".join(sorted(self._open_as - {"::1"}, reverse=True))
            through = " through no proxy," if self._is_own_machine else ""
            raise RequestRefused(
                403,
                "forbidden",
                f"without keys (ACCESS_METHODS) this port is asked as {names} only,{through} and by no page of another "
                "site (OPERATIONS_OPEN_AS)",
            )

    def check_mark(self, request: web.Request, mark: str) -> None:
        """Raises RequestRefused (403) for a change that another site may have asked for."""
        sent = request.headers.get(MARK_HEADER, "")
        if not hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), mark.encode()):
            raise RequestRefused(
                403, "forbidden", f"a change needs the session's mark in {MARK_HEADER}: load the page again"
            )
        check_origin(request)

    def _make_room(self, share: str) -> None:
        now_s = time.monotonic()
        for key in [key for key, session in self._sessions.items() if session.ends_s <= now_s]:
            del self._sessions[key]
        own = [key for key, session in self._sessions.items() if session.share == share]
        for key in own[: max(0, len(own) + 1 - SESSIONS_OF_ONE_MAX)]:
            del self._sessions[key]
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]


def check_origin(request: web.Request) -> None:
    """Raises RequestRefused (403) for a request that a page of another site has sent."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = request.headers.get("Origin")
    is_other = origin is not None and _authority_of(origin) != request.headers.get("Host", "").lower()
    if site not in ("same-origin", "none") or is_other:
        raise RequestRefused(403, "forbidden", "another site has sent this request")


def _unauthenticated(reason: str, cookie: str) -> RequestRefused:
    """With the challenge that every 401 has (RFC 9110); browsers ask nobody for a password by this one."""
    refused = RequestRefused(401, "unauthenticated", reason)
    refused.challenge = f'Cookie realm="{REALM}", cookie-name="{cookie}"'
    return refused


def _authority_of(origin: str) -> str | None:
    """None: it is no address, and so no origin of ours."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
