"""Deliberate bugs in how effects are carried out; part of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.effects.attempts import EffectResult
from coordinator.effects.worker import EffectWorker
from coordinator.transports import effect_bringing as bringing_records_module
from coordinator.transports.rabbitmq.effects import bringing as bringing_module
from coordinator.transports.rabbitmq.effects import reading as reading_module
from tests.simulation import worker as worker_module
from tests.simulation.mutant import RARE_SEEDS_MAX, Mutant, rewritten
from tests.simulation.patching import Patches


def _again_without_doubt(patches: Patches) -> None:
    patches.rewrite(reading_module, "known_of", "is_again=is_again", "is_again=False")
    patches.replace(worker_module, "known_of", reading_module.known_of)


def _put_back_without_record(patches: Patches) -> None:
    without = "{name: each for name, each in headers.items() if name not in attempted.headers()}"
    patches.rewrite(bringing_module, "_carrying", "(message, headers,", f"(message, {without},")
    patches.replace(worker_module, "_carrying", bringing_module._carrying)


def mutants() -> Iterator[Mutant]:
    yield rewritten(
        "guess-in-the-place-of-a-fact",
        "a copy that is given up keeps the provider's answer from the lane",
        EffectResult,
        "command_id",
        "_FACT_POSITION if self.is_fact else guess",
        "_FACT_POSITION",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "denial-in-the-place-of-a-doubt",
        "a copy that denies keeps from the lane that another one may have charged",
        EffectResult,
        "command_id",
        "_DOUBT_POSITION if self.is_doubt else _DENIAL_POSITION",
        "_DENIAL_POSITION",
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "effect-acknowledged-at-once",
        "a worker that dies takes the effects with it that it was at",
        EffectWorker,
        "take",
        "under_way = self._known.get(name)",
        "under_way = self._known.get(name)\n    self._transport.acknowledge([delivery])",
        RARE_SEEDS_MAX,
    )
    yield Mutant(
        "delivered-again-without-doubt",
        "a call that a dead worker may have made is told not to have been made",
        _again_without_doubt,
        RARE_SEEDS_MAX,
    )
    yield rewritten(
        "put-back-without-its-emitter",
        "copies of an effect, of which one was put back, have results with two ids",
        bringing_records_module,
        "headers_of_carrier",
        "if message.result_of is not None:",
        "if False:",
        RARE_SEEDS_MAX,
    )
    yield Mutant(
        "put-back-without-its-record",
        "a worker that takes up what another has put back forgets the doubt in it",
        _put_back_without_record,
        # Workers read ahead, so most of what they put back has no doubt in it.
        3 * RARE_SEEDS_MAX,
    )
