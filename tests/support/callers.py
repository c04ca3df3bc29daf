"""Who asks in the tests of the reference system, unless a test is about that: one who has every scope of its rules."""

from typing import Final

from coordinator.access.api_keys import MadeKey
from coordinator.dev.key import SUBJECT, DevelopmentKey
from coordinator.runtime.addresses import address_of, parse_address
from coordinator.service.ids import scoped_command_id_for
from coordinator.service.principal import Principal
from coordinator.stores.kinds import kind_of

SCOPES: Final = ("cashier", "operator", "payments", "staff", "stock")
CALLER: Final = Principal(subject=SUBJECT, scopes=frozenset(SCOPES))
KEY: Final = DevelopmentKey(MadeKey(), SCOPES)
"""His key. The databases of a test's system have it."""
HEADERS: Final = {"Authorization": f"Bearer {KEY.text}"}
ACCESS: Final = {"ACCESS_METHODS": "keys", "ACCESS_KEYS_REFRESH_S": "0.2"}
"""The settings of gateways that ask for it."""


def secret_of(lane: str, url: str) -> str:
    """With which the ids of a lane's commands are made of idempotency keys. Blocking."""
    with address_of(f"{lane.upper()}_DATABASE_URL"):
        address = parse_address(url)
        keys = kind_of(address).open_api_keys(address, lane)
    try:
        return max(keys.secrets(), key=lambda each: each.id).secret
    finally:
        keys.close()


def own_command_id(secret: str, lane: str, key: str) -> str:
    """The id of the command that the caller asks for under an idempotency key."""
    return scoped_command_id_for(secret, lane, key, subject=SUBJECT)
