"""Waits for several things at once: a signal, the end of a process, the end of work in a thread."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from types import FrameType
from typing import Self

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# make passes on a SIGTERM that the whole process group has had already: it must not count as a second request.
_SECOND_REQUEST_AFTER_S = 0.5


class Watch:
    """Takes the signals that ask to stop while it is entered. In the main thread only."""

    def __init__(self) -> None:
        self.stop_signal: str | None = None
        """The first signal's name; None: there was none."""
        self.kill_requested = False
        """A second signal: the user does not want to wait."""
        self._requested_at = 0.0

    def __enter__(self) -> Self:
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._before = {number: signal.signal(number, self._on_signal) for number in _STOP_SIGNALS}
        self._wakeup_fd_before = signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup_fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._wake_in)
        os.close(self._wake_out)

    def wake(self) -> None:
        """End a wait(); from any thread."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self._wake_out, b"\0")

    def wait(self, pids: Iterable[int] = (), timeout_s: float | None = None) -> None:
        """Return when a signal has come, wake() was called, one of these children has ended, or the time is over."""
        with contextlib.ExitStack() as opened:
            waited = [self._wake_in]
            for pid in pids:
                try:
                    waited.append(os.pidfd_open(pid))
                except ProcessLookupError:  # it has ended, and been waited for
                    return
                opened.callback(os.close, waited[-1])
            select.select(waited, [], [], timeout_s)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_in, 4096):
                pass

    @property
    def stop_requested(self) -> bool:
        """Whether a signal came."""
        return self.stop_signal is not None

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.stop_signal is None:
            self.stop_signal = signal.Signals(number).name
            self._requested_at = now
        elif now - self._requested_at > _SECOND_REQUEST_AFTER_S:
            self.kill_requested = True
