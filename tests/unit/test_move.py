"""A lane moves from one SQLite file to another: the contract of moves, without servers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from tests.support.lane_contract import LaneUnderTest
from tests.support.ledger import LEDGER
from tests.support.move_contract import MoveContract, MovingLane, move_however_often_it_dies


@pytest.fixture(scope="module")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Makes an empty, migrated file, by copying one."""
    template = tmp_path_factory.mktemp("template") / "ledger.db"
    migrate(LEDGER, DatabaseSettings(database_url=f"sqlite:///{template}"))

    def make(path: Path) -> str:
        shutil.copy(template, path)
        return f"sqlite:///{path}"

    return make


class TestMoveOfFiles(MoveContract):
    @pytest.fixture
    def source_url(self, tmp_path: Path, new_database: Callable[[Path], str]) -> str:
        return new_database(tmp_path / "here.db")

    @pytest.fixture
    def target_url(self, tmp_path: Path, new_database: Callable[[Path], str]) -> str:
        return new_database(tmp_path / "there.db")

    @pytest.mark.parametrize("moving", range(1, 9), indirect=True)
    def test_it_may_die_anywhere_in_many_histories(self, moving: MovingLane, reference: LaneUnderTest) -> None:
        move_however_often_it_dies(moving, reference)
