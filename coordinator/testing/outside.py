"""The other side of a service's effects, in the tests of its handlers: answers are scripted, calls are noted."""

from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypeAlias

import msgspec

from coordinator.service.commands import Command
from coordinator.service.outside_calls import Call, E, Effect, EffectRetry
from coordinator.stores.lane_tables import OutboxEntry

CALLS_MAX: Final = 1000
"""So many calls without an answer are taken for endless ones."""
Answer: TypeAlias = Command | EffectRetry | Callable[[E, Call], Command | EffectRetry]
"""The command with the result, an EffectRetry where no answer came, or a function that makes either."""


class Outside:
    """Answers the effects that a lane under test has emitted. `calls` has every call, in order."""

    def __init__(self) -> None:
        self.calls: list[Effect] = []
        self._known: dict[str, type[Effect]] = {}
        self._answers: dict[str, deque[Answer[Any]]] = {}
        self._repeated: set[str] = set()

    def answers(self, effect: type[E], *answers: Answer[E]) -> None:
        """Answer the calls of this type so, one after the other; the last answer is that of all later calls too.

        After an EffectRetry the call is made again, with the same key: at once, or `after_s` seconds later, once the
        test has let them pass. Raises ValueError without an answer, and if the last is an EffectRetry without
        `after_s`, since such a call does not end; TypeError for what is no class of effects.
        """
        if not (isinstance(effect, type) and issubclass(effect, Effect)):
            raise TypeError(f"answers takes a class of effects, then its answers, and was given {effect!r:.100}")
        if not answers or (isinstance(answers[-1], EffectRetry) and not _pause(answers[-1])):
            raise ValueError(f"{effect.type}: its last answer must be a command, or make one")
        self._known[effect.type] = effect
        self._answers[effect.type] = deque(answers)

    def call(self, entry: OutboxEntry) -> Command | timedelta:
        """The command with the result of an emitted effect, or after which time it is to be called again.

        Raises LookupError if no answer was scripted.
        """
        answers = self._answers.get(entry.type)
        if answers is None:
            lane = entry.type.partition(".")[0]
            text = f"{entry.type} was emitted, and has no answer: give one to its class, lane.outside.answers(CLASS, …)"
            raise LookupError(f"{text}, where lane is that of {lane}")
        effect = msgspec.json.decode(entry.arguments, type=self._known[entry.type])
        is_repeated = entry.command_id in self._repeated
        call = Call(key=entry.command_id, asked_at=entry.created_at, is_repeated=is_repeated)
        for _ in range(CALLS_MAX):
            self.calls.append(effect)
            answer = answers.popleft() if len(answers) > 1 else answers[0]
            try:
                return _made(answer, effect, call)
            except EffectRetry as error:
                self._repeated.add(entry.command_id)
                if pause := _pause(error):
                    return pause
                call = msgspec.structs.replace(call, is_repeated=True)
        raise RuntimeError(f"{entry.type} was called {CALLS_MAX} times, and got no answer")


def _pause(error: EffectRetry) -> timedelta:
    return timedelta(seconds=max(0.0, error.after_s or 0.0))


def _made(answer: Answer[Any], effect: Effect, call: Call) -> Command:
    made = answer(effect, call) if callable(answer) else answer
    if isinstance(made, EffectRetry):
        raise made
    if not isinstance(made, Command):
        raise TypeError(f"{effect.type}: an answer is a command, the result, or an EffectRetry, not {made!r:.100}")
    return made
