"""Planting a bug: replace a function, or a line in it, until the end of a `with` block."""

from __future__ import annotations
import __future__

import inspect
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from types import CodeType, TracebackType
from typing import Any, Self


class Patches:
    """Undone in reverse order on exit."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for owner, name, original in reversed(self._originals):
            setattr(owner, name, original)
        self._originals.clear()

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of a class or module; it must exist."""
        self._originals.append((owner, name, inspect.getattr_static(owner, name)))
        setattr(owner, name, value)

    def wrap(self, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        """Call `wrapper(original, *arguments)` instead of the original."""
        original = getattr(owner, name)
        self.replace(owner, name, lambda *arguments: wrapper(original, *arguments))

    def rewrite(self, owner: Any, name: str, old: str, new: str) -> None:
        """Replace a piece of a function's source. Raises LookupError unless it is there once: the code has changed."""
        function = getattr(owner, name)
        scope: dict[str, Any] = {}
        exec(_rewritten(function, old, new), vars(sys.modules[function.__module__]), scope)  # the source is our own
        self.replace(owner, name, scope[name])


@cache
def _rewritten(function: Callable[..., Any], old: str, new: str) -> CodeType:
    """Compiled once for all the seeds that a bug is planted in."""
    name = function.__name__
    if names := function.__code__.co_freevars:
        # Compiled apart it would raise at each call, and any check would catch that.
        raise LookupError(f"{name} needs {', '.join(names)} of where it is written: plant the bug elsewhere")
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(old) != 1:
        raise LookupError(f"{name} has {source.count(old)} times {old!r}: bring the mutant up to date")
    compiled: CodeType = compile(
        source.replace(old, new), f"<mutant of {name}>", "exec", __future__.annotations.compiler_flag, True
    )
    return compiled
