"""A lane moves from a file, or from a server, to a server of each kind."""

from pathlib import Path
from typing import ClassVar

import pytest

from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from tests.support.databases import FreshDatabases
from tests.support.ledger import LEDGER
from tests.support.move_contract import MoveContract

pytestmark = pytest.mark.upgrades


def migrated(url: str) -> str:
    migrate(LEDGER, DatabaseSettings(database_url=url))
    return url


class _MoveToServer(MoveContract):
    setting: ClassVar[str]

    @pytest.fixture
    def source_url(self, tmp_path: Path) -> str:
        return migrated(f"sqlite:///{tmp_path / 'here.db'}")

    @pytest.fixture
    def target_url(self, databases: FreshDatabases) -> str:
        return migrated(databases.new(self.setting))


class TestMoveToPostgresql(_MoveToServer):
    setting = "USERS_DATABASE_URL"


class TestMoveToMysql(_MoveToServer):
    setting = "PAYMENTS_DATABASE_URL"


class TestMoveToMongodb(_MoveToServer):
    setting = "ITEMS_DATABASE_URL"


@pytest.mark.faults
class TestMoveFromPostgresqlToMysql(_MoveToServer):
    setting = "PAYMENTS_DATABASE_URL"

    @pytest.fixture
    def source_url(self, databases: FreshDatabases) -> str:
        return migrated(databases.new("USERS_DATABASE_URL"))


@pytest.mark.faults
class TestMoveFromMysqlToPostgresql(_MoveToServer):
    setting = "USERS_DATABASE_URL"

    @pytest.fixture
    def source_url(self, databases: FreshDatabases) -> str:
        return migrated(databases.new("PAYMENTS_DATABASE_URL"))
