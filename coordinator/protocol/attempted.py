"""The record of the attempts at one effect. It travels with the effect, from one worker to the next."""

from collections.abc import Mapping
from math import ceil
from typing import Any, Final

from msgspec import Struct

from coordinator.service.outside_calls import REASON_CHARACTERS_MAX
from coordinator.service.text import storable

HEADER_ASKED_AT: Final = "asked-at-ms"
HEADER_FIRST_AT: Final = "first-attempt-at-ms"
HEADER_CALLS: Final = "calls"
HEADER_DOUBT: Final = "may-have-happened"
HEADER_NOT_BEFORE: Final = "not-before-ms"
HEADER_PAUSE: Final = "pause-ms"
HEADER_REASON: Final = "reason"

LONG_AGO_S: Final = 30 * 86_400
"""The age that an effect of unknown age is taken to have."""
UNKNOWN_PAUSE_S: Final = 86_400.0
"""The length that a pause of unknown length has at most: a worker of an earlier release does not tell."""
_TIME_MS_MAX: Final = 1 << 50


class Attempted(Struct, kw_only=True):
    """Times are in seconds since the Unix epoch.

    `asked_at_s`: there was no call before it. `first_at_s`: when a worker first took the effect up; the time after
    which it is given up counts from there. `calls`: how many calls were made. `may_have_happened`: one of them may have
    had its effect, or somebody else may have made one. `not_before_s`: when the next attempt is due, after a pause of
    `pause_s`. `reason`: why the last call failed.
    """

    asked_at_s: float
    first_at_s: float
    calls: int = 0
    may_have_happened: bool = False
    not_before_s: float = 0.0
    pause_s: float = UNKNOWN_PAUSE_S
    reason: str = ""

    def put_off(self, now_s: float, pause_s: float) -> None:
        """The next attempt is due after this pause."""
        self.not_before_s, self.pause_s = now_s + pause_s, pause_s

    def correct(self, now_s: float) -> None:
        """Take back what a clock has noted that was ahead of this one: a time that is yet to come, for one that is
        over, and a pause of which more is left than the whole, which begins again now."""
        self.asked_at_s = min(self.asked_at_s, now_s)
        self.first_at_s = min(self.first_at_s, now_s)
        if self.not_before_s - now_s > self.pause_s:
            self.put_off(now_s, self.pause_s)

    def join(self, other: "Attempted") -> None:
        """Take in another copy of the effect: a doubt in either copy is a doubt in both."""
        self.asked_at_s = min(self.asked_at_s, other.asked_at_s)
        self.first_at_s = min(self.first_at_s, other.first_at_s)
        self.calls = max(self.calls, other.calls)
        self.may_have_happened = self.may_have_happened or other.may_have_happened
        self.reason = self.reason or other.reason

    def headers(self) -> dict[str, str | int | bool]:
        """For a message that carries the effect on."""
        return {
            HEADER_ASKED_AT: int(self.asked_at_s * 1000),
            HEADER_FIRST_AT: int(self.first_at_s * 1000),
            HEADER_CALLS: self.calls,
            HEADER_DOUBT: self.may_have_happened,
            HEADER_NOT_BEFORE: int(self.not_before_s * 1000),
            HEADER_PAUSE: ceil(self.pause_s * 1000),
            HEADER_REASON: storable(self.reason, REASON_CHARACTERS_MAX),
        }


def attempted_of(
    headers: Mapping[str, Any], now_s: float, *, published_at_s: float | None, is_again: bool
) -> Attempted:
    """The record that a delivery carries. `published_at_s`: when its lane emitted it.

    `is_again`: it was delivered before, or an operator has had it sent once more; an earlier worker may have made a
    call. A value that is missing, or makes no sense, is taken for the worst.
    """
    first_at_s = _seconds(headers.get(HEADER_FIRST_AT))
    asked_at_s = _seconds(headers.get(HEADER_ASKED_AT)) or published_at_s or now_s - LONG_AGO_S
    calls = headers.get(HEADER_CALLS)
    attempted = Attempted(
        asked_at_s=asked_at_s,
        first_at_s=first_at_s or now_s,
        calls=calls if isinstance(calls, int) and calls >= 0 else 0,
        may_have_happened=is_again or bool(headers.get(HEADER_DOUBT)),
        not_before_s=_seconds(headers.get(HEADER_NOT_BEFORE)) or 0.0,
        pause_s=_seconds(headers.get(HEADER_PAUSE)) or UNKNOWN_PAUSE_S,
        reason=str(headers.get(HEADER_REASON, "")),
    )
    attempted.correct(now_s)
    return attempted


def _seconds(milliseconds: object) -> float | None:
    """A header's value, if it is a time."""
    if isinstance(milliseconds, int) and 0 < milliseconds < _TIME_MS_MAX:
        return milliseconds / 1000
    return None
