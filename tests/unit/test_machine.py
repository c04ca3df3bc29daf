"""What the tests of other machines need of this one is asked for before they begin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.machine import NotPossibleHere, require, require_mounts

ROOT = Path(__file__).parents[2]
CURRENT = [sys.executable, "-m", "tests.current", "trixie", "true"]
# As root of most containers.
POWERLESS = ["setpriv", "--bounding-set", "-sys_admin"] if os.geteuid() == 0 else []


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(NotPossibleHere, match="only root"):
        require_mounts()


def test_a_refusal_is_told_with_its_reason() -> None:
    require(["true"], "nothing may be done")
    with pytest.raises(NotPossibleHere, match="nothing may be done here: as they say"):
        require(["sh", "-c", "echo as they say >&2; false"], "nothing may be done")
    with pytest.raises(NotPossibleHere, match="no program unheard-of"):
        require(["unheard-of"], "nothing may be done")


@pytest.mark.parametrize(("allowed", "status"), [({}, 2), ({"WITHOUT_CHROOT": "allow"}, 0)])
def test_where_no_chroot_can_be_made_only_a_setting_lets_it_be_left_out(
    allowed: dict[str, str], status: int, tmp_path: Path
) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | allowed
    ran = subprocess.run([*POWERLESS, *CURRENT], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == status, ran.stderr
    [line] = (ran.stdout + ran.stderr).splitlines()
    assert ("skipped" in line) == (status == 0)
    assert "may" in line
    assert list(tmp_path.iterdir()) == []
