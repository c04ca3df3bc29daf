"""Who asks in the tests of the reference system, unless a test is about that: one who has every scope of its rules."""

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from coordinator.access.api_keys import MadeKey
from coordinator.dev.key import SUBJECT, DevelopmentKey
from coordinator.runtime.addresses import address_of, parse_address
from coordinator.service.ids import scoped_command_id_for
from coordinator.service.principal import Principal
from coordinator.stores.kinds import kind_of
from coordinator.stores.lane_tables import ApiKey

SCOPES: Final = ("cashier", "operator", "payments", "staff", "stock")
CALLER: Final = Principal(subject=SUBJECT, scopes=frozenset(SCOPES))
KEY: Final = DevelopmentKey(MadeKey(), SCOPES)
"""His key. The databases of a test's system have it."""
HEADERS: Final = {"Authorization": f"Bearer {KEY.text}"}
ACCESS: Final = {"ACCESS_METHODS": "keys", "ACCESS_KEYS_REFRESH_S": "0.2"}
"""The settings of gateways that ask for it."""


def key_of(subject: str, lanes: Mapping[str, str], *scopes: str, tenant: str | None = None) -> str:
    """The text of a new key of somebody, which the databases of these lanes have from now on. Blocking."""
    made = MadeKey()
    row = ApiKey(
        id=made.id,
        digest=made.digest,
        subject=subject,
        tenant=tenant,
        scopes=" ".join(scopes),
        created_at=datetime.now(UTC),
        created_by="tests",
    )
    for lane, url in lanes.items():
        with address_of(f"{lane.upper()}_DATABASE_URL"):
            address = parse_address(url)
            with closing(kind_of(address).open_api_keys(address, lane)) as keys:
                keys.add(row)
    return made.text


def secret_of(lane: str, url: str) -> str:
    """With which the ids of a lane's commands are made of idempotency keys. Blocking."""
    with address_of(f"{lane.upper()}_DATABASE_URL"):
        address = parse_address(url)
        with closing(kind_of(address).open_api_keys(address, lane)) as keys:
            return max(keys.secrets(), key=lambda each: each.id).secret


def own_command_id(secret: str, lane: str, key: str) -> str:
    """The id of the command that the caller asks for under an idempotency key."""
    return scoped_command_id_for(secret, lane, key, subject=SUBJECT)
