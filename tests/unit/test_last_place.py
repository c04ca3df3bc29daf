"""A lane's database knows where the transport had what was settled last."""

from pathlib import Path

import msgspec

from coordinator.lane.delivery import Arrival
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.open import open_admin, open_store
from coordinator.worker.last_place import last_place
from tests.support.lane_contract import LaneUnderTest, delivery
from tests.support.ledger import LEDGER, OpenAccount


def test_the_place_of_the_last_command_of_a_transaction_is_found_behind_those_without_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    migrate(LEDGER, DatabaseSettings(database_url=url))
    store = open_store(url, LEDGER)
    lane = LaneUnderTest(store)

    def found() -> str | None:
        return last_place(lambda: open_admin(url, "ledger"))

    try:
        assert found() is None
        placed = [
            msgspec.structs.replace(
                delivery(number, OpenAccount(owner=f"o{number}")), arrival=Arrival(1, 1, f"r:{number}")
            )
            for number in (1, 2, 3)
        ]
        lane.settle(*placed)
        assert found() == "r:3"
        lane.settle(delivery(4, OpenAccount(owner="o4")))
        assert found() == "r:3"
    finally:
        store.close()
