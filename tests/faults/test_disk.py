"""The filesystem that the faults fill and freeze does what they count on, or is left out in so many words."""

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import disk as disks
from tests.faults.disk import SmallDisk, small_disk

MARGIN_BYTES = 2_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "mounted", tmp_path / "image") as disk:
        if disk is None:
            pytest.skip("no filesystem can be mounted here")
        yield disk
    assert not (tmp_path / "mounted").is_mount()
    assert not (tmp_path / "image").exists()


def test_it_is_filled_up_to_what_is_left_and_emptied(disk: SmallDisk) -> None:
    before = disk.free_bytes
    disk.fill(10_000_000)
    assert abs(disk.free_bytes - 10_000_000) < MARGIN_BYTES
    disk.fill(20_000_000)  # less is free already
    assert abs(disk.free_bytes - 10_000_000) < MARGIN_BYTES
    disk.empty()
    assert disk.free_bytes == before


def test_a_write_hangs_while_it_is_frozen(disk: SmallDisk) -> None:
    disk.freeze()
    writing = threading.Thread(target=(disk.path / "file").write_text, args=("text",))
    try:
        writing.start()
        writing.join(0.2)
        assert writing.is_alive()
    finally:
        disk.thaw()
        writing.join()
    assert (disk.path / "file").read_text() == "text"


def test_where_it_cannot_be_mounted_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*command: str | Path) -> None:
        if command[0] == "mount":
            raise subprocess.CalledProcessError(32, "mount", stderr="mount: permission denied\n")

    monkeypatch.setattr(disks, "_run", refuse)
    with small_disk(tmp_path / "mounted", tmp_path / "image") as disk:
        assert disk is None
    said = capsys.readouterr().out
    assert "left out" in said
    assert "permission denied" in said
