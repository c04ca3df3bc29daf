"""An operator's command that stands still amid a transaction (Ctrl-Z, a laptop that is shut) does not stop the lane."""

import threading
from contextlib import closing

import msgspec
import pytest

from coordinator.runtime.clock import utc_now
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.open import open_admin, open_store
from coordinator.stores.port import Conflict, Lease, Store, StoreUnavailable
from tests.integration.test_lock_holders import Locked, locked
from tests.support.ledger import LEDGER
from tests.support.store_contract import NOW, changes, commit, entry
from tests.support.system import wait_until

__all__ = ("locked",)

WITHIN_S = 30.0
"""The server ends it after ten seconds."""


def test_the_server_ends_the_transaction_of_a_command_that_stands_still(locked: Locked) -> None:
    stands, may_go, ended = threading.Event(), threading.Event(), list[BaseException]()
    store = open_store(locked.url, LEDGER)
    with closing(store), closing(open_admin(locked.url, LEDGER.name)) as admin:
        lease = store.take_over("holder", NOW)
        rows = [msgspec.structs.replace(entry(number), settled_at=NOW) for number in (1, 2)]
        commit(store, lease, changes(inserts=rows), 2)
        lease = msgspec.structs.replace(lease, sequence=2)

        def stand_still() -> Lease:
            # Within the transaction, which has the lease row locked.
            stands.set()
            assert may_go.wait(2 * WITHIN_S)
            return lease

        def prune() -> None:
            try:
                list(admin.prune(utc_now(), 10, stand_still))
            except DatabaseUnavailable as error:
                ended.append(error)

        pruning = threading.Thread(target=prune)
        pruning.start()
        try:
            assert stands.wait(WITHIN_S)
            with pytest.raises(Conflict):
                commit(store, lease, changes(inserts=[entry(3)]))
            wait_until(lambda: is_committed(store, lease), "the lane commits", timeout_s=WITHIN_S)
        finally:
            may_go.set()
            pruning.join()
        assert len(ended) == 1, "it is told that its transaction has ended"
        assert admin.find(entry(1).command_id) is not None


def is_committed(store: Store, lease: Lease) -> bool:
    try:
        commit(store, lease, changes(inserts=[entry(3)]))
    except (Conflict, StoreUnavailable):
        return False
    return True
