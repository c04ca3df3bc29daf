"""Several ways to prove who one is: what a credential looks like says which of them it is for."""

from coordinator.access.api_keys import PREFIX, KeyRing
from coordinator.access.authenticator import BEARER
from coordinator.access.tokens import Tokens
from coordinator.service.principal import Principal


class KeysAndTokens:
    """Implements `Authenticator`."""

    def __init__(self, keys: KeyRing, tokens: Tokens) -> None:
        self._keys = keys
        self._tokens = tokens

    # No token begins as keys do: its first part is an object in base64, which begins with e.

    def known(self, authorization: str, /) -> Principal | None:
        is_key = authorization.startswith(PREFIX, len(BEARER))
        return self._keys.known(authorization) if is_key else self._tokens.known(authorization)

    async def principal_of(self, credential: str) -> Principal:
        is_key = credential.startswith(PREFIX)
        return await (self._keys.principal_of(credential) if is_key else self._tokens.principal_of(credential))

    @property
    def knows_anybody(self) -> bool:
        return self._keys.knows_anybody or self._tokens.knows_anybody

    async def problem(self) -> str | None:
        problems = [await self._keys.problem(), await self._tokens.problem()]
        return "; ".join(filter(None, problems)) or None

    async def start(self) -> None:
        await self._keys.start()
        await self._tokens.start()

    async def close(self) -> None:
        await self._keys.close()
        await self._tokens.close()
