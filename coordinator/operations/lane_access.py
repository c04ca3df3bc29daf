"""Who may look at which lanes, and act on them: by a key of the lane's own database, or by a token.

A key is of one lane: whoever has `operator` in one database has nothing in another.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Final

from aiohttp import web
from msgspec import Struct

from coordinator.access.api_keys import KeyRing
from coordinator.access.authenticator import Authenticator, NotAuthentic
from coordinator.access.settings import AccessSettings
from coordinator.client.api_keys import ApiKeysReader
from coordinator.runtime.settings import ReaderSettings, load
from coordinator.service.allowing import OPERATOR
from coordinator.service.errors import Unavailable
from coordinator.service.principal import Principal

VIEWER: Final = "viewer"
"""The scope of those who may look: not at what commands hold, and not act."""


class LaneRights(Struct, frozen=True, kw_only=True):
    """What one credential is good for: whose it is, the lanes that it may look at, and those on which it may act."""

    author: str
    seen: frozenset[str]
    operated: frozenset[str]


class LaneAccess:
    """The authenticators of all lanes."""

    def __init__(self, settings: AccessSettings, lanes: Sequence[str]) -> None:
        """Raises ConfigurationError."""
        methods = settings.methods.split()
        self._lanes = tuple(lanes)
        self._rings: Mapping[str, Authenticator] = {}
        self._tokens: Authenticator | None = None
        if "keys" in methods:
            self._rings = {lane: _ring(lane, settings.keys_refresh_s) for lane in lanes}
        if "tokens" in methods:
            # Without tokens no library for them is needed.
            from coordinator.access.tokens import Tokens  # noqa: PLC0415

            self._tokens = Tokens(settings)

    async def rights_of(self, credential: str) -> LaneRights:
        """What a credential is good for. Raises NotAuthentic, and Unavailable while nothing can be checked."""
        found: dict[str, Principal] = {}
        refusal: NotAuthentic | None = None
        unavailable: Unavailable | None = None
        for lane, ring in self._rings.items():
            try:
                found[lane] = await ring.principal_of(credential)
            except NotAuthentic as error:
                # Of a key that one lane has revoked, that is what to say.
                refusal = error if refusal is None or "known" in str(refusal) else refusal
            except Unavailable as error:
                unavailable = error
        if self._tokens is not None and not found:
            try:
                principal = await self._tokens.principal_of(credential)
                found = dict.fromkeys(self._lanes, principal)
            except NotAuthentic as error:
                refusal = refusal or error
        if not found:
            raise unavailable or refusal or NotAuthentic("nothing here checks credentials")
        operated = frozenset(lane for lane, who in found.items() if OPERATOR in who.scopes)
        seen = operated | frozenset(lane for lane, who in found.items() if VIEWER in who.scopes)
        if not seen:
            raise NotAuthentic(f"it has neither the scope `{OPERATOR}` nor `{VIEWER}`")
        first = next(found[lane] for lane in self._lanes if lane in seen)
        return LaneRights(author=first.subject, seen=seen, operated=operated)

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """For as long as the application runs."""
        for each in self._all():
            await each.start()
        yield
        for each in self._all():
            await each.close()

    def _all(self) -> list[Authenticator]:
        return [*self._rings.values(), *([] if self._tokens is None else [self._tokens])]


def _ring(lane: str, refresh_s: float) -> KeyRing:
    reader = ApiKeysReader(load(ReaderSettings, prefix=f"{lane.upper()}_").url(lane))
    return KeyRing(partial(reader.read), refresh_s, reader.close)
