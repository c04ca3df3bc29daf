"""The tests' chroot of a newer Debian, as far as it can be checked without making one."""

import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.service.errors import ConfigurationError
from tests.current import chroot
from tests.current.chroot import Chroot, Release, cache_directory
from tests.support.machine import NotPossibleHere

RELEASE = Release("trixie", ("rabbitmq-server",), "python3", ("python3-venv",))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "checkout"
    (path / "folder").mkdir(parents=True)
    (path / ".gitignore").write_text("cached\n")
    (path / "kept").write_text("as it was")
    (path / "folder" / "new in git's eyes").write_text("")
    (path / "cached").write_text("")
    subprocess.run(["git", "init", "--quiet", str(path)], check=True)
    subprocess.run(["git", "-C", str(path), "add", ".gitignore", "kept"], check=True)
    monkeypatch.setattr(chroot, "CHECKOUT", path)
    return path


def files_below(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def test_the_checkout_is_copied_without_what_git_ignores(checkout: Path, tmp_path: Path) -> None:
    here = Chroot(RELEASE, tmp_path)
    here.copy_checkout()
    assert files_below(here.checkout) == {".gitignore", "kept", "folder/new in git's eyes"}


def test_a_second_copy_has_what_changed_and_the_environment_of_the_first(checkout: Path, tmp_path: Path) -> None:
    here = Chroot(RELEASE, tmp_path)
    here.copy_checkout()
    (here.checkout / ".venv").mkdir()
    (here.checkout / ".venv" / "installed").write_text("")
    (here.checkout / "folder" / "left by a test").write_text("")
    written_at = (here.checkout / "kept").stat().st_mtime_ns
    (checkout / "folder" / "new in git's eyes").unlink()
    (checkout / ".gitignore").write_text("changed\n")
    (checkout / "cached").unlink()
    here.copy_checkout()
    assert files_below(here.checkout) == {".gitignore", "kept", ".venv/installed"}
    assert not (here.checkout / "folder").exists()
    assert (here.checkout / ".gitignore").read_text() == "changed\n"
    # make would install everything again.
    assert (here.checkout / "kept").stat().st_mtime_ns == written_at


def test_a_checkout_that_git_does_not_know_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroot, "CHECKOUT", tmp_path)
    with pytest.raises(ConfigurationError, match="git says which files"):
        Chroot(RELEASE, tmp_path).copy_checkout()


@pytest.fixture
def permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that lets us mount."""
    monkeypatch.setattr(chroot, "require_mounts", lambda: None)


@pytest.mark.parametrize(("name", "said"), [(None, "no apt"), ("true", "name none")])
def test_without_a_mirror_it_says_so(
    name: str | None, said: str, permitted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No apt-get, or one that knows of no Debian."""
    programs = tmp_path / "programs"
    programs.mkdir()
    if name is not None:
        (programs / "apt-get").write_text("#!/bin/sh\n")
        (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(NotPossibleHere, match=said):
        Chroot(RELEASE, tmp_path).run("true")


def test_another_run_in_it_is_left_alone(permitted: None, tmp_path: Path) -> None:
    lock = tmp_path / "trixie.lock"
    holding = (
        f"import fcntl; lock = open({str(lock)!r}, 'w'); fcntl.flock(lock, fcntl.LOCK_EX); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ConfigurationError, match="another run"):
            Chroot(RELEASE, tmp_path).run("true")
        other.communicate("\n")


def test_it_is_kept_where_caches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert cache_directory({}) == Path("/home/ada/.cache/write-coordinator/current")
    assert cache_directory({"XDG_CACHE_HOME": "/caches"}) == Path("/caches/write-coordinator/current")
