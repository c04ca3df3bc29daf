"""A flow goes on in releases with other steps: it does no step twice, and undoes what it has done, or says what not."""

import random
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.ids import new_command_id
from coordinator.service.saga import Saga, Step, Verdict
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.sqlite.store import SqliteStore
from tests.support.travel import NO, OK, Travel, refusing
from tests.support.trips import TRIP, TRIPS, Book, Cancel, ContinueTrip, OpenTrip, Trip

NAMES = ("train", "boat", "car", "hotel", "guide")


def step(name: str) -> Step[Trip]:
    return Step(
        name=name, do=lambda trip: Book(trip=trip.id, what=name), undo=lambda trip: Cancel(trip=trip.id, what=name)
    )


def release(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(TRIP, "_steps", tuple(map(step, names)))


def under_way(monkeypatch: pytest.MonkeyPatch) -> tuple[Travel, list[OutboxEntry]]:
    """A flow has done `train` and waits for `boat`."""
    release(monkeypatch, "train", "boat")
    travel = Travel()
    (train,) = travel.do(OpenTrip())
    waiting, _ = travel.answer(train, OK)
    return travel, list(waiting)


def test_a_step_that_was_done_and_is_gone_is_for_a_person_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    travel, waiting = under_way(monkeypatch)
    release(monkeypatch, "boat")
    trip = travel.go_on(waiting, lambda _: NO)
    assert (trip.status, trip.reason_code) == ("needs_review", "sold_out")
    assert "`train` could not be undone" in str(trip.reason)
    last = travel.steps[-1]
    assert (last.name, last.direction, last.status, last.error_code) == ("train", "undo", "failed", "unknown_step")
    assert travel.resume("again") == ([], "other_step")
    assert travel.resume("not_done") == ([], "other_step")


def test_a_step_that_is_gone_may_be_undone_by_hand_or_by_a_release_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for verdict in ("done", "again"):
        travel, waiting = under_way(monkeypatch)
        release(monkeypatch, "boat")
        travel.go_on(waiting, lambda _: NO)
        if verdict == "again":
            release(monkeypatch, "boat", "train")
        emitted, status = travel.resume(verdict)
        assert (status, len(emitted)) == ("applied", verdict == "again")
        assert travel.go_on(emitted).status == "compensated"


def test_a_step_that_no_new_flow_does_is_undone_where_it_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    travel, waiting = under_way(monkeypatch)
    kept: Step[Trip] = Step(name="train", do=lambda _: None, undo=step("train").undo)
    monkeypatch.setattr(TRIP, "_steps", (kept, step("boat")))
    assert travel.go_on(waiting, lambda asked: NO if asked == "book boat" else OK).status == "compensated"
    assert travel.asked == ["book boat", "cancel train"]


def test_a_step_that_was_done_is_not_done_again_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    travel, waiting = under_way(monkeypatch)
    release(monkeypatch, "boat", "train")
    assert travel.go_on(waiting).status == "completed"
    assert travel.asked == ["book boat"]


def test_the_answer_of_an_undoing_step_that_is_gone_lets_the_rest_be_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    release(monkeypatch, "train", "boat", "car")
    travel = Travel()
    waiting = travel.do(OpenTrip())
    for answer in (OK, OK, NO):
        waiting, _ = travel.answer(waiting[0], answer)
    release(monkeypatch, "train", "car")
    assert travel.go_on(waiting).status == "compensated"
    assert travel.asked == ["cancel boat", "cancel train"]


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="saga trip: two steps are named 'boat': flows find their places by it"):
        Saga("trip", Trip, ContinueTrip, (step("boat"), step("car"), step("boat")), lambda _work, _row: None)


def test_a_table_of_before_that_lacks_the_index_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "trips.db"
    migrate(TRIPS, DatabaseSettings(database_url=f"sqlite:///{file}"))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP INDEX saga_steps_saga_saga_id_index")
    with closing(SqliteStore(str(file), TRIPS)) as store, capture_logs() as lines:
        store.check(TRIPS.models)
    (line,) = lines
    assert (line["event"], line["table"]) == ("index_missing", "saga_steps")
    assert line["what_to_do"].startswith("CREATE INDEX")


