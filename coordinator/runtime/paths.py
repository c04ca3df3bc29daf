"""Paths that a user has named."""

import re
from pathlib import Path
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def checked(path: Path) -> Path:
    """The same path. Raises ValueError, which says why it can stand in no address, no file of settings and no line."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{str(path)!r} is not UTF-8") from None
    if _CONTROL.search(str(path)):
        raise ValueError(f"{str(path)!r} has control characters, such as a line's end")
    return path
