"""Several ways to prove who one is: what a credential looks like says which of them it is for."""

from coordinator.access.api_keys import PREFIX, KeyRing
from coordinator.access.tokens import Tokens
from coordinator.service.principal import Principal


class KeysAndTokens:
    """Implements `Authenticator`."""

    def __init__(self, keys: KeyRing, tokens: Tokens) -> None:
        self._keys = keys
        self._tokens = tokens

    def known(self, credential: str, /) -> Principal | None:
        return self._way(credential).known(credential)

    async def principal_of(self, credential: str) -> Principal:
        return await self._way(credential).principal_of(credential)

    def _way(self, credential: str) -> KeyRing | Tokens:
        # No token begins so: its first part is an object in base64, which begins with e.
        return self._keys if credential.startswith(PREFIX) else self._tokens

    async def problem(self) -> str | None:
        problems = [await self._keys.problem(), await self._tokens.problem()]
        return "; ".join(filter(None, problems)) or None

    async def start(self) -> None:
        await self._keys.start()
        await self._tokens.start()

    async def close(self) -> None:
        await self._keys.close()
        await self._tokens.close()
