"""A test's own look at the dead letters of a lane."""

from coordinator.registry import registry
from coordinator.stores.lane_tables import DeadLetter
from coordinator.stores.open import open_store
from tests.support.system import System


def dead_letters(system: System, lane: str) -> list[DeadLetter]:
    """In the order in which they were written."""
    store = open_store(system.environment[f"{lane.upper()}_DATABASE_URL"], registry().service(lane))
    transaction = store.begin()
    try:
        return transaction.scan(DeadLetter, 100_000)
    finally:
        transaction.rollback()
        store.close()
