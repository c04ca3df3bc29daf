"""Which way `coordinator dev` runs: on servers, or in one process."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from coordinator import registry as registry_module
from coordinator.cli import cli
from coordinator.dev import one_process, supervisor
from coordinator.dev.one_process import _Run
from coordinator.dev.plan import PlanOfOne, plan_of_one
from coordinator.dev.servers.ports import free_port
from coordinator.dev.settings import DevSettings
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


def test_certificates_are_refused_by_name_and_nothing_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AMQP_URL", raising=False)
    monkeypatch.setenv(APP_SETTING, SEATS)
    for name in ("GATEWAY_TLS_CERTIFICATE", "GATEWAY_TLS_KEY"):
        monkeypatch.setenv(name, str(tmp_path / "it.pem"))
    with pytest.raises(ConfigurationError, match=r"^GATEWAY_TLS_CERTIFICATE: .* serves HTTP.*unset GATEWAY_TLS_\*"):
        one_process.run(tmp_path / ".dev")
    assert not (tmp_path / ".dev").exists()


@pytest.mark.parametrize("prefix", ["GATEWAY_TLS_", "TELEMETRY_TLS_"])
def test_certificates_are_refused_by_name_on_servers_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix: str
) -> None:
    monkeypatch.setenv(APP_SETTING, SEATS)
    monkeypatch.setattr(supervisor, "Workspace", lambda *_: pytest.fail("it goes on"))
    for name in ("CERTIFICATE", "KEY"):
        monkeypatch.setenv(f"{prefix}{name}", str(tmp_path / "it.pem"))
    with pytest.raises(ConfigurationError, match=rf"^{prefix}CERTIFICATE: .* serves HTTP.*unset {prefix}\*"):
        supervisor.run("native", tmp_path / ".dev")
    assert not (tmp_path / ".dev").exists()


def test_a_folder_whose_sockets_would_have_too_long_a_path_is_refused_and_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AMQP_URL", raising=False)
    monkeypatch.setenv(APP_SETTING, SEATS)
    with pytest.raises(ConfigurationError, match=r"seats\.sqlite-operators cannot be the socket .*too long.*--dir"):
        one_process.run(tmp_path / ("d" * 120))
    assert not list(tmp_path.iterdir())


SEAT = """
from coordinator import Row, Service

seats = Service("seats")


@seats.row
class Seat(Row, table="seats", key="id"{options}):
    id: int
    holder: str{fields}
"""


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Runs the service as it is edited then, up to where its database is migrated, and gives the output."""
    monkeypatch.delenv("AMQP_URL", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_Run, "serve", _served)
    monkeypatch.setattr(registry_module, "_known", {})

    def run(options: str = "", fields: str = "") -> str:
        # Of a name that no other test has loaded.
        module = f"{tmp_path.name}_{len(list(tmp_path.glob('*.py')))}"
        (tmp_path / f"{module}.py").write_text(SEAT.format(options=options, fields=fields))
        ran = CliRunner().invoke(
            cli,
            ["dev", f"{module}:seats"],
            env={"DEV_SEATS_PORT": str(free_port()), "DEV_OPERATIONS_PORT": str(free_port())},
        )
        return f"{ran.exit_code} {ran.output}"

    # A run sets what its gateways and migrations read.
    with patch.dict(os.environ):
        yield run


async def _served(_run: object, _began_s: float) -> None:
    """Nothing is served."""


def test_an_index_that_is_added_between_two_runs_is_made(edited: Callable[..., str]) -> None:
    assert edited().startswith("0 ")
    assert edited(', index=("holder",)').startswith("0 ")
    with closing(sqlite3.connect(".dev/data/seats.sqlite")) as database:
        plan = database.execute("EXPLAIN QUERY PLAN SELECT * FROM seats WHERE holder = 'a' ORDER BY id").fetchall()
    assert "INDEX seats_holder_index" in str(plan)


def test_data_of_earlier_runs_that_are_in_the_way_are_removed_by_clean(edited: Callable[..., str]) -> None:
    assert edited().startswith("0 ")
    said = edited(fields="\n    price: int")
    assert said.startswith("2 ")
    assert 'ALTER TABLE "seats" ADD COLUMN "price"' in said
    assert "coordinator dev --clean --dir" in said
    assert CliRunner().invoke(cli, ["dev", "--clean"]).exit_code == 0
    assert edited(fields="\n    price: int").startswith("0 ")


