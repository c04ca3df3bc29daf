"""Where in its author's code an error arose: the last line of a traceback that is neither ours nor a library's."""

import re
import sysconfig
from pathlib import Path
from typing import Final

_OURS: Final = str(Path(__file__).parents[1])
_LIBRARIES: Final = (*{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}, "<")
_FRAME: Final = re.compile(r'^ {2}File "([^"\n]+)", line ([0-9]+), in (.+)$', re.MULTILINE)


def authors_line(traceback: str | None) -> str | None:
    """`file:line, in function` of a traceback's text; None: there is no such line in it."""
    places = [
        f"{file}:{line}, in {function}"
        for file, line, function in _FRAME.findall(traceback or "")
        if not file.startswith((f"{_OURS}/", *_LIBRARIES))
    ]
    return places[-1] if places else None


def place_of(function: object) -> str | None:
    """`file:line` of a function; None: it has none, such as one that is written in C."""
    code = getattr(function, "__code__", None)
    return None if code is None else f"{code.co_filename}:{code.co_firstlineno}"
