"""A monolith whose file is replaced, and one whose backup is put back: nothing acknowledged is lost unsaid."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.monolith import Monolith
from tests.support.system import wait_until

pytestmark = [pytest.mark.timeout(240), pytest.mark.operators]


@pytest.fixture
def monolith(tmp_path: Path) -> Iterator[Monolith]:
    made = Monolith(tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()


def users_of(monolith: Monolith) -> Path:
    return monolith.folder / ".dev" / "data" / "users.sqlite"


def answered(monolith: Monolith, path: str, body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = monolith.headers | {"Content-Type": "application/json"}
    asked = urllib.request.Request(monolith.url + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def signed_up(monolith: Monolith, *names: str) -> None:
    for name in names:
        status, user = answered(monolith, "/users", {"name": name, "email": f"{name}@example.org"})
        assert status == 201, user


def operate(monolith: Monolith, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coordinator", *words],
        cwd=monolith.folder,
        env=monolith.settings | monolith.environment | {"HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def names_in(monolith: Monolith) -> list[str]:
    return [name for (name,) in monolith.rows("users", "SELECT name FROM users ORDER BY id")]


def test_no_operators_command_takes_the_log_of_a_file_that_was_replaced(monolith: Monolith) -> None:
    monolith.start()
    signed_up(monolith, "a1")
    monolith.stop()
    path = users_of(monolith)
    old, right, log = path.with_name("old"), path.with_name("right"), Path(f"{path}-wal")
    shutil.copy(path, old)
    monolith.start()
    signed_up(monolith, "b1", "b2")
    path.rename(right)
    shutil.copy(old, path)
    assert answered(monolith, "/users", {"name": "c", "email": "c@example.org"})[0] == 202
    written = log.read_bytes()
    for words in (["status", "users"], ["audit", "users", "users", "3"], ["migrate", "users"], ["guard", "users"]):
        ran = operate(monolith, *words)
        assert ran.returncode in (1, 2), (words, ran.stdout)
        assert (
            "another file than" in ran.stderr + ran.stdout or "is not the file to which" in ran.stderr + ran.stdout
        ), ran
        assert log.read_bytes() == written, words
    right.rename(path)
    wait_until(lambda: answered(monolith, "/readyz")[0] == 200, "the lane goes on", monolith.process)
    signed_up(monolith, "d")
    monolith.stop()
    monolith.start()
    assert names_in(monolith) == ["a1", "b1", "b2", "c", "d"]


def test_a_backup_is_put_back_without_the_log_of_what_it_replaces(monolith: Monolith) -> None:
    monolith.start()
    signed_up(monolith, "a")
    path, backup = users_of(monolith), monolith.folder / "backup"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source, closing(sqlite3.connect(backup)) as copy:
        source.backup(copy)
    signed_up(monolith, "b")
    monolith.stop()
    monolith.start()
    signed_up(monolith, "c")
    monolith.stop(signal.SIGKILL)
    shutil.copy(backup, path)
    with pytest.raises(AssertionError, match=r"users.sqlite is not the file to which its .* belongs"):
        monolith.start()
    assert monolith.process is not None
    assert monolith.process.exit_status == 2
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink()
    monolith.start()
    assert names_in(monolith) == ["a"]
    assert "lost acknowledged commands" in operate(monolith, "status", "users").stdout


def test_files_that_were_put_back_under_an_idle_process_are_seen_at_once_and_kept(monolith: Monolith) -> None:
    """Of the file that is put there the last commits are in its log, which the process that ends may not take."""
    monolith.start()
    signed_up(monolith, "a")
    monolith.stop(signal.SIGKILL)
    path, backup, aside = users_of(monolith), monolith.folder / "backup", monolith.folder / "aside"
    for folder in (backup, aside):
        folder.mkdir()
    for end in ("", "-wal"):
        shutil.copy2(f"{path}{end}", backup)
    monolith.start()
    signed_up(monolith, "b")
    for end in ("", "-wal", "-shm"):
        shutil.move(f"{path}{end}", aside)
    for each in backup.iterdir():
        shutil.copy2(each, path.parent)
    began_s = time.monotonic()
    wait_until(lambda: answered(monolith, "/readyz")[0] == 503, "it is seen", monolith.process)
    assert time.monotonic() - began_s < 5
    monolith.stop()
    assert Path(f"{path}-wal").read_bytes() == (backup / f"{path.name}-wal").read_bytes()
    monolith.start()
    assert names_in(monolith) == ["a"]
