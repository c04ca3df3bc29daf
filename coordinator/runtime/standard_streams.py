"""The descriptors 0, 1 and 2, which belong to standard input, standard output and standard error."""

import os
import sys
from typing import Final

_STANDARD_ERROR: Final = 2


def keep_standard_descriptors() -> None:
    """Open on the null device those that the process was started without.

    Otherwise a socket would get one of them: what a library writes to standard error would go there, and libuv ends the
    process when it closes the socket. `sys.stdout` stays None, so whoever asks still learns that nobody reads.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        # A child's standard streams, as the others are.
        os.set_inheritable(opened, True)
    os.close(opened)
    if sys.stderr is None:
        # The log goes there, and no line of it is an answer to somebody.
        sys.stderr = os.fdopen(_STANDARD_ERROR, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
