"""Who acts next: by chance, one of the actors that are awake.

An actor that has nothing to do sleeps, so that nobody is asked in vain, until its time comes or until somebody gives it
something to do and wakes it. To wake one for nothing is harmless; to forget it is what `overslept` is there to show.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

NEVER = float("inf")


class Act(Enum):
    """What came of asking an actor."""

    DONE = 1
    PASSED = 2
    """It could have acted, and chance had it wait: it is asked again."""
    IDLE = 3
    """It has nothing to do before its `wake` time, unless somebody wakes it."""


DONE, PASSED, IDLE = Act.DONE, Act.PASSED, Act.IDLE


class Actor:
    """One thread of somebody, who sets both: `step` acts or says why not, `wake` is when there will be something to do,
    unless somebody else brings it."""

    __slots__ = ("due_at", "is_awake", "step", "wake")
    step: Callable[[], Act]
    wake: Callable[[], float]

    def __init__(self) -> None:
        self.is_awake = True
        self.due_at = NEVER


class Schedule:
    """All actors of a run."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._actors: list[Actor] = []
        self._awake: list[Actor] = []
        self._due_at = NEVER

    def add(self) -> Actor:
        """A new actor, awake, who must be told how to act before the run begins."""
        actor = Actor()
        self._actors.append(actor)
        self._awake.append(actor)
        return actor

    def wake(self, actor: Actor) -> None:
        """It may have something to do now."""
        if not actor.is_awake:
            actor.is_awake = True
            self._awake.append(actor)

    def wake_all(self) -> None:
        for actor in self._actors:
            self.wake(actor)

    def act(self, now: float) -> bool:
        """One actor acts, whichever; False: none does."""
        if now >= self._due_at:
            self._wake_due(now)
        chance, awake = self._chance, self._awake
        left = len(awake)
        while left:
            place = int(chance() * left)
            actor = awake[place]
            act = actor.step()
            if act is DONE:
                return True
            # Those that were asked already stand behind the others.
            left -= 1
            awake[place] = awake[left]
            if act is PASSED:
                awake[left] = actor
                continue
            awake[left] = awake[-1]
            awake.pop()
            actor.is_awake = False
            actor.due_at = actor.wake()
            self._due_at = min(self._due_at, actor.due_at)
        return False

    def next_at(self) -> float:
        """When somebody has something to do, if nobody has now."""
        return min([actor.wake() if actor.is_awake else actor.due_at for actor in self._actors])

    def overslept(self, now: float) -> list[Actor]:
        """Those that act though they are asleep and their time has not come: somebody forgot to wake them."""
        asleep = [actor for actor in self._actors if not actor.is_awake and actor.due_at > now]
        return [actor for actor in asleep if actor.step() is not IDLE]

    def _wake_due(self, now: float) -> None:
        self._due_at = NEVER
        for actor in self._actors:
            if actor.is_awake:
                continue
            if actor.due_at <= now:
                self.wake(actor)
            elif actor.due_at < self._due_at:
                self._due_at = actor.due_at
