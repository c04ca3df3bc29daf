"""Why a lane is suspended, in words for anybody who may ask: they name no file and no host, and quote no row."""

from typing import Final

from coordinator.lane.delivery import SuspensionCause
from coordinator.stores.port import Trouble

_OF_CAUSE: Final[dict[SuspensionCause, str]] = {
    "database": "its database does not answer, or takes nothing",
    "refusal": "its database refuses what it has to write",
    "conflict": "somebody keeps rows or tables of its database locked",
    "paused": "an operator has paused it",
    "move": "it is about to move to another database",
    "blocked": "a command blocks it",
    "commits_lost": "its database has lost acknowledged commands, or is another one",
    "newer_release": "it waits for a process of a newer release",
}
_OF_TROUBLE: Final[dict[Trouble, str]] = {
    "disk_full": "the disk of its database has no room",
    "not_admitted": "its database does not admit it, or refuses it a right",
}


def suspended_words(cause: SuspensionCause | None, trouble: Trouble) -> str:
    """None: the cause is not known, as where it has just ended."""
    said = _OF_TROUBLE.get(trouble) if cause == "database" else None
    return said or _OF_CAUSE[cause or "database"]
