"""How a lane says which command blocks it: its id and type for whoever may look, the words of its error for operators.

Coordinators say it as one text, in readiness and in logs. So that nobody who reads it has to know how it is written, it
is taken apart here, too.
"""

import re
from typing import Final, overload

_WHICH: Final = "blocked by command {command_id} ({type})"
_WORDS: Final = ": "
_WRITTEN: Final = re.compile(
    re.escape(_WHICH).replace(r"\{command_id\}", r"\S+").replace(r"\{type\}", r"\S+") + f"(?={_WORDS})"
)


def blocked_text(command_id: str, command_type: str, words: str) -> str:
    """Why a lane waits that a command blocks. `words` are those of the command's error, which quote what it holds."""
    return _WHICH.format(command_id=command_id, type=command_type) + _WORDS + words


@overload
def without_words(reason: str) -> str: ...


@overload
def without_words(reason: str | None) -> str | None: ...


def without_words(reason: str | None) -> str | None:
    """Why a lane waits, whatever the reason, without the words of the error of a command that blocks it."""
    which = None if reason is None else _WRITTEN.search(reason)
    return reason if reason is None or which is None else reason[: which.end()]
