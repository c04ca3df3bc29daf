"""A lane of trips whose steps are answered as a test says."""

import itertools
from collections.abc import Callable
from typing import Any

import msgspec

from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import LaneSettings
from coordinator.service.commands import Command
from coordinator.service.continuation import Deferred, continued
from coordinator.service.options import Options, Origin
from coordinator.service.outcome import Outcome, OutcomeError, Status
from coordinator.service.principal import Principal
from coordinator.service.rows import R, Row
from coordinator.service.saga import Verdict
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.service import Service
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from tests.support.store_contract import NOW
from tests.support.trips import TRIPS, ContinueTrip, OpenTrip, ResumeTrip, Trip, Welcome

Answer = tuple[Status, str | None]
"""What becomes of a step: a status, and the code of an error."""

OK: Answer = ("applied", None)
NO: Answer = ("rejected", "sold_out")


class Travel:
    """The lane of trips, and an agency that answers as it is told."""

    def __init__(self, *, is_somebody_there: bool = True, service: Service = TRIPS) -> None:
        self.now = NOW
        self._store = MemoryStore(MemoryDatabase())
        self._lane = Lane(service, self._store, lambda: self.now, "test", LaneSettings(), lambda: 0.0)
        self._numbers = itertools.count(1)
        self.asked: list[str] = []
        self.reviews: list[Row] = []
        """The flows of which settlements say that a person has to look."""
        if is_somebody_there:
            self.do(Welcome())

    def do(self, command: Command, actor: Principal | None = None, origin: Origin = "public") -> list[OutboxEntry]:
        return self._settle(
            CommandMessage(
                command_id=id_of(next(self._numbers)),
                type=command.type,
                arguments=command.arguments(),
                origin=origin,
                actor=actor,
            )
        ).emitted

    def answer(
        self, entry: OutboxEntry, answer: Answer, result: str = "X1", replayed_as: str | None = None
    ) -> tuple[list[OutboxEntry], list[Outcome]]:
        """Bring the outcome of a step to the trip; what it emits then."""
        assert entry.continuation == ContinueTrip.type
        status, code = answer
        emission = continued(
            Deferred(
                command_id=entry.command_id,
                type=entry.type,
                continuation=ContinueTrip.type,
                actor=Options.decode(entry.options).actor,
            ),
            status,
            msgspec.json.encode(result) if status == "applied" else None,
            None if code is None else OutcomeError(code=code, message="no"),
        )
        settlement = self._settle(
            CommandMessage(
                command_id=replayed_as or emission.command_id,
                type=emission.type,
                arguments=emission.arguments,
                origin="system",
                actor=emission.options.actor,
            )
        )
        return settlement.emitted, settlement.outcomes

    def resume(self, verdict: Verdict, *, result: str = "null", **changed: Any) -> tuple[list[OutboxEntry], str]:
        """As an operator does, of the last step; what is emitted, and the status, or the code of the refusal."""
        order = {"id": 1, "step": self.steps[-1].command_id, "verdict": verdict, "reason": "seen", **changed}
        command = ResumeTrip(**order, result=msgspec.Raw(result.encode()))
        settlement = self._settle(
            CommandMessage(
                command_id=id_of(next(self._numbers)),
                type=command.type,
                arguments=command.arguments(),
                origin="system",
            )
        )
        (outcome,) = settlement.outcomes
        return settlement.emitted, outcome.status if outcome.error is None else outcome.error.code

    @property
    def steps(self) -> list[SagaStep]:
        return sorted(self.rows(SagaStep), key=lambda step: step.number)

    def go_on(
        self, waiting: list[OutboxEntry], answers: Callable[[str], Answer] = lambda _: OK, result: str = "X1"
    ) -> Trip:
        """From what is emitted to the end."""
        while waiting:
            (entry,) = waiting
            asked = f"{entry.type.partition('.')[2]} {msgspec.json.decode(entry.arguments)['what']}"
            self.asked.append(asked)
            waiting, _ = self.answer(entry, answers(asked), result)
        (trip,) = self.rows(Trip)
        return trip

    def run(self, answers: Callable[[str], Answer], command: OpenTrip, result: str = "X1") -> Trip:
        """A whole trip; `answers` tells what becomes of `book flight`, `cancel car` and so on."""
        return self.go_on(self.do(command), answers, result)

    def rows(self, model: type[R]) -> list[R]:
        transaction = self._store.begin()
        found = transaction.scan(model, 1000)
        transaction.rollback()
        return found

    def _settle(self, message: CommandMessage) -> Settlement:
        decision = self._lane.apply([Delivery(tag=1, commands=(message,), reply_to="q")], 0)
        assert isinstance(decision, Settlement), decision
        self.reviews += decision.reviews
        return decision


def id_of(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012d}"


def refusing(*refused: str, answer: Answer = NO) -> Callable[[str], Answer]:
    return lambda asked: answer if asked in refused else OK
