"""Which way `coordinator dev` runs: on servers, or in one process."""

from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from coordinator.cli import cli
from coordinator.dev import one_process, supervisor
from coordinator.registry import APP_SETTING
from coordinator.service.errors import ConfigurationError

SEATS = "tests.support.seats:seats"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[object, ...]]:
    """What would have run."""
    ran: list[tuple[object, ...]] = []
    monkeypatch.setenv(APP_SETTING, "gateways.app:APP")
    monkeypatch.setenv("DEV_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(supervisor, "run", partial(_run, ran, "servers"))
    monkeypatch.setattr(one_process, "run", partial(_run, ran, "one process"))
    return ran


def _run(ran: list[tuple[object, ...]], *arguments: object) -> int:
    ran.append(arguments)
    return 0


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), ("servers", "auto")),
        (("--servers", "native"), ("servers", "native")),
        ((SEATS,), ("one process",)),
        ((SEATS, "--servers", "native"), ("servers", "native")),
        (("--servers", "docker", SEATS), ("servers", "docker")),
        (("--app", SEATS), ("servers", "auto")),
    ],
)
def test_a_target_alone_needs_no_server(
    ran: list[tuple[object, ...]], tmp_path: Path, arguments: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    ended = CliRunner().invoke(cli, ["dev", *arguments])
    assert ended.exit_code == 0, ended.output
    assert ran == [(*wanted, tmp_path)]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("AMQP_URL", "amqp://guest:guest@127.0.0.1/"),
        ("SEATS_DATABASE_URL", "postgresql://seats@127.0.0.1/seats"),
        ("SEATS_READER_URL", "mysql://seats@127.0.0.1/seats"),
        ("SEATS_MIGRATION_URL", "mongodb://127.0.0.1/seats"),
    ],
)
def test_a_setting_that_names_a_server_is_refused_by_name_and_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str, value: str
) -> None:
    monkeypatch.delenv("AMQP_URL", raising=False)
    monkeypatch.setenv(APP_SETTING, SEATS)
    monkeypatch.setenv(setting, value)
    with pytest.raises(ConfigurationError, match=rf"^{setting} names a server.*--servers auto"):
        one_process.run(tmp_path / ".dev")
    assert not (tmp_path / ".dev").exists()


def test_a_folder_whose_sockets_would_have_too_long_a_path_is_refused_and_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AMQP_URL", raising=False)
    monkeypatch.setenv(APP_SETTING, SEATS)
    with pytest.raises(ConfigurationError, match=r"seats\.sqlite-operators cannot be the socket .*too long.*--dir"):
        one_process.run(tmp_path / ("d" * 120))
    assert not list(tmp_path.iterdir())


def test_a_service_that_wants_more_than_a_process_is_refused_with_what_it_wants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AMQP_URL", raising=False)
    monkeypatch.setenv(APP_SETTING, "tests.support.shop:APP")
    with pytest.raises(ConfigurationError, match=r"orders wants more than one process: .*carrier.*--servers auto"):
        one_process.run(tmp_path / ".dev")
