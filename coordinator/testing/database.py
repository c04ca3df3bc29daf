"""A real database for the lane of a test: migrated, and emptied before and after it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.lane_tables import LANE_MODELS, AnnouncedVersion
from coordinator.stores.open import open_store
from coordinator.stores.operator_acts import MIGRATE_ACT
from coordinator.stores.port import BatchFault, Changes, Lease, Store, StoreError
from coordinator.testing.lane import LaneUnderTest

_ROWS_AT_ONCE = 1000


def prepare(service: Service, url: str, *, may_have_rows: bool) -> None:
    """Make the tables of a service and of its lane.

    Raises ConfigurationError for the database of another lane; likewise, before it writes anything, for one that has
    rows of this service, unless it may have some. Tests remove all rows, and these may be somebody's.
    """
    settings = DatabaseSettings(database_url=url)
    if not may_have_rows:
        _refuse_rows(service, url, is_migrated=False)
    migrate(service, settings)
    if not may_have_rows:
        # Only now is an error no missing table.
        _refuse_rows(service, url, is_migrated=True)


@contextmanager
def lane_on_database(service: Service, url: str) -> Iterator[LaneUnderTest]:
    """The lane of a service, on an empty database that is prepared."""
    store = open_store(url, service)
    try:
        # As every lane does at its start. It may lose what it commits, though.
        store.check(service.models, must_sync=False)
        _empty(store, service)
        try:
            yield LaneUnderTest(service, store)
        finally:
            _empty(store, service)
    finally:
        store.close()


def _models(service: Service) -> Sequence[type[Row]]:
    # What a migration writes is no work of anybody's.
    migrations = (AnnouncedVersion, FingerprintKey)
    return (*service.models, *(model for model in LANE_MODELS if model not in migrations))


def _refuse_rows(service: Service, url: str, *, is_migrated: bool) -> None:
    store = open_store(url, service)
    try:
        filled = [model.table for model in _models(service) if _has_rows(store, model, is_migrated=is_migrated)]
    finally:
        store.close()
    if filled:
        raise ConfigurationError(
            f"the database has rows in {', '.join(filled)}, and tests would remove them: name another one, "
            "or say --lane-database-may-have-rows"
        )


def _has_rows(store: Store, model: type[Row], *, is_migrated: bool) -> bool:
    try:
        transaction = store.begin()
        try:
            found = transaction.scan(model, _ROWS_AT_ONCE if model is OperatorAct else 1)
            return any(not _is_of_migration(row) for row in found)
        finally:
            transaction.rollback()
    except StoreError as error:
        if is_migrated:
            raise ConfigurationError(f"table {model.table} cannot be read: {error}") from None
        # There is no such table yet, or no such server, which the migration tells.
        return False


def _is_of_migration(row: Row) -> bool:
    return isinstance(row, OperatorAct) and row.act == MIGRATE_ACT


def _empty(store: Store, service: Service) -> None:
    """Remove all rows. The sequence begins again; the epoch goes on, since a lane of before may still be there."""
    left = [*reversed(_models(service))]
    while left:
        kept, refusals = list[type[Row]](), list[BatchFault]()
        for model in left:
            try:
                _empty_table(store, model)
            except BatchFault as refusal:
                # Rows of another one may refer to these.
                kept.append(model)
                refusals.append(refusal)
        if kept == left:
            raise refusals[0]
        left = kept


def _empty_table(store: Store, model: type[Row]) -> None:
    while True:
        lease = store.current() or Lease(0, 0)
        transaction = store.begin()
        try:
            rows = transaction.scan(model, _ROWS_AT_ONCE)
            if not rows and lease.sequence == 0:
                transaction.rollback()
                return
            transaction.commit(lease, 0, Changes([rows] if rows else [], [], []))
        except BaseException:
            transaction.rollback()
            raise
