"""A developer's API key, for a run whose services say who may do what.

It is made at the first such run and kept. It has every scope that a rule of the services names by `has_scope`, and that
of operators.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from coordinator.access.api_keys import MadeKey
from coordinator.dev.workspace import Workspace
from coordinator.runtime.addresses import address_of, parse_address
from coordinator.runtime.loading import setting_value
from coordinator.service.lane_names import settings_prefix
from coordinator.service.rules import has_rules, named_scopes
from coordinator.service.service import Service
from coordinator.stores.kinds import kind_of
from coordinator.stores.lane_tables import ApiKey

SUBJECT: Final = "developer"
KEY_SETTING: Final = "DEV_KEY"
"""Under which name the file of addresses has it."""
METHODS_SETTING: Final = "ACCESS_METHODS"


class DevelopmentKey:
    """The key of one run."""

    def __init__(self, made: MadeKey, scopes: Sequence[str]) -> None:
        self.text = made.text
        self._row = ApiKey(
            id=made.id,
            digest=made.digest,
            subject=SUBJECT,
            tenant=None,
            scopes=" ".join(scopes),
            created_at=datetime.now(UTC),
            created_by="coordinator dev",
        )

    @property
    def environment(self) -> dict[str, str]:
        """The settings by which gateways ask for it, and callers have it."""
        return {METHODS_SETTING: "keys", KEY_SETTING: self.text}

    def give_to(self, urls: Mapping[str, str]) -> None:
        """Have the gateways of these lanes, whose tables are made, know it. Raises ConfigurationError."""
        for lane, url in urls.items():
            with address_of(f"{settings_prefix(lane)}DATABASE_URL"):
                address = parse_address(url)
                keys = kind_of(address).open_api_keys(address, lane)
            try:
                if all(each.id != self._row.id for each in keys.every()):
                    keys.add(self._row)
            finally:
                keys.close()


def development_key(services: Sequence[Service], workspace: Workspace) -> DevelopmentKey | None:
    """The one that is kept, or a new one where it lacks scopes; None: no rule asks for one, or the environment says how
    callers prove who they are.

    What a shell has read from the file of addresses of an earlier run, maybe another service's, says nothing: it is
    taken out of the environment.
    """
    if os.environ.pop(KEY_SETTING, None) is not None:
        os.environ.pop(METHODS_SETTING, None)
    if setting_value(METHODS_SETTING) or not any(map(has_rules, services)):
        return None
    kept, _, known = workspace.read_key().partition("\n")
    scopes = sorted(named_scopes(services))
    made = MadeKey.of(kept)
    if made is None or known.split() != scopes:
        made = MadeKey()
        workspace.write_key("\n".join((made.text, " ".join(scopes))))
    return DevelopmentKey(made, scopes)


def page_of(url: str, key: DevelopmentKey | None) -> str:
    """Where the operations gateway is; a browser that opens it is signed in. No server sees what is behind the #."""
    return url if key is None else f"{url}/#key={key.text}"


def making_another(lanes: Sequence[str], *, of_tenants: bool) -> str:
    """The command that makes another key for the gateway of these lanes, in one process.

    Such a gateway knows the keys of its first lane. A key in all of them is good for their gateways on servers, too;
    lanes of several tenants have no key in common.
    """
    return f"coordinator keys create {' '.join(lanes[:1] if of_tenants else lanes)} --subject ada"
