"""Who asks in the rows about access: an issuer's keys, and tokens of many principals."""

import time
from pathlib import Path
from typing import Final

from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, key_set

PRINCIPALS: Final = 500
"""More than there are connections, so that no request is of the principal before."""
_GOOD_FOR_S: Final = 24 * 60 * 60


class Access:
    """Files in a directory: the set of keys for gateways, and a token on each line for clients.

    Tokens are signed by RSA, as most issuers' are: of all algorithms it makes the longest.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._keys = directory / "keys.json"
        self.tokens = directory / "tokens"

    def gateway_settings(self) -> dict[str, str]:
        """For a gateway that takes these tokens, which are made when they are first needed."""
        if not self.tokens.exists():
            self._make()
        return {
            "ACCESS_METHODS": "tokens",
            "ACCESS_TOKEN_ISSUER": ISSUER,
            "ACCESS_TOKEN_AUDIENCE": AUDIENCE,
            "ACCESS_TOKEN_KEYS": str(self._keys),
        }

    def _make(self) -> None:
        self._directory.mkdir(exist_ok=True)
        key = SigningKey("of the benchmark", "RS256")
        self._keys.write_bytes(key_set(key))
        expires_at = int(time.time()) + _GOOD_FOR_S
        made = (
            key.token(sub=f"client-{number}", scope="read credit", tenant="shop", exp=expires_at)
            for number in range(PRINCIPALS)
        )
        self.tokens.write_text("\n".join(made))
