"""A test's own look at the dead letters of a lane, and at its key."""

from coordinator.protocol.fingerprints import Fingerprints
from coordinator.registry import registry
from coordinator.service.rows import R
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.lane_tables import DeadLetter
from coordinator.stores.open import open_store
from tests.support.system import System


def dead_letters(system: System, lane: str) -> list[DeadLetter]:
    """In the order in which they were written."""
    return _rows(system, lane, DeadLetter)


def first_secret(system: System, lane: str) -> bytes:
    """By which the ids are made of what its commands emit."""
    return Fingerprints({key.id: key.secret for key in _rows(system, lane, FingerprintKey)}).first_secret


def _rows(system: System, lane: str, model: type[R]) -> list[R]:
    store = open_store(system.environment[f"{lane.upper()}_DATABASE_URL"], registry().service(lane))
    transaction = store.begin()
    try:
        return transaction.scan(model, 100_000)
    finally:
        transaction.rollback()
        store.close()
