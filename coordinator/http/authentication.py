"""Who asks: the credential of a request, and the challenge where it has none that counts (RFC 6750, RFC 9110)."""

import re
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakSet, ref

from aiohttp import web
from multidict import istr

from coordinator.access.authenticator import Authenticator, NotAuthentic
from coordinator.http.principal_limits import PrincipalLimits
from coordinator.http.problems import REALM, RequestRefused
from coordinator.service.principal import Principal

_CREDENTIAL = re.compile(r"([A-Za-z][A-Za-z0-9._-]*+) ++([A-Za-z0-9._~+/-]++=*+)")

# In the form that is looked up in headers as it is.
_AUTHORIZATION: Final = istr("Authorization")

_open_handlers: Final[dict[int, ref[Any]]] = {}
"""By their ids, for as long as they are there: each request looks, and to look in a WeakSet takes ten times as long."""
_half_open_handlers: Final[WeakSet[Any]] = WeakSet()

H = TypeVar("H")


def open_to_all(handler: H) -> H:
    """Let a route be asked by everybody, with a credential or without: its handler finds out itself who asks."""
    place = id(handler)
    _open_handlers[place] = ref(handler, lambda _: _open_handlers.pop(place, None))
    return handler


def open_without_credential(handler: H) -> H:
    """Let a route be asked without a credential, too: its handler then refuses what is not for whoever is not known."""
    _half_open_handlers.add(handler)
    return handler


def is_open_handler(handler: Any) -> bool:
    """Whether everybody may ask a route with this handler."""
    return id(handler) in _open_handlers


def is_open_to_all(request: web.Request, handler: Any) -> bool:
    """Whether everybody may ask this request's route; `handler` is what a middleware is given to call."""
    if isinstance(handler, partial):
        # Another middleware is between.
        handler = request.match_info.handler
    return id(handler) in _open_handlers


def unauthenticated(reason: str, *, error: str | None = None) -> RequestRefused:
    """For a request of which nobody knows whose it is. `error` is RFC 6750's code; None where it has no credential."""
    refused = RequestRefused(401, "unauthenticated", reason, field="Authorization")
    said = "" if error is None else f', error="{error}", error_description="{_quotable(reason)}"'
    refused.challenge = f'Bearer realm="{REALM}"{said}'
    return refused


def forbidden(reason: str) -> RequestRefused:
    """For a request of somebody who is known, and may not do this."""
    return RequestRefused(403, "forbidden", reason)


class Authentication:
    """What a gateway knows of credentials: who checks them, and how much each principal may ask for."""

    def __init__(self, authenticator: Authenticator, limits: PrincipalLimits) -> None:
        self._authenticator = authenticator
        self.limits = limits

    def known(self, request: web.Request) -> Principal | None:
        """Who asks, where that takes no wait; None: ask `asker_of`, or `principal_of`."""
        values = request.headers.getall(_AUTHORIZATION, ())
        # What is known was well-formed when it was checked.
        return self._authenticator.known(values[0]) if len(values) == 1 else None

    async def asker_of(self, request: web.Request) -> Principal | None:
        """Who asks; None: nobody who is known, and the route needs nobody.

        Raises RequestRefused (401), and Unavailable.
        """
        needs_none = _AUTHORIZATION not in request.headers and request.match_info.handler in _half_open_handlers
        return None if needs_none else await self.principal_of(request)

    async def principal_of(self, request: web.Request) -> Principal:
        """Who asks. Raises RequestRefused (401), and Unavailable."""
        credential = credential_of(request.headers.getall(_AUTHORIZATION, ()))
        try:
            return await self._authenticator.principal_of(credential)
        except NotAuthentic as error:
            raise unauthenticated(f"the credential does not count: {error}", error="invalid_token") from None

    async def check_again(self, request: web.Request, principal: Principal) -> None:
        """Whether it still is he who asks, after a wait. Raises RequestRefused (401), and Unavailable."""
        if (self.known(request) or await self.principal_of(request)) != principal:
            raise unauthenticated("the credential does not count any more", error="invalid_token")

    async def problem(self) -> str | None:
        """For readiness."""
        return await self._authenticator.problem()

    @property
    def knows_nobody(self) -> bool:
        """Whether nothing by which callers are known could be read, ever, or for too long: each request is refused."""
        return not self._authenticator.knows_anybody

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """For as long as the application runs."""
        await self._authenticator.start()
        yield
        await self._authenticator.close()


AUTHENTICATION: Final = web.AppKey("AUTHENTICATION", Authentication)
"""Not there where everybody may ask."""


def credential_of(values: Sequence[str]) -> str:
    """The credential of `Authorization: Bearer …`. Raises RequestRefused (401)."""
    if not values:
        raise unauthenticated("a credential is needed: Authorization: Bearer …")
    if len(values) > 1:
        raise unauthenticated("Authorization is given twice", error="invalid_request")
    found = _CREDENTIAL.fullmatch(values[0].strip(" \t"))
    if found is None or found.group(1).lower() != "bearer":
        raise unauthenticated("Authorization must be: Bearer, a space, and the credential", error="invalid_request")
    return found.group(2)


def _quotable(text: str) -> str:
    """For a quoted string of RFC 6750, which takes few characters."""
    return "".join(letter if " " <= letter <= "~" and letter not in '"\\' else "'" for letter in text)
