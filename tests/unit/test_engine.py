"""`python -m tests.engine`, as far as it can be checked without an engine."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.service.errors import ConfigurationError
from tests.engine import __main__ as engine
from tests.engine import images
from tests.engine.network import alone_in_this_network, what_removes_the_new
from tests.support.machine import NotPossibleHere

ROOT = Path(__file__).parents[2]
STAND_INS = Path(engine.__file__).parent / "stand_ins"
ON_AN_ENGINE = """
import sys
from tests.engine import __main__ as engine
engine.engine_answers = lambda: True
engine.provide_images = lambda *_: []
sys.exit(engine.main(sys.argv[1:]))
"""
TIDIES_UP = """
import pathlib, sys, time
try:
    print("started", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[1]).touch()
"""


def refuse(*_: object) -> None:
    raise NotPossibleHere("no rights to make it")


def fail(*_: object) -> None:
    raise ConfigurationError("a package is missing")


@pytest.fixture
def without_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """None answers, and none can be made. A command that is run all the same makes this file."""
    monkeypatch.setenv("ENGINE_DIRECTORY", str(tmp_path / "engine"))
    monkeypatch.delenv("WITHOUT_ENGINE", raising=False)
    monkeypatch.setattr(engine, "engine_answers", lambda: False)
    monkeypatch.setattr(engine, "made_engine", refuse)
    return tmp_path / "ran"


def test_tests_that_cannot_run_fail_and_say_why(without_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert engine.main(["touch", str(without_engine)]) == 3
    assert "no rights to make it" in capsys.readouterr().out
    assert not without_engine.exists()


def test_only_a_setting_lets_them_be_left_out_and_that_is_said(
    without_engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WITHOUT_ENGINE", "allow")
    assert engine.main(["touch", str(without_engine)]) == 0
    assert re.findall("^engine: skipped.*no rights to make it$", capsys.readouterr().out, re.MULTILINE)
    assert not without_engine.exists()


def test_an_engine_that_could_be_had_and_is_not_is_a_failure_in_any_case(
    without_engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WITHOUT_ENGINE", "allow")
    monkeypatch.setattr(engine, "made_engine", fail)
    assert engine.main(["touch", str(without_engine)]) == 1
    assert "a package is missing" in capsys.readouterr().out
    assert not without_engine.exists()


@pytest.mark.parametrize("error", [refuse, fail])
def test_images_that_nobody_could_make_here_are_left_out_and_no_others(
    without_engine: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[..., None]
) -> None:
    monkeypatch.setenv("WITHOUT_ENGINE", "allow")
    monkeypatch.setattr(engine, "engine_answers", lambda: True)
    monkeypatch.setattr(engine, "provide_images", error)
    assert engine.main(["touch", str(without_engine)]) == (0 if error is refuse else 1)
    assert not without_engine.exists()


def test_a_run_that_is_ended_removes_its_containers_first(tmp_path: Path) -> None:
    """By SIGTERM, as `timeout` does, and twice: make sends it on."""
    command = [sys.executable, "-c", ON_AN_ENGINE, sys.executable, "-c", TIDIES_UP, str(tmp_path / "tidied")]
    environment = os.environ | {"ENGINE_DIRECTORY": str(tmp_path / "engine")}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        while run.stdout.readline() != "started\n":
            pass
        run.send_signal(signal.SIGTERM)
        assert run.stdout.readline() == "engine: stopping\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait() == 130
    assert (tmp_path / "tidied").exists()


def test_every_image_has_a_stand_in() -> None:
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (STAND_INS / "Dockerfile").read_text(), re.MULTILINE)
    wanted = images.wanted_images()
    assert {"python:3.13-slim", "postgres:17"} <= set(wanted)
    assert {image.partition(":")[0] for image in wanted} <= set(targets)


@pytest.mark.parametrize("status", [0, 100])
def test_a_package_that_cannot_be_installed_says_why(tmp_path: Path, status: int) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "arguments: $*"\necho "a script failed" >&2\nexit {status}\n')
    apt.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [STAND_INS / "add", "mysql-server"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (status, "")
    said = ["arguments: install -qq -y --no-install-recommends mysql-server", "a script failed"]
    assert done.stderr.splitlines() == (said if status else [])


def test_one_network_has_one_engine_at_a_time() -> None:
    name = f"write-coordinator-test-{os.getpid()}"
    for _ in range(2):
        with (
            alone_in_this_network(name),
            pytest.raises(ConfigurationError, match="another run has an engine"),
            alone_in_this_network(name),
        ):
            pass


BEFORE = """\
*filter
:INPUT ACCEPT [7:420]
:FORWARD ACCEPT [0:0]
:MINE - [0:0]
-A INPUT -j MINE
COMMIT
"""
AFTER = """\
*filter
:INPUT ACCEPT [9:540]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:MINE - [0:0]
-A INPUT -j MINE
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A DOCKER-USER -j DOCKER
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
"""


def test_of_the_rules_of_a_network_only_what_is_new_is_removed() -> None:
    """Rules before chains, since a chain that a rule names cannot be removed."""
    assert what_removes_the_new(BEFORE, BEFORE) == "*filter\nCOMMIT\n"
    assert what_removes_the_new(BEFORE, AFTER).splitlines() == [
        "*filter",
        ":FORWARD ACCEPT [0:0]",
        "-D FORWARD -j DOCKER-USER",
        "-D FORWARD -o docker0 -j DOCKER",
        "-F DOCKER",
        "-F DOCKER-USER",
        "-X DOCKER",
        "-X DOCKER-USER",
        "COMMIT",
        "*nat",
        "-D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "COMMIT",
    ]
