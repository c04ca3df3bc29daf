"""The project that `coordinator new` makes."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from coordinator.dev.new import check_name, make_project
from coordinator.service.errors import ConfigurationError
from coordinator.transports.rabbitmq.rights import BrokerNames, broker_accounts
from tests.support.compose_file import interpolated

pytestmark = pytest.mark.authors

COMPOSE_SCHEMA = Path(__file__).parent / "schemas" / "compose-spec.json"
FILES = {
    ".dockerignore",
    ".gitignore",
    "Dockerfile",
    "Makefile",
    "README.md",
    "compose.yaml",
    "pyproject.toml",
    "shop/__init__.py",
    "shop/seats.py",
    "tests/test_seats.py",
    "wheels/README.md",
}


def _tested(made: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=made,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_a_project_is_made_whole_and_named(tmp_path: Path, broker: str) -> None:
    made = make_project("shop", tmp_path / "here", broker=broker)
    files = {str(path.relative_to(made)): path.read_text() for path in made.rglob("*") if path.is_file()}
    assert files.keys() == FILES
    assert [name for name, text in files.items() if "{{" in text] == []
    # Nothing of the other broker is left in it.
    other = ("redis",) if broker == "rabbitmq" else ("rabbitmq", "amqp", "lane_gateway_accounts")
    assert [name for name, text in files.items() if any(word in text.lower() for word in other)] == []
    jsonschema.Draft7Validator(json.loads(COMPOSE_SCHEMA.read_text())).validate(yaml.safe_load(files["compose.yaml"]))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_project_that_cannot_be_written_whole_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, is_there: bool
) -> None:
    """So it can be made there once there is room."""
    write_text, directory = Path.write_text, tmp_path / "all" / "here"
    if is_there:
        directory.mkdir(parents=True)

    def write_until_full(path: Path, text: str) -> int:
        write_text(path, text[:3])
        if path.name == "seats.py":
            raise error
        return len(text)

    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", write_until_full)
        with pytest.raises((ConfigurationError, KeyboardInterrupt)):
            make_project("shop", directory)
    assert list(tmp_path.rglob("*")) == ([tmp_path / "all", directory] if is_there else [])
    make_project("shop", directory)


def test_each_of_its_processes_has_its_own_accounts_in_compose(tmp_path: Path) -> None:
    """Those that `coordinator broker-accounts` makes, and `coordinator migrate`, and `database-accounts` confines."""
    text = (make_project("shop", tmp_path / "here") / "compose.yaml").read_text()
    services = interpolated(yaml.safe_load(text))["services"]
    environments = {name: each.get("environment", {}) for name, each in services.items()}
    addresses = {
        name: {setting: urlsplit(value) for setting, value in each.items() if setting.endswith("_URL")}
        for name, each in environments.items()
    }
    users = {name: {setting: url.username for setting, url in each.items()} for name, each in addresses.items() if each}
    assert users.pop("roles") == users["migrate"]
    assert users == {
        "accounts": {"AMQP_URL": None, "RABBITMQ_ADMIN_URL": "administrator"},
        "migrate": {
            "SEATS_MIGRATION_URL": "owner",
            "SEATS_DATABASE_URL": "seats_lane",
            "SEATS_READER_URL": "seats_reader",
        },
        "operator": {"AMQP_URL": "operator", "SEATS_DATABASE_URL": "seats_lane", "SEATS_READER_URL": "seats_reader"},
        "coordinator": {"AMQP_URL": "seats_lane", "SEATS_DATABASE_URL": "seats_lane"},
        "gateway": {"AMQP_URL": "seats_gateway", "SEATS_READER_URL": "seats_reader"},
    }
    assert services["roles"]["command"] == ["database-accounts", "seats", "--apply"]
    assert environments["coordinator"]["LANE_GATEWAY_ACCOUNTS"] == "seats_gateway"
    made = {
        name.removeprefix("BROKER_PASSWORD_").lower(): value
        for name, value in environments["accounts"].items()
        if name.startswith("BROKER_PASSWORD_")
    }
    assert made.keys() == {each.name for each in broker_accounts(BrokerNames(lanes=["seats"], gateways=["seats"]))}
    for name in ("operator", "coordinator", "gateway"):
        url = addresses[name]["AMQP_URL"]
        assert url.password == made[url.username or ""]


def test_its_service_is_renamed_as_its_readme_says(tmp_path: Path) -> None:
    made = make_project("shop", tmp_path / "here")
    before = (made / "README.md").read_text()
    renaming = re.findall(r"```sh\n(.*?)```", before, re.DOTALL)[-1]
    subprocess.run(["sh", "-euc", renaming], cwd=made, check=True, timeout=60)
    files = {str(path.relative_to(made)): path.read_text() for path in made.rglob("*") if path.is_file()}
    assert files.keys() == {name.replace("seats", "orders") for name in FILES}
    assert [name for name, text in files.items() if "seats" in text.lower().replace("seats that are", "")] == []
    composed = yaml.safe_load(files["compose.yaml"])["services"]
    assert composed["coordinator"]["environment"]["ORDERS_DATABASE_URL"].startswith("postgresql://orders_lane:")
    assert "BROKER_PASSWORD_ORDERS_GATEWAY" in composed["accounts"]["environment"]
    tested = _tested(made)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "4 passed" in tested.stdout


def test_its_tests_find_a_handler_that_asks_the_clock(tmp_path: Path) -> None:
    made = make_project("shop", tmp_path / "here")
    service = made / "shop" / "seats.py"
    text = service.read_text().replace("from typing import", "import time\nfrom typing import", 1)
    found = "    seat = _seat(work, command.id)\n"
    service.write_text(text.replace(found, f"{found}    time.time()\n", 1))
    tested = _tested(made)
    assert tested.returncode == 1
    line = service.read_text().splitlines().index("    time.time()") + 1
    assert f"it looks at the clock: time.time, {service}:{line}" in tested.stdout
    assert "1 failed, 3 passed" in tested.stdout


def test_its_code_is_in_the_form_that_ours_has(tmp_path: Path) -> None:
    made = make_project("shop", tmp_path / "here")
    for tool in (("ruff", "check", "--select", "E,F,I,B,UP,SIM"), ("ruff", "format", "--check"), ("mypy", "--strict")):
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                *tool,
                "--config-file" if tool[0] == "mypy" else "--line-length=120",
                *([""] if tool[0] == "mypy" else []),
                "shop",
            ],
            cwd=made,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    "name",
    ["", "Shop", "my-shop", "1shop", "../shop", "coordinator", "tests", "shöp", "s" * 42, "json", "class", "msgspec"],
)
def test_a_wrong_name_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a project"):
        check_name(name)


def test_a_folder_that_has_something_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    with pytest.raises(ConfigurationError, match="is there already, and is not empty"):
        make_project("shop", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        make_project("shop", tmp_path / "file" / "shop")
