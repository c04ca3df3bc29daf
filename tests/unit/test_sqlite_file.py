"""A database's file is one, whatever it is called: two processes must see that they have the same."""

import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.lane.delivery import Suspension
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.kinds import kind_of
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


def test_only_a_migration_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    address = parse_address(f"sqlite:///{path}")
    with pytest.raises(ConfigurationError, match=r"there is no file .*ledger\.sqlite: .*`coordinator migrate`"):
        kind_of(address).open_admin(address, LEDGER.name)
    with (
        closing(open_store(f"sqlite:///{path}", LEDGER)) as store,
        pytest.raises(StoreUnavailable, match=r"there is no file .*ledger\.sqlite"),
    ):
        store.take_over("a", datetime.now(UTC))
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_and_its_journals_are_for_its_user_only(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    migrate(LEDGER, DatabaseSettings(database_url=f"sqlite:///{path}"))
    with closing(open_store(f"sqlite:///{path}", LEDGER)) as store:
        assert codes(LaneUnderTest(store).outcomes(delivery(1, OpenAccount(owner="a")))) == ["applied"]
        modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert modes == {f"ledger.sqlite{end}": 0o600 for end in ("", "-wal", "-shm")}


def test_a_file_that_is_there_keeps_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.touch()
    path.chmod(0o640)
    migrate(LEDGER, DatabaseSettings(database_url=f"sqlite:///{path}"))
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_database_in_memory_is_refused_where_another_process_would_have_to_see_it() -> None:
    address = parse_address("sqlite:///:memory:")
    with pytest.raises(ConfigurationError, match="in memory ends with its process"):
        kind_of(address).open_admin(address, LEDGER.name)
    with pytest.raises(ConfigurationError, match="in memory ends with its process"):
        migrate(LEDGER, DatabaseSettings(database_url="sqlite:///:memory:"))
