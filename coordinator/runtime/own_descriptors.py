"""Descriptors with locks that are to end with this process: no process that it forks has them.

Such a lock belongs to whoever has the descriptor, and forks have it, too. A worker of a pool outlives a parent that is
killed, and would keep the lock for as long as it waits for work: nobody else could have the file, and nobody uses it.
"""

import os
from contextlib import suppress
from typing import Final

_own: Final = set[int]()


def keep_from_forks(descriptor: int) -> None:
    """Have each process that is forked from now on close it at once. Close it by `close_own`."""
    _own.add(descriptor)


def close_own(descriptor: int) -> None:
    """Close it; in a process that was forked it is closed already, and the number may be another file's."""
    if descriptor in _own:
        _own.discard(descriptor)
        os.close(descriptor)


def _close_in_fork() -> None:
    while _own:
        with suppress(OSError):
            os.close(_own.pop())


os.register_at_fork(after_in_child=_close_in_fork)
