"""A saga ends whole, or is taken back, or says that a person has to look; whatever its steps answer."""

import itertools
from collections.abc import Callable

import msgspec
import pytest

from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from shared.commands import Command
from shared.continuation import Deferred, continued
from shared.lane_tables import OutboxEntry
from shared.messaging.outcome import Outcome, OutcomeError
from shared.messaging.wire import CommandMessage
from shared.saga import SagaStep
from shared.settings import LaneSettings
from tests.support.store_contract import NOW
from tests.support.trips import TRIPS, ContinueTrip, OpenTrip, Traveller, Trip, Welcome

Answer = tuple[str, str | None]
"""What becomes of a step: a status, and the code of an error."""

OK: Answer = ("applied", None)
NO: Answer = ("rejected", "sold_out")


class Travel:
    """The lane of trips, and an agency that answers as it is told."""

    def __init__(self, *, is_somebody_there: bool = True) -> None:
        self._store = MemoryStore(MemoryDatabase())
        self._lane = Lane(TRIPS, self._store, lambda: NOW, "test", LaneSettings(), lambda: 0.0)
        self._numbers = itertools.count(1)
        self.asked: list[str] = []
        if is_somebody_there:
            self.do(Welcome())

    def do(self, command: Command) -> list[OutboxEntry]:
        number = next(self._numbers)
        return self._settle(
            CommandMessage(command_id=_id(number), type=command.type, arguments=command.arguments())
        ).emitted

    def answer(self, entry: OutboxEntry, answer: Answer, result: str = "X1") -> tuple[list[OutboxEntry], list[Outcome]]:
        """Bring the outcome of a step to the trip; what it emits then."""
        assert entry.continuation == ContinueTrip.type
        status, code = answer
        emission = continued(
            Deferred(command_id=entry.command_id, type=entry.type, continuation=ContinueTrip.type),
            status,  # type: ignore[arg-type]
            msgspec.json.encode(result) if status == "applied" else None,
            None if code is None else OutcomeError(code=code, message="no"),
        )
        settlement = self._settle(
            CommandMessage(
                command_id=emission.command_id, type=emission.type, arguments=emission.arguments, origin="system"
            )
        )
        return settlement.emitted, settlement.outcomes

    def run(self, answers: Callable[[str], Answer], command: OpenTrip, result: str = "X1") -> Trip:
        """A whole trip; `answers` tells what becomes of `book flight`, `cancel car` and so on."""
        waiting = self.do(command)
        while waiting:
            (entry,) = waiting
            asked = f"{entry.type.partition('.')[2]} {msgspec.json.decode(entry.arguments)['what']}"
            self.asked.append(asked)
            waiting, _ = self.answer(entry, answers(asked), result)
        (trip,) = self.rows(Trip)
        return trip

    def rows(self, model):
        transaction = self._store.begin()
        found = transaction.scan(model, 1000)
        transaction.rollback()
        return found

    def _settle(self, message: CommandMessage) -> Settlement:
        decision = self._lane.apply([Delivery(tag=1, commands=(message,), reply_to="q")], 0)
        assert isinstance(decision, Settlement), decision
        return decision


def _id(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012d}"


def refusing(*refused: str, answer: Answer = NO) -> Callable[[str], Answer]:
    return lambda asked: answer if asked in refused else OK


def test_a_saga_whose_steps_are_applied_completes() -> None:
    travel = Travel()
    trip = travel.run(refusing(), OpenTrip())
    assert (trip.status, trip.flight, trip.ended_at, trip.reason_code) == ("completed", "X1", NOW, None)
    assert travel.asked == ["book weather", "book flight", "book car", "book hotel"]
    assert travel.rows(Traveller)[0].trips == 1
    steps = sorted(travel.rows(SagaStep), key=lambda step: step.number)
    assert [(step.name, step.direction, step.status) for step in steps] == [
        (name, "do", "applied") for name in ("weather", "flight", "car", "hotel")
    ]


@pytest.mark.parametrize(
    ("refused", "asked"),
    [
        ("book weather", ["book weather"]),
        ("book flight", ["book weather", "book flight"]),
        ("book car", ["book weather", "book flight", "book car", "cancel flight"]),
        (
            "book hotel",
            ["book weather", "book flight", "book car", "book hotel", "cancel car", "cancel flight"],
        ),
    ],
)
@pytest.mark.parametrize("answer", [NO, ("failed", "handler_error"), ("expired", "deadline_expired")])
def test_what_was_done_is_undone_the_last_first(refused: str, asked: list[str], answer: Answer) -> None:
    travel = Travel()
    trip = travel.run(refusing(refused, answer=answer), OpenTrip())
    assert (trip.status, trip.reason_code, trip.position) == ("compensated", answer[1], 0)
    assert travel.asked == asked
    assert travel.rows(Traveller)[0].trips == 0


def test_a_step_with_nothing_to_do_is_left_out_both_ways() -> None:
    travel = Travel()
    assert travel.run(refusing("book hotel"), OpenTrip(with_car=False)).status == "compensated"
    assert travel.asked == ["book weather", "book flight", "book hotel", "cancel flight"]


def test_what_the_owner_s_database_refuses_in_the_end_is_taken_back() -> None:
    travel = Travel(is_somebody_there=False)
    trip = travel.run(refusing(), OpenTrip())
    assert (trip.status, trip.reason_code) == ("compensated", "traveller_gone")
    assert travel.asked[4:] == ["cancel hotel", "cancel car", "cancel flight"]


def test_an_answer_of_no_use_is_taken_back_with_its_own_step() -> None:
    travel = Travel()
    trip = travel.run(refusing(), OpenTrip(), result="overbooked")
    assert (trip.status, trip.reason_code) == ("compensated", "overbooked")
    assert travel.asked == ["book weather", "book flight", "cancel flight"]


def test_what_cannot_be_undone_is_for_a_person_and_keeps_the_first_reason() -> None:
    travel = Travel()
    trip = travel.run(refusing("book hotel", "cancel car"), OpenTrip())
    assert (trip.status, trip.reason_code) == ("needs_review", "sold_out")
    assert "`car` could not be undone" in (trip.reason or "")
    assert travel.asked[-1] == "cancel car"


def test_a_step_of_which_nobody_knows_whether_it_was_done_is_for_a_person() -> None:
    travel = Travel()
    trip = travel.run(refusing("book flight", answer=("rejected", "lost_ticket")), OpenTrip())
    assert (trip.status, trip.reason_code, travel.asked[-1]) == ("needs_review", "lost_ticket", "book flight")


def test_an_outcome_that_comes_twice_goes_on_once() -> None:
    travel = Travel()
    (entry,) = travel.do(OpenTrip())
    first, _ = travel.answer(entry, OK)
    again, outcomes = travel.answer(entry, OK)
    assert (len(first), again, outcomes[0].replayed) == (1, [], True)


def test_an_outcome_that_contradicts_the_first_changes_nothing() -> None:
    travel = Travel()
    (entry,) = travel.do(OpenTrip())
    travel.answer(entry, OK)
    emitted, outcomes = travel.answer(entry, NO)
    assert emitted == []
    assert outcomes[0].error is not None
    assert outcomes[0].error.code == "idempotency_mismatch"


def test_an_outcome_that_nobody_waits_for_is_refused() -> None:
    travel = Travel()
    outcome = ContinueTrip(command_id=_id(999), command_type="agency.book", status="applied")
    assert travel.do(outcome) == []
    assert travel.rows(Trip) == []
