"""A saga ends whole, or is taken back, or says that a person has to look; whatever its steps answer."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from coordinator.lane.control import ForgetAsked
from coordinator.service.principal import Principal
from coordinator.service.saga import Step, Verdict
from coordinator.service.saga_timeline import SagaStep
from coordinator.stores.lane_tables import DeadLetter, LogEntry
from tests.support.store_contract import NOW
from tests.support.travel import NO, OK, Answer, Travel, id_of, refusing
from tests.support.trips import TRIP, Book, ContinueTrip, NoteTrip, OpenTrip, ResumeTrip, Traveller, Trip


def test_a_saga_whose_steps_are_applied_completes() -> None:
    travel = Travel()
    trip = travel.run(refusing(), OpenTrip())
    assert (trip.status, trip.flight, trip.ended_at, trip.reason_code) == ("completed", "X1", NOW, None)
    assert travel.asked == ["book weather", "book flight", "book car", "book hotel"]
    assert travel.rows(Traveller)[0].trips == 1
    assert travel.reviews == []
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
    assert travel.reviews == [trip]
    assert travel.asked[-1] == "cancel car"


@pytest.mark.parametrize(
    ("answer", "asked", "status"),
    [
        (("rejected", "not_booked"), "cancel car", "compensated"),
        # The same words of another outcome, or of another step, say nothing of that.
        (("failed", "not_booked"), "cancel car", "needs_review"),
        (("rejected", "not_booked"), "cancel flight", "needs_review"),
    ],
)
def test_what_others_took_back_is_undone(answer: Answer, asked: str, status: str) -> None:
    travel = Travel()
    answers = {"book hotel": NO, asked: answer}
    trip = travel.run(lambda each: answers.get(each, OK), OpenTrip())
    assert (trip.status, trip.reason_code) == (status, "sold_out")
    assert travel.asked[-1] == ("cancel flight" if status == "compensated" else asked)


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
    outcome = ContinueTrip(command_id=id_of(999), command_type="agency.book", status="applied")
    assert travel.do(outcome) == []
    assert travel.rows(Trip) == []


LOST: Answer = ("rejected", "lost_ticket")


def stopped_at_a_step() -> Travel:
    """It is not known whether the flight was booked."""
    travel = Travel()
    assert travel.run(refusing("book flight", answer=LOST), OpenTrip()).status == "needs_review"
    travel.asked.clear()
    return travel


def stopped_on_the_way_back() -> Travel:
    """The car could not be taken back."""
    travel = Travel()
    assert travel.run(refusing("book hotel", "cancel car"), OpenTrip()).status == "needs_review"
    travel.asked.clear()
    return travel


def test_a_flow_that_changes_while_a_person_looks_needs_no_other_review() -> None:
    """Each review is an alert."""
    travel = Travel()
    trip = travel.run(refusing("book hotel", "cancel car"), OpenTrip())
    travel.do(NoteTrip(id=trip.id, text="the customer has called"))
    assert [flow.flight for flow in travel.rows(Trip)] == ["the customer has called"]
    assert travel.reviews == [trip]
    emitted, _ = travel.resume("again")
    assert travel.go_on(emitted, refusing("cancel car")).status == "needs_review"
    assert len(travel.reviews) == 2


def test_a_step_that_is_asked_for_again_goes_on_from_there() -> None:
    travel = stopped_at_a_step()
    emitted, status = travel.resume("again")
    assert status == "applied"
    trip = travel.go_on(emitted)
    assert (trip.status, trip.flight, trip.reason_code) == ("completed", "X1", None)
    assert travel.asked == ["book flight", "book car", "book hotel"]


def test_a_step_that_was_done_gives_what_it_returned_and_the_next_is_asked_for() -> None:
    travel = stopped_at_a_step()
    emitted, _ = travel.resume("done", result='"seen"')
    trip = travel.go_on(emitted, refusing())
    assert (trip.status, trip.flight) == ("completed", "seen")
    assert travel.asked == ["book car", "book hotel"]


def test_a_step_that_was_done_is_taken_back_if_a_later_one_is_refused() -> None:
    travel = stopped_at_a_step()
    emitted, _ = travel.resume("done", result='"seen"')
    assert travel.go_on(emitted, refusing("book car")).status == "compensated"
    assert travel.asked == ["book car", "cancel flight"]


def test_a_step_that_was_not_done_takes_back_those_before_it_and_not_itself() -> None:
    travel = stopped_at_a_step()
    emitted, _ = travel.resume("not_done")
    trip = travel.go_on(emitted)
    assert (trip.status, trip.reason_code, travel.asked, trip.ended_at) == ("compensated", "lost_ticket", [], NOW)


def test_what_could_not_be_undone_is_undone_again() -> None:
    travel = stopped_on_the_way_back()
    emitted, _ = travel.resume("again")
    trip = travel.go_on(emitted)
    assert (trip.status, trip.reason_code) == ("compensated", "sold_out")
    assert travel.asked == ["cancel car", "cancel flight"]


def test_what_was_undone_by_hand_leaves_the_rest_to_the_saga() -> None:
    travel = stopped_on_the_way_back()
    emitted, _ = travel.resume("done")
    assert travel.go_on(emitted).status == "compensated"
    assert travel.asked == ["cancel flight"]


def test_a_saga_may_stop_again_and_be_taken_up_again() -> None:
    travel = stopped_on_the_way_back()
    for _ in range(3):
        emitted, _ = travel.resume("again")
        assert travel.go_on(emitted, refusing("cancel car")).status == "needs_review"
    emitted, _ = travel.resume("again")
    assert travel.go_on(emitted).status == "compensated"


def test_the_timeline_shows_who_decided_what_and_in_which_order() -> None:
    travel = stopped_at_a_step()
    emitted, _ = travel.resume("again", reason="called the agency: AL")
    travel.go_on(emitted)
    shown = [(step.name, step.direction, step.status, step.error_message) for step in travel.steps]
    assert shown[1:4] == [
        ("flight", "do", "rejected", "no"),
        ("flight", "resume", "again", "called the agency: AL"),
        ("flight", "do", "applied", None),
    ]
    assert travel.steps[2].command_type == ResumeTrip.type
    assert [step.number for step in travel.steps] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("verdict", "changed", "code"),
    [
        ("again", {"id": 2}, "trip_not_found"),
        ("again", {"step": id_of(999)}, "other_step"),
        ("done", {"result": '"overbooked"'}, "overbooked"),
        ("done", {"result": "null"}, "invalid_result"),
    ],
)
def test_a_verdict_that_does_not_fit_changes_nothing(verdict: Verdict, changed: dict[str, Any], code: str) -> None:
    travel = stopped_at_a_step()
    before = travel.rows(Trip), travel.steps
    assert travel.resume(verdict, **changed) == ([], code)
    assert (travel.rows(Trip), travel.steps) == before


def test_only_the_step_at_which_it_stopped_is_decided_upon() -> None:
    travel = stopped_at_a_step()
    assert travel.resume("again", step=travel.steps[0].command_id) == ([], "other_step")


def test_a_step_on_the_way_back_cannot_be_left_as_it_is() -> None:
    assert stopped_on_the_way_back().resume("not_done") == ([], "impossible_verdict")


def test_a_saga_that_needs_no_review_is_nobody_s_to_decide() -> None:
    travel = Travel()
    waiting = travel.do(OpenTrip())
    assert travel.resume("done") == ([], "not_in_review")
    travel.go_on(waiting)
    assert travel.resume("again") == ([], "not_in_review")


@pytest.mark.parametrize("verdict", ["done", "again", "not_done"])
def test_a_saga_that_waits_in_vain_is_taken_up_and_a_late_outcome_changes_nothing(verdict: Verdict) -> None:
    travel = Travel()
    (lost,) = travel.do(OpenTrip())
    emitted, status = travel.resume(verdict, result='"X1"', even_if_running=True)
    assert status == "applied"
    _, (late,) = travel.answer(lost, OK)
    assert late.error is not None
    assert late.error.code == "unknown_step"
    assert travel.steps[0].status == "given_up"
    assert travel.go_on(emitted).status == ("compensated" if verdict == "not_done" else "completed")
    assert travel.resume("again", even_if_running=True) == ([], "not_in_review")


@pytest.mark.parametrize("refused", ["", "book hotel"])
def test_a_release_with_another_step_before_goes_on_behind_the_one_that_was_asked_for(
    refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    travel = Travel()
    (weather,) = travel.do(OpenTrip())
    (flight,), _ = travel.answer(weather, OK)
    passport: Step[Trip] = Step(name="passport", do=lambda trip: Book(trip=trip.id, what="passport"))
    monkeypatch.setattr(TRIP, "_steps", (passport, *TRIP._steps))
    trip = travel.go_on([flight], refusing(refused))
    ways = ["book flight", "book car", "book hotel"]
    if refused:
        assert (trip.status, trip.flight) == ("compensated", "X1")
        assert travel.asked == [*ways, "cancel car", "cancel flight"]
    else:
        assert (trip.status, trip.flight) == ("completed", "X1")
        assert travel.asked == ways


def test_a_release_without_the_step_that_was_asked_for_does_not_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    travel = Travel()
    (weather,) = travel.do(OpenTrip())
    (flight,), _ = travel.answer(weather, OK)
    monkeypatch.setattr(TRIP, "_steps", (TRIP._steps[0], *TRIP._steps[2:]))
    trip = travel.go_on([flight])
    assert (trip.status, trip.reason_code, trip.flight) == ("needs_review", "unknown_step", "")
    assert "no step `flight`" in str(trip.reason)
    assert travel.resume("again") == ([], "other_step")
    monkeypatch.undo()
    emitted, status = travel.resume("done", result='"X7"')
    assert status == "applied"
    assert travel.go_on(emitted).flight == "X7"


def test_an_order_that_comes_twice_is_carried_out_once() -> None:
    travel = stopped_at_a_step()
    (entry,), _ = travel.resume("again")
    assert travel.resume("again") == ([], "not_in_review")
    assert travel.go_on([entry]).status == "completed"


@pytest.mark.parametrize(
    ("returned", "expected"),
    [(lambda work, trip: trip.replace(flight="noted"), "noted"), (lambda work, trip: None, "X1")],
)
def test_the_row_is_as_finish_returns_it(
    returned: Callable[[Any, Trip], Trip | None], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TRIP, "_finish", returned)
    travel = Travel()
    trip = travel.run(refusing(), OpenTrip())
    assert (trip.status, trip.flight, trip.position) == ("completed", expected, 4)


@pytest.mark.parametrize(
    "finish",
    [
        lambda work, trip: work.save(trip.replace(flight="lost")),
        lambda work, trip: (work.save(trip.replace(flight="lost")), None)[1],
        lambda work, trip: trip.replace(id=trip.id + 1),
        lambda work, trip: work.get(Traveller, 1),
    ],
    ids=["saves it", "saves it without a word", "another one", "another class"],
)
def test_a_finish_that_saves_the_row_itself_fails_and_is_named(
    finish: Callable[[Any, Trip], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TRIP, "_finish", finish)
    travel = Travel()
    waiting = travel.do(OpenTrip())
    while waiting:
        (entry,) = waiting
        waiting, outcomes = travel.answer(entry, OK)
    (trip,) = travel.rows(Trip)
    assert (outcomes[0].status, trip.status) == ("failed", "running")
    assert any(
        "`finish` of saga trip has saved the saga's own row" in letter.reason for letter in travel.rows(DeadLetter)
    )


@pytest.mark.parametrize("function", ["do", "took", "undo", "finish"])
def test_a_continuation_that_met_a_defect_goes_on_when_a_mended_release_replays_it(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The saga stays as it is, visibly running, with its continuation a dead letter; nothing is half done."""
    travel = Travel()
    answers = refusing("book hotel") if function == "undo" else refusing()
    at = {"do": "book flight", "took": "book flight", "undo": "book hotel", "finish": "book hotel"}[function]
    waiting = travel.do(OpenTrip())
    while True:
        (entry,) = waiting
        asked = f"{entry.type.partition('.')[2]} {msgspec.json.decode(entry.arguments)['what']}"
        if asked == at:
            break
        waiting, _ = travel.answer(entry, answers(asked))

    def defect(*_: object) -> None:
        raise RuntimeError("a defect")

    declared = TRIP._steps
    mended = TRIP._finish
    broken = tuple(
        msgspec.structs.replace(step, **({} if function == "finish" else {function: defect})) for step in declared
    )
    monkeypatch.setattr(TRIP, "_steps", broken)
    monkeypatch.setattr(TRIP, "_finish", defect if function == "finish" else mended)
    before = travel.rows(Trip), travel.steps
    _, outcomes = travel.answer(entry, answers(at))
    assert (outcomes[0].status, travel.rows(Trip), travel.steps) == ("failed", *before)
    monkeypatch.setattr(TRIP, "_steps", declared)
    monkeypatch.setattr(TRIP, "_finish", mended)
    emitted, outcomes = travel.answer(entry, answers(at), replayed_as=id_of(777))
    assert outcomes[0].status == "applied"
    expected = "compensated" if function == "undo" else "completed"
    assert travel.go_on(emitted, answers).status == expected


def test_what_is_forgotten_leaves_the_steps_that_it_led_to() -> None:
    """No command of a service changes them: they would quote the person for good."""
    travel, ada = Travel(), Principal(subject="ada")
    (weather,) = travel.do(OpenTrip(), ada)
    (flight,), _ = travel.answer(weather, OK)
    travel.answer(flight, ("rejected", "lost_ticket"))
    travel.resume("not_done", reason="Ada has said so")
    assert [step.error_message for step in travel.steps[:3]] == [None, "no", "Ada has said so"]
    commands = [entry.command_id for entry in travel.rows(LogEntry)]
    for name, left in (("eve", "no"), ("ada", None)):
        travel.do(ForgetAsked(commands=commands, actor=name), origin="system")
        # The verdict is another's: it goes with what is about the person's row.
        assert [step.error_message for step in travel.steps[1:3]] == [left, "Ada has said so"]
    assert [step.error_code for step in travel.steps[:2]] == [None, "lost_ticket"]
