"""Lists of several lanes: one that is not whole is not shown as if it were."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coordinator.cli import cli
from coordinator.dev.servers.ports import free_port
from tests.unit.test_operate_letters import World, world

__all__ = ("world",)

LISTS = (("dead", "list"), ("outbox", "list"), ("timers", "list"), ("parked",))


@pytest.fixture
def others(world: World, tmp_path: Path) -> World:
    """The databases of the other lanes are not there."""
    world.environment |= {f"{lane}_DATABASE_URL": f"sqlite:///{tmp_path}/no/such" for lane in ("ITEMS", "PAYMENTS")}
    return world


def run(world: World, *arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=world.environment)


@pytest.mark.parametrize("words", LISTS)
def test_no_json_is_printed_of_a_list_that_is_not_whole(others: World, words: Sequence[str]) -> None:
    """A script would take it for all that there is."""
    others.bury()
    ran = run(others, *words, "--json")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 2
    whole = run(others, *words, "users", "--json")
    assert whole.exit_code == 0
    assert json.loads(whole.stdout) is not None


@pytest.mark.parametrize("words", LISTS)
def test_a_lane_that_is_away_hides_no_other_and_no_table_of_nothing_is_printed(
    others: World, words: Sequence[str]
) -> None:
    ran = run(others, *words)
    assert (ran.exit_code, ran.stdout) == (2, "")
    others.bury()
    ran = run(others, *words)
    assert ran.exit_code == 2
    assert ("users.ghost" in ran.stdout) is (words[0] == "dead")
    assert len(ran.stderr.splitlines()) == 2


@pytest.mark.parametrize("words", LISTS)
def test_the_status_tells_a_wrong_setting_from_a_server_that_is_away(world: World, words: Sequence[str]) -> None:
    away = f"postgresql://ada:secret@127.0.0.1:{free_port()}/items"
    world.environment |= {"ITEMS_DATABASE_URL": away, "PAYMENTS_DATABASE_URL": away}
    assert run(world, *words).exit_code == 1
    world.environment["PAYMENTS_DATABASE_URL"] = "sqlite"
    ran = run(world, *words)
    assert ran.exit_code == 2
    assert "PAYMENTS_DATABASE_URL: it must begin with" in ran.stderr
