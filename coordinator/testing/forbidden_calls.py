"""Sees the calls of a handler that handlers may not make: of a clock, of chance, and of what is outside.

Comparing two runs does not show them all: a date is the same in both. Python tells a profiler of every call of a
function that is written in C, which all of these are in the end.
"""

import functools
import gc
import random
import sys
import sysconfig
from collections.abc import Callable
from datetime import date
from types import FrameType
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from coordinator.service.commands import Command
from coordinator.service.unit_of_work import Handler

F = TypeVar("F", bound=Callable[..., Any])

_CLOCKS: Final = frozenset(
    {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "sleep"}
)
_NOW: Final = frozenset({"now", "today", "utcnow"})
_OF_MODULES: Final = {
    ("posix", "urandom"): "draws random bytes",
    ("nt", "urandom"): "draws random bytes",
    ("posix", "getrandom"): "draws random bytes",
    ("posix", "system"): "runs a program",
    ("_posixsubprocess", "fork_exec"): "runs a program",
    ("io", "open"): "opens a file",
    ("_io", "open"): "opens a file",
    ("_socket", "getaddrinfo"): "uses the network",
    ("_sqlite3", "connect"): "opens a database",
    ("_uuid", "generate_time_safe"): "looks at the clock",
}
_CHANCE: Final[object] = getattr(random.random, "__self__", None)
"""The generator that all modules share. One that a handler seeds from its command is none of chance."""
_MAY: Final = ("logging", "structlog", "importlib", "_frozen_importlib", "_frozen_importlib_external")
"""Modules that look at the clock, or read files, and tell the handler nothing of it."""
_STANDARD_LIBRARY: Final = sysconfig.get_path("stdlib")


class ForbiddenCall(Struct, frozen=True):
    """A call that a handler may not make: of which function, from which line, and for which command."""

    command: Command
    name: str
    does: str
    place: str


def watched(handler: Handler[Any], found: list[ForbiddenCall]) -> Handler[Any]:
    """A handler of which such calls are noted, those of its `reads` and its `target` too."""
    watch = functools.partial(_watched, found)
    return msgspec.structs.replace(
        handler,
        handle=watch(handler.handle),
        reads=None if handler.reads is None else watch(handler.reads),
        target=None if handler.target is None else watch(handler.target),
    )


def _watched(found: list[ForbiddenCall], function: F) -> F:
    """A function of a command, its last argument."""

    @functools.wraps(function)
    def watching(*given: Any) -> Any:
        def look(frame: FrameType, event: str, called: Any) -> None:
            if event == "c_call" and (does := _does(called)) is not None and not _is_of_others(frame):
                found.append(ForbiddenCall(given[-1], _name(called), does, _place(frame)))

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
    at: FrameType | None = frame
    while at is not None and _is_python_s(at.f_code.co_filename):
        at = at.f_back
    at = at or frame
    return f"{at.f_code.co_filename}:{at.f_lineno}"


def _is_python_s(file: str) -> bool:
    return file.startswith((_STANDARD_LIBRARY, "<")) and "site-packages" not in file
