"""What is wrong with the files of a service's revisions is one line, which names the file."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from coordinator import Service, VersionedRow
from coordinator.cli import cli
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError

FIRST = """
import sqlalchemy as sa
from alembic import op

revision = "a1"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "cars", sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("version", sa.BigInteger, nullable=False)
    )
"""
SECOND = 'from alembic import op\nrevision = "a2"\ndown_revision = "a1"\n'
SEVERAL = "the revisions in {folder} have several ends: "
UNFINISHED = "the history of shop_schema_version cannot be brought to its end: "
UNREADABLE = "the revisions in {folder} cannot be read: "


class Car(VersionedRow, table="cars", key="id"):
    id: int


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("", UNREADABLE + "AttributeError: module 'a2_py' has no attribute 'down_revision'"),
        (SECOND.replace("a1", "a7"), UNREADABLE + "Revision a7 referenced from a7 -> a2 (head),  is not present"),
        (FIRST.replace("down", 'x = ""\ndown'), UNREADABLE + "Revision a1 is present more than once"),
        (
            SECOND.replace('"a1"', "None"),
            SEVERAL + "a1 (a1.py), a2 (a2.py); each but one must be the `down_revision` of another",
        ),
        (
            f"{SECOND}import nonsense\n",
            UNREADABLE + "ModuleNotFoundError: No module named 'nonsense' ({folder}/a2.py:4)",
        ),
        (f"{SECOND}def upgrade(:\n", UNREADABLE + "SyntaxError: invalid syntax (a2.py, line 4)"),
        (
            f"{SECOND}def upgrade() -> None:\n    op.nothing()\n",
            UNFINISHED + "AttributeError: module 'alembic.op' has no attribute 'nothing' ({folder}/a2.py:5)",
        ),
    ],
    ids=["empty", "its former is missing", "twice", "two ends", "an import", "no Python", "an operation"],
)
def test_a_wrong_revision_is_named(second: str, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "versions"
    folder.mkdir()
    (folder / "a1.py").write_text(FIRST)
    service = Service("shop", models=(Car,), migrations=folder)
    settings = DatabaseSettings(database_url=f"sqlite:///{tmp_path}/shop.sqlite")
    migrate(service, settings)
    (folder / "a2.py").write_text(second)
    with pytest.raises(ConfigurationError) as refused:
        migrate(service, settings)
    assert str(refused.value) == said.format(folder=folder)


@pytest.mark.filterwarnings("ignore:such as of a library")
def test_a_revision_may_import_what_warns(tmp_path: Path) -> None:
    (tmp_path / "a1.py").write_text(f'import warnings\nwarnings.warn("such as of a library that is old")\n{FIRST}')
    migrate(
        Service("shop", models=(Car,), migrations=tmp_path),
        DatabaseSettings(database_url=f"sqlite:///{tmp_path}/shop.sqlite"),
    )


@pytest.mark.parametrize("options", [("--withdraw", "users.create"), ("--reason", "why")])
def test_whoever_only_asks_for_revisions_changes_nothing_by_another_option(options: tuple[str, str]) -> None:
    ran = CliRunner().invoke(cli, ["migrate", "users", "--print-revision", *options])
    assert (ran.exit_code, "changes nothing" in ran.stderr) == (2, True)


def test_the_revisions_of_a_database_and_of_this_release_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "users.sqlite"
    url = f"sqlite:///{file}"

    def printed(expect: int) -> list[list[str]]:
        ran = CliRunner().invoke(cli, ["migrate", "users", "--print-revision"], env={"USERS_DATABASE_URL": url})
        assert ran.exit_code == expect, ran.output
        return [line.split() for line in ran.stdout.splitlines()]

    def said() -> str:
        ran = CliRunner().invoke(cli, ["migrate", "users", "--print-revision"], env={"USERS_DATABASE_URL": url})
        assert isinstance(ran.exception, ConfigurationError)
        return str(ran.exception)

    assert said().startswith(f"USERS_DATABASE_URL: there is no file {file}")
    assert not file.exists()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE others (id INTEGER)")
        (lane, users) = printed(1)[1:]
        assert (lane[:3], users[:3]) == (["users", "lane_schema_version", "-"], ["users", "users_schema_version", "-"])
        migrate(registry().service("users"), DatabaseSettings(database_url=url))
        assert printed(0) == [
            ["LANE", "HISTORY", "HERE", "WANTED"],
            ["users", "lane_schema_version", lane[3], lane[3]],
            ["users", "users_schema_version", users[3], users[3]],
        ]
        connection.execute("UPDATE users_schema_version SET version_num = 'users_9999'")
        connection.commit()
        assert printed(1)[2] == ["users", "users_schema_version", "users_9999", users[3]]
        connection.execute("UPDATE lane_lease SET lane = 'items'")
        connection.commit()
    assert "the database of" in said()
