"""Who may look at which lanes, and act on them: by a key of the lane's own database, or by a token.

A key is of one lane: whoever has `operator` in one database has nothing in another.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from aiohttp import web
from msgspec import Struct

from coordinator.access.api_keys import KeyRing
from coordinator.access.authenticator import Authenticator, NotAuthentic
from coordinator.access.settings import AccessSettings
from coordinator.client.api_keys import ApiKeysReader
from coordinator.operate.actors import SHORTENED, named
from coordinator.operate.output import BY_CHARACTERS_MAX
from coordinator.protocol.actors import Logged
from coordinator.runtime.settings import ReaderSettings, load
from coordinator.service.allowing import OPERATOR
from coordinator.service.errors import Unavailable
from coordinator.service.json_text import to_json
from coordinator.service.lane_names import settings_prefix, tenant_of
from coordinator.service.principal import Principal

VIEWER: Final = "viewer"
"""The scope of those who may look: not at what commands hold, and not act."""
BY_PAGE: Final = "page:"
"""The beginning of an act's author who has shown a credential to this gateway: whatever his subject, he is not taken
for somebody who ran a command in a shell."""
ANYBODY_BY_PAGE: Final = "page of "
"""The same where the gateway asks nobody who he is; the user who runs it comes behind."""


class LaneRights(Struct, frozen=True, kw_only=True):
    """What one credential is good for: whose it is, the lanes that it may look at, and those on which it may act.

    `authors` has for each lane that it may look at the name that this lane's own keys give him, as its acts have it:
    what another lane's database says of a key makes him nobody here. `author` is for his own eyes. `share` stands for
    all that is known of him: whoever has the same has one share of the room with him.
    """

    author: str
    share: str
    authors: Mapping[str, str]
    seen: frozenset[str]
    operated: frozenset[str]


def author_of(principal: Principal) -> str:
    """As an act has him: by a page, and with his tenant. Nobody else is called so, on a page or in a shell."""
    return _cut(BY_PAGE + _name_of(principal))


def rights_of_everybody(user: str, lanes: frozenset[str]) -> LaneRights:
    """Of whoever asks where nobody is asked who he is: `user` runs the process. He may do everything in these lanes."""
    authors = dict.fromkeys(lanes, _cut(f"{ANYBODY_BY_PAGE}{user}"))
    return LaneRights(author=user, share=user, authors=authors, seen=lanes, operated=lanes)


def _name_of(principal: Principal) -> str:
    return named(Logged(principal.subject, principal.tenant))


def _cut(name: str) -> str:
    """Where a name is too long, its beginning, and a digest of all of it: no other name ends so."""
    if len(name) <= BY_CHARACTERS_MAX:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: BY_CHARACTERS_MAX - 18]}{SHORTENED} {digest}"


class LaneAccess:
    """The authenticators of all lanes."""

    def __init__(self, settings: AccessSettings, lanes: Sequence[str]) -> None:
        """Raises ConfigurationError."""
        methods = settings.methods.split()
        self._lanes = tuple(lanes)
        self._rings: Mapping[str, Authenticator] = {}
        self._tokens: Authenticator | None = None
        if "keys" in methods:
            self._rings = {lane: _ring(lane, settings) for lane in lanes}
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
                # One who belongs to a tenant has no rights in another's lanes.
                found = {lane: principal for lane in self._lanes if _may_see(principal, lane)}
            except NotAuthentic as error:
                refusal = refusal or error
        if not found:
            raise unavailable or refusal or NotAuthentic("nothing here checks credentials")
        operated = frozenset(lane for lane, who in found.items() if OPERATOR in who.scopes)
        seen = operated | frozenset(lane for lane, who in found.items() if VIEWER in who.scopes)
        if not seen:
            raise NotAuthentic(f"it has neither the scope `{OPERATOR}` nor `{VIEWER}`")
        authors = {lane: author_of(found[lane]) for lane in self._lanes if lane in seen}
        share = to_json([(lane, found[lane].tenant, found[lane].subject) for lane in authors]).decode()
        author = ", ".join(dict.fromkeys(_cut(_name_of(found[lane])) for lane in authors))
        return LaneRights(author=author, share=share, authors=authors, seen=seen, operated=operated)

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """For as long as the application runs."""
        for each in self._all():
            await each.start()
        yield
        for each in self._all():
            await each.close()

    def _all(self) -> list[Authenticator]:
        return [*self._rings.values(), *([] if self._tokens is None else [self._tokens])]


def _may_see(principal: Principal, lane: str) -> bool:
    return principal.tenant is None or tenant_of(lane) in (None, principal.tenant)


def _ring(lane: str, settings: AccessSettings) -> KeyRing:
    reading = load(ReaderSettings, prefix=settings_prefix(lane))
    reader = ApiKeysReader(reading.primary_url or reading.url(lane))
    return KeyRing(reader.read, settings.keys_refresh_s, reader.close, age_s_max=settings.keys_age_s_max)
