"""A mirror of Debian that is out of reach, as this machine's apt sees it."""

import shutil
from pathlib import Path

import pytest

from coordinator.dev.servers.ports import free_port
from tests.support.machine import NotPossibleHere
from tests.support.mirror import require_release


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="this machine has no apt")
def test_a_mirror_that_does_not_answer_is_told_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apt.conf").write_text('Acquire::Retries "0";')  # it would wait for some seconds
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    with pytest.raises(NotPossibleHere, match=r"its release trixie: Failed to fetch .*Could not connect"):
        require_release(f"http://127.0.0.1:{free_port()}/debian/", "trixie")
