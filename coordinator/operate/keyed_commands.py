"""The commands that idempotency keys stand for: gateways make their ids of the key, of who asks, and of a secret."""

from collections.abc import Iterator
from typing import Final

from coordinator.service.errors import InvalidCommand
from coordinator.service.ids import command_id_for, scoped_command_id_for
from coordinator.stores.api_keys import ApiKeys

PRINCIPALS_MAX: Final = 500
"""Of so many owners of API keys it is tried whose key it is."""


def ids_of_key(keys: ApiKeys, lane: str, key: str, subject: str | None, tenant: str | None) -> list[str]:
    """The ids that this key may stand for in a lane: of this subject, or else of each who has an API key there, and of
    those whom nobody asked who they are. Raises DatabaseUnavailable."""
    known = [(subject, tenant)] if subject is not None else _principals(keys)
    try:
        # A gateway that asks nobody who he is makes ids without a secret, whatever secrets the lane has.
        unasked = [] if subject else [command_id_for(lane, key)]
        return list(dict.fromkeys([*unasked, *_ids(keys, lane, key, known)]))
    except InvalidCommand:
        return []


def _ids(keys: ApiKeys, lane: str, key: str, known: list[tuple[str, str | None]]) -> Iterator[str]:
    for secret in reversed(keys.secrets()):
        if not secret.secret:
            yield command_id_for(lane, key)
            continue
        for subject, tenant in known:
            yield scoped_command_id_for(secret.secret, lane, key, subject=subject, tenant=tenant)


def _principals(keys: ApiKeys) -> list[tuple[str, str | None]]:
    owners = dict.fromkeys((each.subject, each.tenant) for each in keys.every())
    return [("", None), *list(owners)[:PRINCIPALS_MAX]]
