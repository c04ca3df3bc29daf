"""Who asks in the tests of the reference system, unless a test is about that: somebody with every scope of its rules."""

from typing import Final

from coordinator.access.api_keys import MadeKey
from coordinator.dev.key import SUBJECT, DevelopmentKey
from coordinator.service.principal import Principal

SCOPES: Final = ("cashier", "operator", "payments", "staff", "stock")
CALLER: Final = Principal(subject=SUBJECT, scopes=frozenset(SCOPES))
KEY: Final = DevelopmentKey(MadeKey(), SCOPES)
"""His key. The databases of a test's system have it."""
HEADERS: Final = {"Authorization": f"Bearer {KEY.text}"}
ACCESS: Final = {"ACCESS_METHODS": "keys", "ACCESS_KEYS_REFRESH_S": "0.2"}
"""The settings of gateways that ask for it."""
