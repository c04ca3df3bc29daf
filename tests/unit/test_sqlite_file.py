"""A database's file is one, whatever it is called: two processes must see that they have the same."""

import os
from pathlib import Path

import pytest

from coordinator.lane.delivery import Suspension
from coordinator.service.errors import ConfigurationError
from coordinator.stores.port import OnDisk, StoreUnavailable
from coordinator.stores.sqlite.file import file_of
from coordinator.stores.sqlite.store import create_schema
from coordinator.transports.inprocess.journal import journal_of
from coordinator.writing import open_store
from tests.support.lane_contract import LaneUnderTest, codes, delivery
from tests.support.ledger import LEDGER, OpenAccount


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    create_schema(str(path), LEDGER)
    return path


def test_by_a_link_it_has_the_journal_that_another_process_has(path: Path) -> None:
    link = path.with_name("other.sqlite")
    link.symlink_to(path)
    first, second = open_store(f"sqlite:///{path}", LEDGER), open_store(f"sqlite:///{link}", LEDGER)
    assert isinstance(second, OnDisk)
    assert second.path == path
    journal = journal_of(first, LEDGER.name, None)
    assert journal is not None
    with pytest.raises(ConfigurationError, match=r"ledger\.sqlite-queue: another process has it"):
        journal_of(second, LEDGER.name, None)
    journal.close()


def test_with_two_names_it_is_refused(path: Path) -> None:
    os.link(path, path.with_name("other.sqlite"))
    with pytest.raises(ConfigurationError, match=r"ledger\.sqlite has 2 names"):
        open_store(f"sqlite:///{path}", LEDGER)


def test_what_is_not_there_yet_is_no_fault(tmp_path: Path) -> None:
    assert file_of(f"{tmp_path}/a/b.sqlite") == f"{tmp_path}/a/b.sqlite"
    assert file_of(":memory:") == ":memory:"


@pytest.mark.parametrize(
    ("what", "advice"), [("replaced", "put it back"), ("deleted", "put it back"), ("its log deleted", "restart")]
)
def test_nothing_is_acknowledged_that_the_next_process_would_not_find(path: Path, what: str, advice: str) -> None:
    store = open_store(f"sqlite:///{path}", LEDGER)
    lane = LaneUnderTest(store)
    assert codes(lane.outcomes(delivery(1, OpenAccount(owner="a")))) == ["applied"]
    if what == "its log deleted":
        Path(f"{path}-wal").unlink()
    else:
        path.unlink()
    if what == "replaced":
        create_schema(str(path), LEDGER)
    decision = lane.lane.apply([delivery(2, OpenAccount(owner="b"))], 0)
    assert isinstance(decision, Suspension)
    assert advice in decision.reason
    with pytest.raises(StoreUnavailable, match=advice):
        store.look()
    assert path.exists() == (what != "deleted"), "no other file is made"
    store.close()