def test_a_service_that_wants_more_than_a_process_is_refused_with_what_it_wants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AMQP_URL", raising=False)
    monkeypatch.setenv(APP_SETTING, "tests.support.shop:APP")
    with pytest.raises(ConfigurationError, match=r"orders wants more than one process: .*carrier.*--servers auto"):
        one_process.run(tmp_path / ".dev")


def test_a_broker_to_start_is_no_setting_of_a_run_without_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AMQP_URL", "BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DEV_BROKER", "redis")
    with pytest.raises(ConfigurationError, match=r"^DEV_BROKER names a server.*--servers auto"):
        one_process.run(tmp_path / ".dev")


@pytest.mark.parametrize(
    ("elsewhere", "broker", "why"),
    [
        ("stock", "amqp://127.0.0.1/", r"^DEV_ELSEWHERE names 'stock', which this application has not: it has users, "),
        ("users items payments", "amqp://127.0.0.1/", r"^DEV_ELSEWHERE names every service"),
        ("users", "", r"^DEV_ELSEWHERE: users can be reached by a broker only: set AMQP_URL"),
        ("", "amqp://127.0.0.1/", r"^AMQP_URL names a server.*DEV_ELSEWHERE"),
        ("users", "kafka://127.0.0.1/", r"AMQP_URL"),
    ],
)
def test_services_that_cannot_run_elsewhere_are_refused_by_name_and_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, elsewhere: str, broker: str, why: str
) -> None:
    monkeypatch.setenv(APP_SETTING, "gateways.app:APP")
    monkeypatch.setenv("DEV_ELSEWHERE", elsewhere)
    monkeypatch.setenv("AMQP_URL", broker)
    with pytest.raises(ConfigurationError, match=why):
        one_process.run(tmp_path / ".dev")
    assert not (tmp_path / ".dev").exists()


def test_a_run_on_servers_has_all_services_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(APP_SETTING, "gateways.app:APP")
    monkeypatch.setenv("DEV_ELSEWHERE", "users")
    with pytest.raises(ConfigurationError, match=r"^DEV_ELSEWHERE is for a run in one process"):
        supervisor.run("native", tmp_path / ".dev")
    assert not (tmp_path / ".dev").exists()


def test_a_service_of_the_process_whose_database_is_a_server_s_is_refused_beside_others_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(APP_SETTING, "gateways.app:APP")
    monkeypatch.setenv("DEV_ELSEWHERE", "users")
    monkeypatch.setenv("AMQP_URL", "amqp://127.0.0.1/")
    monkeypatch.setenv("USERS_DATABASE_URL", "postgresql://127.0.0.1/users")
    monkeypatch.setenv("ITEMS_DATABASE_URL", "mongodb://127.0.0.1/items")
    with pytest.raises(ConfigurationError, match=r"^ITEMS_DATABASE_URL names a server"):
        one_process.run(tmp_path / ".dev")
    assert not (tmp_path / ".dev").exists()


def plan(**given: str) -> PlanOfOne:
    return plan_of_one(registry_module.registry(), DevSettings(), Path("/data"), given)


def test_several_services_share_a_port_and_what_stands_in_for_a_provider_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(APP_SETTING, "gateways.app:APP")
    assert [(port.setting, port.number) for port in plan().ports] == [
        ("DEV_GATEWAY_PORT", 8080),
        ("DEV_OPERATIONS_PORT", 8081),
        ("DEV_SANDBOX_PORT", 8090),
    ]
    assert (plan().secrets, plan().is_cached) == (("STRIPE_METADATA_KEY",), True)
    (sandbox,) = plan().helpers
    assert (sandbox.place.gateway_url, sandbox.place.directory) == ("http://127.0.0.1:8080", Path("/data/sandbox"))
    assert plan(STRIPE_API_KEY="sk_test_of_the_user").helpers == ()


def test_one_service_has_the_port_that_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(APP_SETTING, SEATS)
    assert [(port.setting, port.number) for port in plan(DEV_SEATS_PORT="8500").ports] == [
        ("DEV_SEATS_PORT", 8500),
        ("DEV_OPERATIONS_PORT", 8080),
    ]