def _open_again(work: UnitOfWork, _: OpenTrip) -> Trip:
    """As a service does that tries the same order again."""
    if (before := work.get(Trip, 1)) is not None:
        work.remove(before)
    return TRIP.begin(work, Trip(id=1))


def test_a_flow_whose_id_another_one_had_does_all_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    release(monkeypatch, "train", "boat")
    others = (each for each in TRIPS.handlers if each.command is not OpenTrip)
    travel = Travel(service=Service("trips", models=TRIPS.models, handlers=(Handler(OpenTrip, _open_again), *others)))
    for refused in ("nothing", "book boat", "nothing"):
        travel.now += timedelta(minutes=1)
        trip = travel.go_on(travel.do(OpenTrip()), refusing(refused))
        assert trip.status == ("completed" if refused == "nothing" else "compensated")
    booked = ["book train", "book boat"]
    assert travel.asked == [*booked, *booked, "cancel train", *booked]


def test_no_flow_goes_on_by_the_answer_to_an_earlier_one_of_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service has removed the earlier one's row while it waited."""
    release(monkeypatch, "train", "boat")
    others = (each for each in TRIPS.handlers if each.command is not OpenTrip)
    travel = Travel(service=Service("trips", models=TRIPS.models, handlers=(Handler(OpenTrip, _open_again), *others)))
    (former,) = travel.do(OpenTrip())
    (ahead,), _ = travel.answer(former, OK)
    travel.now += timedelta(minutes=1)
    (first,) = travel.do(OpenTrip())
    for late in (ahead, former):
        emitted, (outcome,) = travel.answer(late, OK, replayed_as=new_command_id())
        assert (emitted, outcome.status) == ([], "rejected")
    assert travel.go_on([first]).status == "completed"
    assert travel.asked == ["book train", "book boat"]


class Journey:
    """A flow whose steps are answered, and taken up, by chance; and which of them are done."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.travel = Travel()
        self.booked = set[str]()
        self.waiting = self.travel.do(OpenTrip())

    @property
    def trip(self) -> Trip:
        (trip,) = self.travel.rows(Trip)
        return trip

    def is_over(self) -> bool:
        return not self.waiting and self.trip.status != "needs_review"

    def answer(self) -> None:
        (entry,) = self.waiting
        (line,) = (each for each in self.travel.steps if each.command_id == entry.command_id)
        answer = NO if self.chance.random() < 0.2 else OK
        assert (line.name in self.booked) == (line.direction == "undo"), f"{line.direction} {line.name}, twice"
        if answer == OK:
            self.booked ^= {line.name}
        self.waiting, _ = self.travel.answer(entry, answer)

    def decide(self, declared: list[str]) -> None:
        """A person looks at the step that is named, and says what is true or has it tried again."""
        line = self.travel.steps[-1]
        assert f"`{line.name}`" in str(self.trip.reason)
        verdict: Verdict = "done" if line.name in self.booked else "again"
        if line.direction == "undo":
            verdict = self.chance.choice(("again", "done"))
        elif line.name not in declared:
            verdict = "not_done"
        if (line.direction, verdict) in (("undo", "done"), ("do", "not_done")):
            self.booked.discard(line.name)
        self.waiting, _ = self.travel.resume(verdict, result='"X1"')


@pytest.mark.parametrize("seed", range(400))
def test_random_releases_in_the_middle_of_a_flow(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    declared = chance.sample(NAMES, chance.randint(1, len(NAMES)))
    release(monkeypatch, *declared)
    journey = Journey(chance)
    for _ in range(60):
        if journey.is_over():
            break
        if chance.random() < 0.3:
            declared = chance.sample(NAMES, chance.randint(0, len(NAMES)))
            release(monkeypatch, *declared)
        if journey.trip.status == "needs_review":
            journey.decide(declared)
        else:
            journey.answer()
    if journey.is_over():
        assert journey.trip.status in ("completed", "compensated")
        assert journey.trip.status == "completed" or not journey.booked
