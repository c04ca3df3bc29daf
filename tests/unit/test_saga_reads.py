"""The flows of a batch are read in two round trips, however many they are."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from coordinator.lane.delivery import Delivery, Settlement
from coordinator.protocol.wire import CommandMessage
from coordinator.service.continuation import Deferred, continued
from coordinator.service.saga_timeline import SagaStep
from coordinator.stores.memory import MemoryTransaction
from tests.support.travel import Travel
from tests.support.trips import ContinueTrip, OpenTrip, Trip

FLOWS = 20


def test_a_batch_reads_the_flows_of_its_answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    travel = Travel()
    answers = []
    for _ in range(FLOWS):
        (first,) = travel.do(OpenTrip())
        deferred = Deferred(command_id=first.command_id, type=first.type, continuation=ContinueTrip.type)
        outcome = continued(deferred, "applied", msgspec.json.encode("X1"), None)
        answers.append(
            CommandMessage(
                command_id=outcome.command_id, type=outcome.type, arguments=outcome.arguments, origin="system"
            )
        )
    read: list[list[Any]] = []

    def load(self: MemoryTransaction, reads: Sequence[Any]) -> list[list[Any]]:
        read.append([each.model for each in reads])
        return loaded(self, reads)

    loaded = MemoryTransaction.load
    monkeypatch.setattr(MemoryTransaction, "load", load)
    deliveries = [Delivery(tag=tag, commands=(answer,)) for tag, answer in enumerate(answers, 1)]
    settled = travel._lane.apply(deliveries, 0)
    assert isinstance(settled, Settlement), settled
    assert [entry.type for entry in settled.emitted] == ["agency.book"] * FLOWS
    steps, flows = read
    assert steps == [SagaStep]
    assert sorted(model.table for model in flows) == [SagaStep.table] * FLOWS + [Trip.table]
