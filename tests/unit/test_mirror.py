"""A mirror of Debian that is out of reach, as this machine's apt sees it."""

import shutil
from pathlib import Path

import pytest

from coordinator.dev.servers.ports import free_port
from tests.support.machine import NotPossibleHere
from tests.support.mirror import mirror_of_apt, require_release


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """apt has one source, and nothing of it yet; the source's address, where nobody answers."""
    if shutil.which("apt-get") is None:
        pytest.skip("this machine has no apt")
    address = f"http://127.0.0.1:{free_port()}/debian"
    (tmp_path / "sources.list").write_text(f"deb {address} trixie main\n")
    (tmp_path / "lists" / "partial").mkdir(parents=True)
    (tmp_path / "apt.conf").write_text(
        f"""
        Dir::Etc::SourceList "{tmp_path}/sources.list";
        Dir::Etc::SourceParts "{tmp_path}/none";
        Dir::State::Lists "{tmp_path}/lists";
        Acquire::Retries "0";  // it would wait for some seconds
        """
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return address


def test_a_mirror_that_does_not_answer_is_told_with_the_reason(apt: str) -> None:
    with pytest.raises(NotPossibleHere, match=r"its release trixie: Failed to fetch .*Could not connect"):
        require_release(apt, "trixie")


def test_a_machine_without_apt_s_lists_has_them_read(apt: str) -> None:
    with pytest.raises(NotPossibleHere, match=f"cannot read its lists: Failed to fetch {apt}.*Could not connect"):
        mirror_of_apt()
