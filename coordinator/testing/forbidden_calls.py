"""Sees what a handler does that handlers may not do: calls of a clock, of chance, and of what is outside.

Comparing two runs does not show them all: a date is the same in both. Python tells a profiler of every call of a
function that is written in C, which all of these are in the end.
"""

import functools
import gc
import os
import random
import sys
from collections.abc import Callable
from datetime import date
from types import FrameType
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from coordinator.service.allowing import anybody
from coordinator.service.authors_code import last_of_authors, place_of
from coordinator.service.commands import Command
from coordinator.service.unit_of_work import Handle, Handler, UnitOfWork
from coordinator.testing.changed_rows import Copies, NotingWork

F = TypeVar("F", bound=Callable[..., Any])

_CLOCKS: Final = frozenset(
    {
        *("time", "time_ns", "localtime", "ctime", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
        *("process_time", "process_time_ns", "thread_time", "thread_time_ns", "clock_gettime", "clock_gettime_ns"),
        "sleep",
    }
)
_NOW: Final = frozenset({"now", "today", "utcnow"})
_OF_MODULES: Final = {
    ("posix", "urandom"): "draws random bytes",
    ("nt", "urandom"): "draws random bytes",
    ("posix", "getrandom"): "draws random bytes",
    ("posix", "system"): "runs a program",
    ("_posixsubprocess", "fork_exec"): "runs a program",
    ("_thread", "start_new_thread"): "starts a thread",
    ("_thread", "start_joinable_thread"): "starts a thread",
    ("io", "open"): "opens a file",
    ("_io", "open"): "opens a file",
    ("_socket", "getaddrinfo"): "uses the network",
    ("_sqlite3", "connect"): "opens a database",
    ("_uuid", "generate_time_safe"): "looks at the clock",
    ("_socket", "gethostname"): "asks for the name of the machine",
    ("posix", "uname"): "asks for the name of the machine",
    ("posix", "open"): "opens a file",
    ("posix", "stat"): "looks at a file",
    ("posix", "lstat"): "looks at a file",
    ("posix", "access"): "looks at a file",
    ("posix", "listdir"): "looks at a folder",
    ("posix", "scandir"): "looks at a folder",
    ("posix", "getcwd"): "asks for the working folder",
    ("posix", "getpid"): "asks for the id of the process",
}
_ENVIRONMENT: Final = ("_Environ.__getitem__", "_Environ.__iter__", "_Environ.__len__")
"""Of `os`, in Python: all reads of the environment end in one of them."""
_CHANCE: Final[object] = getattr(random.random, "__self__", None)
"""The generator that all modules share. One that a handler seeds from its command is none of chance."""
_MAY: Final = ("logging", "structlog", "importlib", "_frozen_importlib", "_frozen_importlib_external")
"""Modules that look at the clock, or read files, and tell the handler nothing of it."""


class ForbiddenCall(Struct, frozen=True):
    """What a handler may not do: with what (a function, or a row), at which line, and for which command."""

    command: Command
    name: str
    does: str
    place: str


_OF_RULES: Final = 1
"""The place of the command among the arguments of a rule."""


def watched(handler: Handler[Any], found: list[ForbiddenCall], copies: Copies) -> Handler[Any]:
    """A handler of which that is noted, the calls of its `reads`, its `target` and its `allow` too."""
    watch = functools.partial(_watched, found)
    return msgspec.structs.replace(
        handler,
        handle=watch(_noting(found, handler.handle, copies) if copies else handler.handle),
        reads=None if handler.reads is None else watch(handler.reads),
        target=None if handler.target is None else watch(handler.target),
        allow=handler.allow if handler.allow in (None, anybody) else watch(handler.allow, _OF_RULES),
    )


def _noting(found: list[ForbiddenCall], handle: Handle[Any], copies: Copies) -> Handle[Any]:
    """A handle of which rows are noted that it changes in place and does not save."""

    @functools.wraps(handle)
    def noting(work: UnitOfWork, command: Any) -> Struct | None:
        seen = NotingWork(work, copies)
        result = handle(seen, command)
        place = place_of(handle) or ""
        does = "changes a row in place, and does not save it"
        found.extend(ForbiddenCall(command, name, does, place) for name in seen.lost())
        return result

    return noting


def _watched(found: list[ForbiddenCall], function: F, place: int = -1) -> F:
    """A function of a command, which is the argument at this place."""

    @functools.wraps(function)
    def watching(*given: Any) -> Any:
        def look(frame: FrameType, event: str, called: Any) -> None:
            if event == "c_call":
                if (does := _does(called)) is not None and not _is_of_others(frame):
                    found.append(ForbiddenCall(given[place], _name(called), does, _place(frame)))
            elif event == "call" and _reads_environment(frame) and not _is_of_others(frame):
                found.append(ForbiddenCall(given[place], "os.environ", "reads the environment", _place(frame)))

        before, collects = sys.getprofile(), gc.isenabled()
        # What others have called at each collection would seem to be the handler's.
        gc.disable()
        sys.setprofile(look)
        try:
            return function(*given)
        finally:
            sys.setprofile(before)
            if collects:
                gc.enable()

    return watching  # type: ignore[return-value]  # it takes and returns the same


def _does(function: Any) -> str | None:
    """What a forbidden function does; None: it is not one of them."""
    name, owner = getattr(function, "__name__", ""), getattr(function, "__self__", None)
    module = getattr(function, "__module__", None)
    if module == "time" and name in _CLOCKS:
        return "looks at the clock"
    if isinstance(owner, type) and issubclass(owner, date) and name in _NOW:
        return "looks at the clock"
    if owner is not None and owner is _CHANCE:
        return "draws a random number"
    if name == "connect" and type(owner).__name__ in ("socket", "SSLSocket"):
        return "uses the network"
    return _OF_MODULES.get((module or "", name))


def _reads_environment(frame: FrameType) -> bool:
    return frame.f_globals is vars(os) and frame.f_code.co_qualname in _ENVIRONMENT


def _name(function: Any) -> str:
    owner = getattr(function, "__self__", None)
    of = getattr(owner, "__name__", None) or ("random" if owner is _CHANCE else type(owner).__name__)
    return f"{of}.{function.__name__}"


def _is_of_others(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "watching":
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _MAY:
            return True
        frame = frame.f_back
    return False


def _place(frame: FrameType) -> str:
    """The line of the author's that leads there."""
    frames: list[FrameType] = []
    at: FrameType | None = frame
    while at is not None and at.f_code.co_name != "watching":
        frames.insert(0, at)
        at = at.f_back
    lines = [(each.f_code.co_filename, f"{each.f_code.co_filename}:{each.f_lineno}") for each in frames]
    return last_of_authors(lines) or lines[-1][1]
