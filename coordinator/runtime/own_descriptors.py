"""Descriptors that are to end with this process, since they have a lock or listen: no process that it forks has them.

A lock belongs to whoever has the descriptor, and forks have it, too. A worker of a pool outlives a parent that is
killed, and would keep the lock for as long as it waits for work: nobody else could have the file, and nobody uses it.
Likewise a socket goes on listening, and nobody answers there.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_own: Final = set["OwnDescriptor"]()
_listening: Final = set[socket.socket]()


class OwnDescriptor:
    """A descriptor that each process that is forked from now on closes at once."""

    def __init__(self, number: int) -> None:
        self.number = number
        _own.add(self)

    def close(self) -> None:
        """Close it, unless this process was forked and has closed it: the number may be another file's there."""
        if self in _own:
            _own.discard(self)
            os.close(self.number)


@contextmanager
def own_socket(listening: socket.socket) -> Iterator[socket.socket]:
    """Each process that is forked meanwhile closes this socket at once."""
    _listening.add(listening)
    try:
        yield listening
    finally:
        _listening.discard(listening)


def _close_in_fork() -> None:
    while _own:
        with suppress(OSError):
            os.close(_own.pop().number)
    while _listening:
        with suppress(OSError):
            _listening.pop().close()


os.register_at_fork(after_in_child=_close_in_fork)
