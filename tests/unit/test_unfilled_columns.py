"""A column that no row fills, which a table has got while its lane runs: on servers, tests/integration."""

import sqlite3
from contextlib import closing
from pathlib import Path

from coordinator.lane.delivery import Settlement, Suspension
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from tests.support.lane_contract import LaneUnderTest, codes, delivery
from tests.support.ledger import LEDGER, OpenAccount


def remade(path: str, added: str) -> None:
    """The table of accounts, with a column more."""
    with closing(sqlite3.connect(path)) as connection:
        (made,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'accounts'").fetchone()
        connection.execute("ALTER TABLE accounts RENAME TO accounts_before")
        connection.execute(made.replace("PRIMARY KEY (", f"{added}, PRIMARY KEY (", 1))
        connection.execute("DROP TABLE accounts_before")
        connection.commit()


def test_it_suspends_the_lane_until_it_has_a_default(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    create_schema(path, LEDGER)
    with closing(SqliteStore(path, LEDGER)) as store:
        lane = LaneUnderTest(store)
        remade(path, "added INTEGER NOT NULL")
        sent = [delivery(1, OpenAccount(owner="a")), delivery(2, OpenAccount(owner="b"))]
        for _ in range(3):
            suspension = lane.lane.apply(sent)
            assert isinstance(suspension, Suspension)
            assert "accounts has the column added, which no row fills: give it a DEFAULT" in suspension.reason
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE accounts")
        create_schema(path, LEDGER)
        decision = lane.lane.apply(sent)
        assert isinstance(decision, Settlement)
        assert codes(decision.outcomes) == ["applied", "applied"]
