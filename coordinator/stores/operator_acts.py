"""Making the record of an operator's act."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from coordinator.service.ids import new_command_id
from coordinator.service.text import storable
from coordinator.stores.audit_tables import OperatorAct

MIGRATE_ACT: Final = "migrate"
"""What `coordinator migrate` writes down itself."""
_ACCOUNT_CHARACTERS_MAX: Final = 200


def made_act(  # the fields of the record
    now: datetime,
    author: str,
    act: str,
    details: Mapping[str, object],
    *,
    account: str | None = None,
    reason: str | None = None,
    number: str | None = None,
) -> OperatorAct:
    """An act that is done now. `number` tells it from others of that time; None: a new one is made."""
    at = now.astimezone(UTC)
    return OperatorAct(
        id=f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z-{number or new_command_id()}",
        done_at=now,
        author=author,
        account=None if account is None else storable(account, _ACCOUNT_CHARACTERS_MAX),
        act=act,
        details=msgspec.json.encode(details, order="deterministic").decode(),
        reason=reason or None,
    )
