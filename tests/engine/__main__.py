"""`python -m tests.engine COMMAND…` runs a command where `docker compose` works, and all images are there.

Where no engine answers, one is made and stopped again. On a machine that does not let us make one that is a failure,
unless WITHOUT_ENGINE=allow is set.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from coordinator.dev.docker import engine_answers
from coordinator.dev.servers.process import die_with_parent
from coordinator.service.errors import ConfigurationError
from tests.engine.debian import Commands
from tests.engine.images import provide_images
from tests.engine.made import made_engine
from tests.support.interrupts import sigterm_interrupts
from tests.support.machine import NotPossibleHere

_NO_ENGINE: Final = 3
_STOP_TIMEOUT_S: Final = 60.0


def main(command: list[str]) -> int:
    """Return the command's exit status, or 3 if there is no engine."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("ENGINE_DIRECTORY") or Path(home) / "write-coordinator-engine").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    commands = Commands(folder / "commands.log", _say)
    with sigterm_interrupts(), ExitStack() as stack:
        try:
            environment = stack.enter_context(_engine(folder, commands))
        except NotPossibleHere as error:
            return _without(error)
        except ConfigurationError as error:
            _say(f"the engine could not be made: {error}")
            return 1
        try:
            if provide_images(environment, folder, commands):
                # Testcontainers' watchdog is one more image.
                environment = {**environment, "TESTCONTAINERS_RYUK_DISABLED": "true"}
        except NotPossibleHere as error:
            return _without(error)
        except ConfigurationError as error:
            _say(f"not all images are to be had: {error}")
            return 1
        return _run(command, environment)


def _run(command: list[str], environment: Mapping[str, str]) -> int:
    """Its exit status. If we are to end, it gets the time to remove its containers first."""
    # A session of its own: a terminal's Ctrl-C comes to us alone, and a second one would end the removal.
    running = subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - what it calls takes no lock
    )
    try:
        return running.wait()
    except KeyboardInterrupt:
        _say("stopping")
        running.send_signal(signal.SIGINT)
        try:
            running.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        return 128 + signal.SIGINT


def _without(error: NotPossibleHere) -> int:
    if os.environ.get("WITHOUT_ENGINE") == "allow":
        _say(f"skipped, as WITHOUT_ENGINE=allow says, since no engine can be made: {error}")
        return 0
    _say(f"no engine can be made: {error}; set WITHOUT_ENGINE=allow where that is to be no failure")
    return _NO_ENGINE


@contextmanager
def _engine(folder: Path, commands: Commands) -> Iterator[Mapping[str, str]]:
    if engine_answers():
        _say("the engine of this machine answers")
        yield dict(os.environ)
        return
    _say(f"no engine answers (Docker 25 and Compose 2.24 or newer): one is made in {folder}")
    with made_engine(folder, commands) as environment:
        yield environment


def _say(line: str) -> None:
    print(f"engine: {line}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
