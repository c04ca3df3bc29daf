"""Whether Redis still has what it had confirmed: the runs of its counters say so.

A run is one process of Redis, from its start to its end. If Redis comes back with an older file, or a replica is
promoted that had not got the tail, its next run begins with a number that was given out before. So whoever remembers a
number, and the run in which it was given out, sees whether that run ended below it.

A lane's database remembers the last one that it has settled. So what this cannot see are entries behind that one of
which no process knows any more, since all that had added or read them have ended, too.
"""

from typing import Final

from msgspec import Struct

from coordinator.transports.redis.scripts import NUMBER_MAX, RUNS_MAX

RUN_CHARACTERS: Final = 12
"""Of the 40 hexadecimal digits of a run: so many tell it from the few others that a counter has."""


class RunPlace(Struct, frozen=True):
    """A number, and the run of Redis in which it was given out, or how its name begins."""

    run: str
    number: int

    @property
    def text(self) -> str:
        """As the log of a lane has it."""
        return f"{self.run[:RUN_CHARACTERS]}:{self.number}"


class Loss(Struct, frozen=True):
    """The numbers from `first` to `last` are gone: run `began` begins with `first`; "" is a loss during a run."""

    began: str
    first: int
    last: int


class RunsCounted(Struct, frozen=True):
    """What a counter says: the last number, and of each run its first number, in their order."""

    last: int
    runs: tuple[tuple[str, int], ...]

    def lost(self, place: RunPlace) -> Loss | None:
        """What is gone of what was there with this place; None: nothing is, or that was too long ago."""
        following = self._following(place)
        return None if following is None or following[1] > place.number else Loss(*following, last=place.number)

    def _following(self, place: RunPlace) -> tuple[str, int] | None:
        """The run and the number after the last one that is left of what was there with this place."""
        during_a_run = ("", self.last + 1)
        for at, (name, _) in enumerate(self.runs):
            if name.startswith(place.run):
                return self.runs[at + 1] if at + 1 < len(self.runs) else during_a_run
        if len(self.runs) >= RUNS_MAX:
            # It may have been forgotten among the others.
            return None
        # Made anew, or of a time before that run. Another run began where what is left of then ends.
        if not self.runs:
            return during_a_run
        return max((each for each in self.runs if each[1] <= place.number), key=lambda each: each[1], default=None)


def place_in(text: str | None) -> RunPlace | None:
    """The place that a text says; None: it says none."""
    run, _, number = (text or "").partition(":")
    return RunPlace(run, int(number)) if run and number.isascii() and number.isdecimal() else None


def counted_of(last: int | bytes, runs: bytes) -> RunsCounted:
    """From the answer of `GREET`. Raises ValueError."""
    found = []
    for each in runs.decode().split():
        name, _, first = each.rpartition("=")
        found.append((name, min(int(first), NUMBER_MAX)))
    return RunsCounted(int(last), tuple(found))
