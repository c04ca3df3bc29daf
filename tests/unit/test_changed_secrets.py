"""A secret's file that changes while a process runs: the process says that it must be started anew."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from coordinator.dev.servers.ports import free_port
from coordinator.registry import APP_SETTING
from coordinator.runtime.secret_files import SecretFiles
from tests.support.forks import Forks
from tests.support.servers import REFERENCE_APP
from tests.support.system import wait_until

SETTING = "USERS_DATABASE_URL_FILE"
OLD, NEW = "postgresql://lane:hunter-twelve@127.0.0.1:9/users", "postgresql://lane:hunter-other@127.0.0.1:9/users"
NOBODY = {
    "AMQP_URL": "amqp://ingress:hunter-twelve@127.0.0.1:9",
    "USERS_DATABASE_URL": OLD,
    "PAYMENTS_DATABASE_URL": "mysql://lane:hunter-twelve@127.0.0.1:9/payments",
    "STRIPE_API_KEY": "sk_test_hunter_twelve_hunter_twelve",
    "STRIPE_METADATA_KEY": "hunter-twelve-hunter-twelve",
    "INGRESS_ACCOUNTS": "partner",
}
"""Nobody listens there: each process waits for its servers."""
PROCESSES = [
    ("run users --metrics-port", "USERS_DATABASE_URL"),
    ("run users payments --metrics-port", "AMQP_URL"),
    ("effects payments --metrics-port", "STRIPE_API_KEY"),
    ("ingress --metrics-port", "AMQP_URL"),
    ("gateway users --port", "AMQP_URL"),
    ("operations users --port", "USERS_DATABASE_URL"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{OLD}\n")
    return path


@pytest.fixture
def files(file: Path) -> SecretFiles:
    found = SecretFiles()
    found.note(SETTING, str(file), OLD)
    return found


def look(files: SecretFiles, times: int = 2) -> list[Any]:
    with capture_logs() as lines:
        for _ in range(times):
            files.look()
    return [(line["event"], line["setting"]) for line in lines]


def test_another_secret_is_said_once_and_until_the_one_of_before_is_back(files: SecretFiles, file: Path) -> None:
    assert look(files) == []
    file.write_text(NEW)
    assert look(files, 5) == [("secret_file_changed", SETTING)]
    assert files.problem == f"{SETTING}: changed since this process read it: start the process anew"
    file.write_text(OLD)
    assert look(files) == []
    assert files.problem is None


def test_the_same_secret_in_another_file_is_no_change(files: SecretFiles, file: Path, tmp_path: Path) -> None:
    """Kubernetes writes all files of a secret anew where one of them has changed."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "secret").write_text(OLD)
    file.unlink()
    file.symlink_to(Path("..data", "secret"))
    assert look(files) == []
    assert files.problem is None


def test_a_file_that_is_being_written_or_is_gone_has_no_other_secret(files: SecretFiles, file: Path) -> None:
    for content in (NEW[:9], NEW[:20], OLD):
        file.write_text(content)
        assert look(files, 1) == []
    for no_secret in (b"", b"\n", b"\xff\xfe"):
        file.write_bytes(no_secret)
        assert look(files) == []
    file.unlink()
    assert look(files) == []
    assert files.problem is None


def test_what_has_changed_stays_so_while_the_file_is_gone(files: SecretFiles, file: Path) -> None:
    file.write_text(NEW)
    assert look(files) == [("secret_file_changed", SETTING)]
    file.unlink()
    assert look(files) == []
    assert files.problem is not None


def test_a_part_that_reads_the_file_again_has_not_started_the_others_anew(files: SecretFiles, file: Path) -> None:
    file.write_text(NEW)
    files.note(SETTING, str(file), NEW)
    assert look(files) == [("secret_file_changed", SETTING)]


@pytest.mark.parametrize(("command", "name"), PROCESSES)
def test_each_process_says_that_a_secret_was_changed(command: str, name: str, forks: Forks, tmp_path: Path) -> None:
    file, port = tmp_path / "secret", free_port()
    file.write_text(NOBODY[name])
    addresses = {known: value for known, value in NOBODY.items() if known != name} | {f"{name}_FILE": str(file)}
    environment = {"PATH": "/usr/bin:/bin", APP_SETTING: REFERENCE_APP, **addresses}
    process = forks.run(["coordinator", *command.split(), str(port)], tmp_path / "log", environment)
    try:
        wait_until(lambda: bool(said_at(port)), "/readyz", process)
        assert "secrets" not in said_at(port) or said_at(port)["secrets"] == "ok"
        file.write_text(NOBODY[name].replace("twelve", "thirteen"))
        wait_until(lambda: said_at(port).get("secrets", "ok") != "ok", "the change in /readyz", process)
        told = said_at(port)["secrets"]
        # Strangers may ask a gateway.
        assert told == "down" if "--port" in command else f"{name}_FILE" in told
        (line,) = [line for line in process.log_path.read_text().splitlines() if "secret_file_changed" in line]
        assert f"{name}_FILE" in line
        assert "thirteen" not in process.log_path.read_text()
    finally:
        process.kill()


def said_at(port: int) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            said = json.load(answer)
    except urllib.error.HTTPError as error:
        said = json.load(error)
    except (urllib.error.URLError, OSError):
        return {}
    assert isinstance(said, dict)
    return {**said, **said.get("checks", {})}
