"""`simulate` in two other processes: whether handlers do the same there.

What runs in one process agrees on what differs between processes: the hash of a text, and with it the order of a set,
the local time zone, the working folder, the addresses of objects. So two processes are started in which all of this
differs, and each applies the same commands, one by one. They are compared with each other, and not with this process:
of what tests do to it they know nothing, and what differs between them is the same in each run. Each begins a history
with modules as they were imported, and the second does so again in its middle, as after a takeover: so what a handler
keeps between commands is missing there.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.testing.differences import Finding, difference
from coordinator.testing.other_process import Declared, Failed, ServicePlace, Start, Trial, declared_by
from coordinator.testing.running import Course, Ran

ANSWER_S_MAX: Final = 120.0
"""A process that takes longer than this to start, or for one history, is ended."""
_NAMES: Final = ("in one process", "in another one")
_TAKEOVER_NAMES: Final = ("in one process", "with a takeover in the middle")
_SURROUNDINGS: Final = (
    {"PYTHONHASHSEED": "1", "TZ": "UTC", "HOSTNAME": "here", "USER": "ada", "LOGNAME": "ada"},
    {"PYTHONHASHSEED": "2", "TZ": "<+13>-13", "HOSTNAME": "there", "USER": "bob", "LOGNAME": "bob"},
)
_WHY: Final = (
    "It depends on its process: on hash() or the order of a set of texts, the time zone, the working folder, "
    "the environment when it is imported, or an address. sorted(…) gives a set one order."
)
_WHY_KEPT: Final = (
    "It keeps something between commands that is in no row: in a variable of its module, an attribute, a cache. "
    "The process that takes over knows nothing of it."
)
_PROGRAM: Final = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from coordinator.testing.other_process import serve
serve(int(sys.argv[2]))
"""


class Unreachable(Exception):
    """Raised for a service that another process cannot import; says why."""


class OtherProcesses:
    """Two processes that have the service."""

    def __init__(self, connections: Sequence[Connection], given: Sequence[Row]) -> None:
        self._connections = connections
        self._given = given

    def difference(self, course: Course) -> Finding | None:
        """Apply these commands in both, and tell the first difference.

        Raises RuntimeError for a process that ends, or takes too long.
        """
        one, another = self._connections
        one.send(Trial(course, self._given, is_taken_over=False))
        another.send(Trial(course, self._given, is_taken_over=True))
        first, second = _ran_or_failed(one), _ran_or_failed(another)
        if isinstance(first, Failed) or isinstance(second, Failed):
            return _endless(first, second)
        finding = difference(first, second, _NAMES)
        if finding is None:
            return None
        # The takeover may be why, or the other process.
        one.send(Trial(course, self._given, is_taken_over=True))
        taken_over = _ran_or_failed(one)
        kept = None if isinstance(taken_over, Failed) else difference(first, taken_over, _TAKEOVER_NAMES)
        if kept is not None:
            return Finding("is kept", kept.type, f"{kept.text}\n  {_WHY_KEPT}")
        return Finding(finding.kind, finding.type, f"{finding.text}\n  {_WHY}")


@contextmanager
def other_processes(service: Service, given: Sequence[Row]) -> Iterator[OtherProcesses]:
    """Have two of them. Raises Unreachable, and RuntimeError where the service's module cannot be imported."""
    place = _place_of(service)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="simulate-"))
        connections = [stack.enter_context(_process(surroundings)) for surroundings in _SURROUNDINGS]
        for connection, works_in in zip(connections, (None, folder), strict=True):
            connection.send(Start(place, works_in))
        for connection in connections:
            answer = _answer(connection)
            if isinstance(answer, Failed):
                raise RuntimeError(  # noqa: TRY004  # the module is at fault
                    f"simulate: another process cannot import {place}: {answer.reason}. Have its module import "
                    "without what a test prepares, or leave this check out: simulate(…, elsewhere=False)"
                )
            if answer != declared_by(service):
                raise Unreachable(f"{place} has other handlers or rows when it is imported: some are added to it later")
        yield OtherProcesses(connections, given)


def _place_of(service: Service) -> ServicePlace:
    """Where another process finds it. Raises Unreachable."""
    places = [
        ServicePlace(module_name, name, getattr(module, "__file__", None))
        for module_name, module in list(sys.modules.items())
        if module_name != "__main__"
        for name, value in list(getattr(module, "__dict__", {}).items())
        if value is service
    ]
    if not places:
        raise Unreachable(f"service {service.name} has no name in a module, by which another process could import it")
    its_own = {model.__module__ for model in service.models} | {each.command.__module__ for each in service.handlers}
    # Not a module of tests that imports it, if it can be helped.
    place = next((each for each in places if each.module in its_own), places[0])
    try:
        pickle.dumps(service.models)
    except (pickle.PicklingError, AttributeError) as error:
        raise Unreachable(f"{place} has rows of a class that has no name in a module: {error}") from None
    return place


@contextmanager
def _process(surroundings: dict[str, str]) -> Iterator[Connection]:
    here, there = Pipe()
    path = json.dumps([str(Path(each).absolute()) for each in sys.path])
    with here:
        with there:
            process = subprocess.Popen(  # noqa: S603  # this Python
                [sys.executable, "-c", _PROGRAM, path, str(there.fileno())],
                env={**os.environ, **surroundings},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                process_group=0,
            )
        try:
            yield here
        finally:
            # With those that it has forked.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answer(connection: Connection) -> Declared | Failed | Ran:
    if not connection.poll(ANSWER_S_MAX):
        raise RuntimeError(f"simulate: another process has not answered within {ANSWER_S_MAX:.0f} s")
    try:
        answer: Declared | Failed | Ran = connection.recv()
    except (EOFError, ConnectionResetError):
        raise RuntimeError("simulate: another process has ended; its last words are on the standard error") from None
    return answer


def _ran_or_failed(connection: Connection) -> Ran | Failed:
    answer = _answer(connection)
    if isinstance(answer, Declared):
        raise TypeError(f"no answer to a history: {answer!r:.200}")
    return answer


def _endless(*answers: Failed | Ran) -> Finding:
    reason = next(each.reason for each in answers if isinstance(each, Failed))
    return Finding("differs elsewhere", "", f"it is endless in another process: {reason}\n  {_WHY}")
