"""Bearer tokens: JSON Web Tokens (RFC 7519) of one issuer, checked as RFC 8725 asks."""

import base64
import re
import time
from collections import OrderedDict
from typing import Annotated, Any, Final

import jwt
import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from coordinator.access.authenticator import BEARER, NotAuthentic
from coordinator.access.key_sets import KeySet
from coordinator.access.settings import AccessSettings
from coordinator.service.nesting import is_too_deep
from coordinator.service.principal import Principal, defect_of_new
from coordinator.service.repeated_names import repeated_name

REMEMBERED_MAX: Final = 10_000
"""Tokens that are known to be good: checking a signature costs as much as a tenth of a request."""
REMEMBERED_CHARACTERS_MAX: Final = 8 << 20
"""Of all of them together. Kept as they are: a digest of each request's would cost more than all else of the look."""
_END_CHARACTERS: Final = 64
"""By so many at their ends they are found, which are of their signatures: to have all of each request's hashed would
cost as much as all else of the look. One that is found is compared as a whole."""
LAST_TIME: Final = 253_402_300_799
"""The end of the year 9999: a token that ends later is a mistake of its issuer's."""
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")
"""RFC 6749, 3.3: they are parted by single spaces."""
_REQUIRED: Final = ("exp", "iss", "aud", "sub")


class Tokens:
    """Implements `Authenticator`."""

    def __init__(self, settings: AccessSettings, tenant: str | None = None) -> None:
        """`tenant` is the only one whose principals count; None: all of them do."""
        self._settings = settings
        self._tenant = tenant
        self._algorithms = settings.token_algorithms.split()
        self._keys = KeySet(
            settings.token_keys,
            frozenset(self._algorithms),
            refresh_s=settings.token_keys_refresh_s,
            age_s_max=settings.token_keys_age_s_max,
        )
        # By the end of the value of `Authorization`: all of that, whom it proves, and until when.
        self._remembered: OrderedDict[str, tuple[str, Principal, float]] = OrderedDict()
        self._remembered_characters = 0
        self._generation = 0

    async def start(self) -> None:
        await self._keys.start()

    async def close(self) -> None:
        await self._keys.close()

    @property
    def knows_anybody(self) -> bool:
        return self._keys.has_any

    async def problem(self) -> str | None:
        return self._keys.problem()

    def known(self, authorization: str, /) -> Principal | None:
        keys = self._keys
        if self._generation != keys.generation:
            # A key may have been taken out since.
            self._generation = keys.generation
            self._remembered.clear()
            self._remembered_characters = 0
        found = self._remembered.get(authorization[-_END_CHARACTERS:])
        if found is None:
            return None
        remembered, principal, expires_at = found
        if remembered != authorization or expires_at <= time.time() or time.monotonic() > keys.good_until_s:
            return None
        return principal

    async def principal_of(self, credential: str) -> Principal:
        authorization = BEARER + credential
        known = self.known(authorization)
        if known is not None:
            return known
        principal, expires_at = await self._checked(credential)
        self._remember(authorization, principal, expires_at)
        return principal

    def _remember(self, authorization: str, principal: Principal, expires_at: float) -> None:
        end = authorization[-_END_CHARACTERS:]
        if (before := self._remembered.get(end)) is not None:
            self._remembered_characters -= len(before[0])
        self._remembered[end] = authorization, principal, expires_at
        self._remembered_characters += len(authorization)
        while len(self._remembered) > REMEMBERED_MAX or self._remembered_characters > REMEMBERED_CHARACTERS_MAX:
            _, (oldest, _, _) = self._remembered.popitem(last=False)
            self._remembered_characters -= len(oldest)

    async def _checked(self, token: str) -> tuple[Principal, float]:
        header = _header_of(token)
        if header.typ.lower() not in _TYPES or header.crit is not UNSET:
            raise NotAuthentic("it is no token of a kind that is known here")
        if header.alg not in self._algorithms:
            raise NotAuthentic("its algorithm is not taken")
        key = await self._keys.find(header.kid)
        if key is None:
            raise NotAuthentic("no key of its issuer has its `kid`")
        settings = self._settings
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=settings.token_audience,
                issuer=settings.token_issuer,
                leeway=settings.token_leeway_s,
                options={"require": list(_REQUIRED)},
            )
            # PyJWT takes a time that is a text or a bool, and numbers that JSON does not have; a fraction it cuts off.
            body = _read(token.split(".")[1])
            expires_at = int(msgspec.json.decode(body, type=_Times).exp) + settings.token_leeway_s
        except NotAuthentic:
            raise
        except jwt.PyJWTError as error:
            raise NotAuthentic(_WORDS.get(type(error), "it is not valid")) from None
        except Exception:  # noqa: BLE001  # whatever a parser says of a stranger's text
            raise NotAuthentic("it cannot be read") from None
        return self._principal(claims), expires_at

    def _principal(self, claims: dict[str, Any]) -> Principal:
        tenant = claims.get(self._settings.token_tenant_claim)
        scopes = claims.get(self._settings.token_scope_claim, "")
        if isinstance(scopes, str):
            scopes = [scope for scope in scopes.split(" ") if scope]
            if not all(map(_SCOPE.fullmatch, scopes)):
                raise NotAuthentic("its scopes have characters that those of OAuth have not, or other spaces between")
        if not isinstance(tenant, str | None) or not isinstance(scopes, list):
            raise NotAuthentic("its claims have other types than are known here")
        if not all(isinstance(scope, str) for scope in scopes):
            raise NotAuthentic("its claims have other types than are known here")
        principal = Principal(subject=claims["sub"], tenant=tenant, scopes=frozenset(scopes))
        if self._tenant is not None and tenant != self._tenant:
            raise NotAuthentic("it is of no principal of this tenant")
        defect = defect_of_new(principal)
        if defect is not None:
            raise NotAuthentic(defect)
        return principal


class _Header(Struct, frozen=True):
    """What counts of a token's head, before anything proves whose it is."""

    alg: str
    typ: str = "JWT"
    kid: str | None = None
    crit: Raw | UnsetType = UNSET


_Time = Annotated[int, Meta(ge=0, le=LAST_TIME)] | Annotated[float, Meta(ge=0, le=LAST_TIME)]


class _Times(Struct, frozen=True):
    """The times among a token's claims: numbers, as RFC 7519 has them."""

    exp: _Time
    nbf: _Time | UnsetType = UNSET
    iat: _Time | UnsetType = UNSET


def _header_of(token: str) -> _Header:
    """Raises NotAuthentic."""
    try:
        return msgspec.json.decode(_read(token.partition(".")[0]), type=_Header)
    except (ValueError, msgspec.MsgspecError):
        raise NotAuthentic("it is no JSON Web Token") from None


def _read(part: str) -> bytes:
    """The JSON text of a part of a token. Raises NotAuthentic, and ValueError.

    A text that is nested deep costs PyJWT a tenth of a second; of a name that stands twice readers differ in which
    value counts.
    """
    text = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if is_too_deep(text):
        raise NotAuthentic("it is no JSON Web Token")
    if repeated_name(text) is not None:
        raise NotAuthentic("it has a name twice")
    return text


_WORDS: Final[dict[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is another issuer's",
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.InvalidAlgorithmError: "its algorithm is not taken",
    jwt.MissingRequiredClaimError: f"it lacks one of {', '.join(_REQUIRED)}",
}
