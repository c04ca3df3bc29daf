"""Deliberate bugs in forgetting: in what goes, whose it is, and what stays; part of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from coordinator.lane import forgetting as forgetting_module
from coordinator.lane import recording as recording_module
from coordinator.lane.forgetting import Forgetting
from tests.simulation.mutant import Mutant, rewritten

LETTERS_SEEDS_MAX: Final = 2000
"""Few worlds forget somebody of whom there is a dead letter."""


def mutants() -> Iterator[Mutant]:
    yield rewritten(
        "forgets-the-result-not",
        "an entry that is emptied keeps its result",
        forgetting_module,
        "forgotten_entry",
        "result=None",
        "result=entry.result",
    )
    yield rewritten(
        "forgets-no-letters",
        "dead letters keep what they have",
        Forgetting,
        "_empty_letters",
        "if letter is not None:",
        "if letter is None:",
        seeds_max=LETTERS_SEEDS_MAX,
    )
    yield rewritten(
        "forgets-the-arguments-of-letters-not",
        "a dead letter that is emptied keeps its arguments",
        forgetting_module,
        "_emptied",
        'arguments=b""',
        "arguments=letter.arguments",
        seeds_max=LETTERS_SEEDS_MAX,
    )
    yield rewritten(
        "forgets-only-one-step",
        "an order ends with its first step",
        Forgetting,
        "_step",
        "if not digests:",
        "if digests or not digests:",
    )
    yield rewritten(
        "forgets-others-too",
        "what is behind somebody in the index is taken for his",
        Forgetting,
        "_page",
        'if row.id.startswith(f"{digest}:") and',
        "if",
    )
    yield rewritten(
        "forgets-what-came-later",
        "what was settled after the order is emptied as well",
        Forgetting,
        "_step",
        "up_to = step.up_to or self._place_of(step.order)",
        "up_to = step.up_to",
    )
    yield rewritten(
        "forgets-the-failed-not",
        "nobody notes whose a command was that was not applied",
        recording_module,
        "_note_subjects",
        "basis.subjects.of_unapplied(work, request)",
        "()",
    )
    yield rewritten(
        "forgets-who-asked-always",
        "an order takes out who asked, whoever that was",
        forgetting_module,
        "forgotten_entry",
        "actor=None if without_actor else entry.actor",
        "actor=None",
    )
