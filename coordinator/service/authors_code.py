"""Where in its author's code something happens: the last line on the way there that is neither ours nor a library's."""

import inspect
import re
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from coordinator.service.unit_of_work import name_of

_OURS: Final = f"{Path(__file__).parents[1]}/"
_INSTALLED: Final = tuple({f"{sysconfig.get_path(name)}/" for name in ("purelib", "platlib")})
_PYTHONS: Final = (f"{sysconfig.get_path('stdlib')}/", "<")
_FRAME: Final = re.compile(r'^ {2}File "([^"\n]+)", line ([0-9]+), in (.+)$', re.MULTILINE)

Line = tuple[str, str]
"""A file, and a text that names a line of it."""


def authors_line(traceback: str | None) -> str | None:
    """`file:line, in function` of a traceback's text; None: there is no such line in it."""
    frames = _FRAME.findall(traceback or "")
    return last_of_authors((file, f"{file}:{line}, in {function}") for file, line, function in frames)


def last_of_authors(lines: Iterable[Line]) -> str | None:
    """The text of the author's last line among these, each of which calls the next; None: none is the author's.

    An author's package may be installed beside libraries. Then it is what was called first.
    """
    theirs = [(file, text) for file, text in lines if not file.startswith(_OURS) and not _is_pythons(file)]
    own = [text for file, text in theirs if not file.startswith(_INSTALLED)]
    return own[-1] if own else theirs[0][1] if theirs else None


def place_of(function: object) -> str | None:
    """`file:line` of a function, that within its decorators; None: it has none, such as one that is written in C."""
    written: Any = function
    with suppress(ValueError):
        written = inspect.unwrap(written)
    code = getattr(written, "__code__", None)
    return None if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def shown_function(function: object) -> str:
    """Its name, and where it is."""
    place = place_of(function)
    return name_of(function) + (f" ({place})" if place else "")


def _is_pythons(file: str) -> bool:
    return file.startswith(_PYTHONS) and not file.startswith(_INSTALLED)
