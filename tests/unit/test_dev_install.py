"""What is missing is said exactly, and installed where that is possible."""

import fcntl
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coordinator.dev import install
from coordinator.dev.install import Installation, NeededProgram, missing
from coordinator.dev.servers import programs
from coordinator.dev.servers.process import descendants
from coordinator.service.errors import ConfigurationError
from tests.support.system import wait_until


def make_program(folder: Path, name: str, script: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


PRESET = "00-write-coordinator.preset"


def _script(directory: Path, policy: Path) -> str:
    """The real one, with this policy, and presets below this directory."""
    script = install._SCRIPT.replace("/usr/sbin/policy-rc.d", str(policy))
    script = script.replace("/run/write-coordinator-install.lock", str(directory / "install.lock"))
    script = script.replace("/etc/init.d", str(directory / "init.d"))
    return script.replace("/etc/systemd/system-preset", str(directory / "preset"))


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where nothing is installed; the folder that is its PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setattr(programs, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    return path


def test_what_is_missing_is_named_with_the_command_that_installs_it(bare: Path, tmp_path: Path) -> None:
    make_program(bare, "postgres")
    make_program(bare, "valkey-server")
    with pytest.raises(ConfigurationError) as caught:
        Installation(print, tmp_path / "apt.log").run()
    message = str(caught.value)
    assert "not installed: rabbitmq-server, epmd, mariadbd or mysqld, mongod or secantusd-py" in message
    command = "apt-get update && apt-get install --no-install-recommends -y mariadb-server rabbitmq-server"
    assert command in message.splitlines()[1]
    assert "postgres" not in message
    assert "write-coordinator[mongodb-stand-in]" in message
    assert "SERVERS=docker" in message


@pytest.mark.usefixtures("bare")
def test_elsewhere_than_in_a_checkout_there_is_no_container_to_advise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "COMPOSE_FILE", tmp_path / "compose.yaml", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        Installation(print, tmp_path / "apt.log").run()
    assert "write-coordinator[mongodb-stand-in]" in str(caught.value)
    assert "docker" not in str(caught.value).lower()


@pytest.mark.usefixtures("bare")
def test_for_a_program_that_is_no_server_there_is_no_container_to_advise(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Installation(print, tmp_path / "apt.log", (NeededProgram(("wrk",), "wrk"),)).run()
    assert str(caught.value).splitlines() == [
        "not installed: wrk",
        "on Debian or Ubuntu, as root: apt-get update && apt-get install --no-install-recommends -y wrk",
    ]


def test_programs_are_found_where_debian_hides_them_and_the_newest_postgresql_wins(bare: Path, tmp_path: Path) -> None:
    for version in ("9.6", "15", "16"):
        make_program(tmp_path / "usr/lib/postgresql" / version / "bin", "postgres")
    hidden = make_program(tmp_path / "usr/lib/rabbitmq/bin", "rabbitmq-server")
    make_program(tmp_path / "usr/sbin", "rabbitmq-server")
    found = programs.find("postgres")
    assert found is not None
    assert found.parent.parent.name == "16"
    assert programs.find("rabbitmq-server") == hidden
    assert programs.find("mariadbd", "mysqld") is None


def test_apt_installs_what_is_missing_after_an_update_of_empty_lists(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rabbitmq-server", "epmd", "mysqld", "redis-server", "mongod"):
        make_program(bare, name)
    calls = tmp_path / "calls"
    # As apt with empty lists: the installation fails until they have been updated.
    make_program(
        bare,
        "apt-get",
        f'echo "$DEBIAN_FRONTEND $*" >> {calls}\n'
        f'case "$1" in update) > {tmp_path}/updated;; install)\n'
        f"[ -e {tmp_path}/updated ] || exit 100\n"
        f"> {bare}/postgres; {os.path.realpath('/bin/chmod')} 755 {bare}/postgres;; esac",
    )
    monkeypatch.setattr(install, "_become_root", list)
    monkeypatch.setattr(install, "_SCRIPT", _script(tmp_path, calls.parent))
    Installation(print, tmp_path / "apt.log").run()
    wanted = "noninteractive install -o DPkg::Lock::Timeout=600 --no-install-recommends -y postgresql"
    assert calls.read_text().splitlines() == [wanted, "noninteractive update", wanted]
    assert missing() == []


def test_an_installation_that_does_not_help_is_told_with_the_end_of_its_log(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_program(bare, "apt-get", "echo E: Unable to locate package; exit 100")
    monkeypatch.setattr(install, "_become_root", list)
    monkeypatch.setattr(install, "_SCRIPT", _script(tmp_path, tmp_path))
    with pytest.raises(ConfigurationError, match="Unable to locate package"):
        Installation(print, tmp_path / "apt.log").run()


@pytest.mark.parametrize("there_before", [True, False])
def test_no_service_is_started_now_or_at_boot_and_all_is_left_as_it_was(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch, *, there_before: bool
) -> None:
    monkeypatch.setenv("PATH", f"{bare}:/usr/bin:/bin")
    policy = tmp_path / "policy-rc.d"
    presets = tmp_path / "preset"
    if there_before:
        policy.write_text("theirs\n")
        presets.mkdir()
        (presets / "90-theirs.preset").write_text("enable *\n")
    scripts = tmp_path / "init.d"
    scripts.mkdir()
    (scripts / "theirs").touch()
    turned_off = tmp_path / "turned-off"
    make_program(
        bare,
        "apt-get",
        f"cat {policy} > {tmp_path}/seen; cat {presets}/{PRESET} > {tmp_path}/preset-seen; touch {scripts}/new-server",
    )
    make_program(bare, "update-rc.d", f'echo "$*" >> {turned_off}')
    monkeypatch.setattr(install, "_become_root", list)
    monkeypatch.setattr(install, "_SCRIPT", _script(tmp_path, policy))
    with pytest.raises(ConfigurationError):
        Installation(print, tmp_path / "apt.log").run()
    assert (tmp_path / "seen").read_text() == ("theirs\n" if there_before else "#!/bin/sh\nexit 101\n")
    assert policy.exists() == there_before
    assert (tmp_path / "preset-seen").read_text() == "disable *.service\ndisable *.socket\n"
    assert [path.name for path in presets.glob("*")] == (["90-theirs.preset"] if there_before else [])
    assert presets.exists() == there_before
    assert turned_off.read_text().splitlines() == ["new-server disable"]


def test_nobody_but_root_can_keep_the_lock_of_installations(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may open a file may lock it, and keep it locked."""
    monkeypatch.setenv("PATH", f"{bare}:/usr/bin:/bin")
    make_program(bare, "apt-get", f"> {bare}/unheard-of; chmod 755 {bare}/unheard-of")
    monkeypatch.setattr(install, "_become_root", list)
    monkeypatch.setattr(install, "_SCRIPT", _script(tmp_path, tmp_path / "policy-rc.d"))
    Installation(print, tmp_path / "apt.log", (NeededProgram(("unheard-of",), "unheard-of"),)).run()
    assert (tmp_path / "install.lock").stat().st_mode & 0o777 == 0o600


def test_an_installation_waits_for_another_that_would_remove_the_policy_under_it(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{bare}:/usr/bin:/bin")
    policy = tmp_path / "sbin" / "policy-rc.d"
    policy.parent.mkdir()
    called = tmp_path / "called"
    make_program(bare, "apt-get", f"cp {policy} {called}; > {bare}/unheard-of; chmod 755 {bare}/unheard-of")
    monkeypatch.setattr(install, "_become_root", list)
    monkeypatch.setattr(install, "_SCRIPT", _script(tmp_path, policy))
    installation = Installation(print, tmp_path / "apt.log", (NeededProgram(("unheard-of",), "unheard-of"),))

    def waits() -> bool:
        return any("flock" in Path(f"/proc/{pid}/comm").read_text() for pid in descendants(os.getpid()))

    other = os.open(tmp_path / "install.lock", os.O_RDONLY | os.O_CREAT)
    with ThreadPoolExecutor(1) as threads:
        try:
            fcntl.flock(other, fcntl.LOCK_EX)
            running = threads.submit(installation.run)
            wait_until(lambda: called.exists() or waits(), "it waits")
            assert not called.exists()
        finally:
            os.close(other)
        running.result()
    assert "exit 101" in called.read_text()
