"""What the role of a lane's gateways may read: the service's rows and what a gateway needs to answer, and no more."""

from typing import Final

from msgspec import Struct

from coordinator.service.service import Service
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.foreign_rights import tables_of
from coordinator.stores.lane_tables import ApiKey, IdempotencySecret, LogEntry
from coordinator.stores.lease_table import LEASE_TABLE

OF_GATEWAYS: Final = (
    LogEntry.table,
    LEASE_TABLE,
    ApiKey.table,
    IdempotencySecret.table,
    FingerprintKey.table,
)
"""Outcomes; whose the database is; who asks; the ids of idempotency keys; and which command the log has under an id."""


class ReadingRights(Struct, frozen=True):
    """`tables` are read by gateways. `withheld` are the lane's other tables: what is in them, such as the commands in
    dead letters, was said to the lane and is nobody else's to read.
    """

    tables: tuple[str, ...]
    withheld: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Those of the lane."""
        return (*self.tables, *self.withheld)


def reading_rights(service: Service) -> ReadingRights:
    """Those of a service's gateways."""
    tables = (*(model.table for model in service.models), *OF_GATEWAYS)
    return ReadingRights(tables, tuple(name for name in tables_of(service) if name not in tables))
