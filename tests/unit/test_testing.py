"""`coordinator.testing`: what a service's author tries his handlers with."""

import re
import sysconfig
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec import structs

import coordinator
from coordinator import (
    Call,
    Command,
    Continuation,
    Effect,
    EffectRetry,
    Handler,
    Principal,
    Row,
    Service,
    UnitOfWork,
)
from coordinator.service.authors_code import authors_line
from coordinator.stores.port import BatchFault
from coordinator.stores.row_checks import InvalidRow
from coordinator.testing import NOW, LaneInMemory
from coordinator.testing.outside import CALLS_MAX
from tests.support.ledger import LEDGER, Account, Deposit, Forward, Note, OpenAccount, Tamper
from tests.support.trips import TRIPS, Book, OpenTrip, Trip, Welcome
from tests.support.uncalled import Uncalled

AGENCY = Service("agency")


@AGENCY.row
class Booked(Row, table="booked", key="id"):
    id: int
    booked_at: datetime


class Remind(Command, type="agency.remind"):
    after_s: int


@AGENCY.handles(Book)  # type: ignore[type-var]  # a trip takes a text
def book(work: UnitOfWork, command: Book) -> str:
    work.add(Booked(id=work.next_id(Booked), booked_at=work.now))
    return "OK"


@AGENCY.handles(Remind)
def remind(work: UnitOfWork, command: Remind) -> None:
    work.emit(Book(trip=1, what="car"), after=timedelta(seconds=command.after_s))


ADA = Account(id=7, owner="ada", balance=0, created_at=NOW)


def test_a_handler_is_tried_on_rows_that_are_given() -> None:
    lane = LaneInMemory(LEDGER)
    lane.given(ADA)
    tried = lane.apply(Deposit(id=7, amount=5))
    assert tried.applied
    assert tried.code is None
    assert tried.result(Account).balance == 5
    assert lane.row(Account, 7) == tried.result(Account)
    assert [row.owner for row in lane.rows(Account)] == ["ada"]


def test_rows_may_be_given_between_two_commands() -> None:
    lane = LaneInMemory(LEDGER)
    assert lane.apply(OpenAccount(owner="ada")).applied
    lane.given(structs.replace(ADA, owner="bob", balance=3))
    assert lane.apply(Deposit(id=7, amount=5)).result(Account).balance == 8
    assert lane.apply(Deposit(id=8, amount=5)).code == "account_not_found"


def test_a_class_is_no_command() -> None:
    with pytest.raises(TypeError, match=r"apply takes a command, such as .*, and was given <class .*Deposit"):
        LaneInMemory(LEDGER).apply(Deposit)  # type: ignore[arg-type]


def test_a_repetition_is_one() -> None:
    lane = LaneInMemory(LEDGER)
    lane.given(ADA)
    known = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"
    first, again = (lane.apply(Deposit(id=7, amount=5), command_id=known) for _ in range(2))
    assert again.applied
    assert again.outcome.replayed
    assert again.outcome.sequence == first.outcome.sequence
    assert lane.row(Account, 7) == first.result(Account)


def test_conditions_are_kept() -> None:
    lane = LaneInMemory(LEDGER)
    lane.given(ADA)
    assert lane.apply(Deposit(id=7, amount=5), expected_version=3).code == "version_conflict"
    deadline = lane.now + timedelta(seconds=1)
    lane.now += timedelta(seconds=2)
    assert lane.apply(Deposit(id=7, amount=5), deadline=deadline).outcome.status == "expired"


def test_what_is_emitted_is_seen() -> None:
    lane = LaneInMemory(LEDGER)
    (emitted,) = lane.apply(Forward(id=7, amount=5)).emitted
    assert (emitted.target, emitted.type, emitted.arguments) == ("ledger", Deposit.type, {"id": 7, "amount": 5})


def test_a_stranger_is_one() -> None:
    note = Note(command_id="x", command_type="t", status="applied")
    assert LaneInMemory(LEDGER).apply(note, origin="public").code == "forbidden_command_type"


def test_a_continuation_is_as_a_lane_makes_it_whoever_named_it() -> None:
    class Heard(Continuation, type="ears.heard"):
        """What became of whatever."""

    def heard(_work: UnitOfWork, _command: Heard) -> None: ...

    lane = LaneInMemory(Service("ears", handlers=[Handler(Heard, heard)]))
    told = Heard(command_id="0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11", command_type="trips.book", status="applied")
    assert [lane.apply(told, actor=Principal(subject="ada")).code, lane.apply(told).code] == [None, None]


def test_a_defect_of_a_handler_s_is_told_and_changes_nothing() -> None:
    lane = LaneInMemory(LEDGER)
    lane.given(ADA)
    tried = lane.apply(Tamper(id=7, how="crash"))
    assert (tried.outcome.status, tried.code) == ("failed", "handler_error")
    assert lane.row(Account, 7) == ADA


def test_a_failure_names_the_line_of_its_authors_code_that_raised() -> None:
    lane = LaneInMemory(LEDGER)
    lane.given(ADA)
    reason = str(lane.apply(Tamper(id=7, how="crash")).reason)
    (file, line) = re.findall(r": .+ \((.+/ledger\.py):(\d+), in \w+\)$", reason)[0]
    assert "raise RuntimeError" in Path(file).read_text().splitlines()[int(line) - 1]


def test_an_author_whose_package_is_installed_is_found_beside_libraries() -> None:
    installed, ours = sysconfig.get_path("purelib"), Path(coordinator.__file__).parent
    frames = [f"{ours}/lane/trying.py", f"{installed}/shop/seats.py", f"{installed}/other/library.py"]
    text = "".join(f'  File "{file}", line {line}, in called\n' for line, file in enumerate(frames))
    assert authors_line(text) == f"{installed}/shop/seats.py:1, in called"
    assert authors_line(f'{text}  File "/here/seats.py", line 7, in own\n') == "/here/seats.py:7, in own"
    assert authors_line(f'  File "{frames[0]}", line 7, in tried\n') is None


def test_rows_that_no_database_would_take_are_not_given() -> None:
    lane = LaneInMemory(LEDGER)
    with pytest.raises(InvalidRow):
        lane.given(structs.replace(ADA, balance=0.5))
    lane.given(ADA)
    with pytest.raises(BatchFault, match="duplicate key 7"):
        lane.given(ADA)


def test_the_outcome_of_a_command_is_told_by_its_repr() -> None:
    lane = LaneInMemory(LEDGER)
    lane.given(ADA)
    applied, failed = lane.apply(Deposit(id=7, amount=5)), lane.apply(Tamper(id=7, how="crash"))
    refused = lane.apply(Deposit(id=8, amount=5))
    assert repr(applied).startswith('<ledger.deposit applied: {"')
    assert repr(refused).startswith('<ledger.deposit rejected with "account_not_found": ')
    assert re.fullmatch(r'<ledger\.tamper failed with "handler_error": \w+: .+>', repr(failed))
    assert refused.rejected_with("account_not_found")
    assert not refused.rejected_with("overdrawn")
    assert not refused.failed_with("account_not_found")
    assert failed.failed_with("handler_error")
    assert not failed.rejected_with("handler_error")
    assert not applied.rejected_with("")
    # Whoever asks for the result of what has none is told why there is none.
    for tried in (refused, failed):
        with pytest.raises(AssertionError, match=f"it has no result: {re.escape(repr(tried))}"):
            tried.result(Account)


def test_everything_that_was_emitted_so_far_is_seen() -> None:
    lane = LaneInMemory(LEDGER)
    for amount in range(1, 1200):
        lane.apply(Forward(id=7, amount=amount))
    assert [emitted.arguments["amount"] for emitted in lane.emitted] == list(range(1, 1200))


def test_what_a_lane_emits_to_itself_is_delivered_when_the_test_says_so() -> None:
    lane = LaneInMemory(LEDGER)
    lane.given(ADA)
    lane.apply(Forward(id=7, amount=5))
    assert lane.row(Account, 7) == ADA
    delivered = lane.deliver()
    assert delivered[0].outcome.type == Deposit.type
    assert lane.rows(Account)[0].balance == 5
    assert lane.deliver() == []


class Charge(Effect, type="tills.charge"):
    number: int


class Sell(Command, type="tills.sell"):
    number: int


class Charged(Command, type="tills.charged"):
    number: int


class Sale(Row, table="sales", key="number"):
    number: int
    is_paid: str = "no"


tills = Service("tills", models=(Sale,), effects=Uncalled)


@tills.handles(Sell)
def sell(work: UnitOfWork, command: Sell) -> Sale:
    work.emit(Charge(number=command.number))
    return work.add(Sale(number=command.number))


@tills.handles(Charged, is_internal=True)
def charged(work: UnitOfWork, command: Charged) -> Sale:
    return work.save(Sale(number=command.number, is_paid="yes"))


def test_a_lane_beside_it_takes_what_is_its_own_and_the_answers_come_back() -> None:
    lane, agency = LaneInMemory(TRIPS), LaneInMemory(AGENCY)
    lane.beside(agency)
    assert lane.apply(Welcome()).applied
    assert lane.apply(OpenTrip()).applied
    delivered = [tried.outcome.type for tried in lane.deliver()]
    assert delivered == ["agency.book", "trips.continue"] * 4
    trip = lane.row(Trip, 1)
    assert trip is not None
    assert (trip.status, trip.flight, trip.ended_at) == ("completed", "OK", NOW)
    assert len(agency.rows(Booked)) == 4
    with pytest.raises(ValueError, match="a lane agency already"):
        lane.beside(LaneInMemory(AGENCY))


def test_a_timer_of_a_lane_beside_it_comes_at_its_time() -> None:
    lane, agency = LaneInMemory(TRIPS), LaneInMemory(AGENCY)
    lane.beside(agency)
    assert agency.apply(Remind(after_s=60)).applied
    lane.advance(timedelta(seconds=59))
    assert agency.rows(Booked) == []
    lane.advance(timedelta(seconds=1))
    assert [booked.booked_at for booked in agency.rows(Booked)] == [NOW + timedelta(seconds=60)]


def test_a_call_to_the_outside_is_noted_and_its_answer_is_applied() -> None:
    lane = LaneInMemory(tills)
    keys: list[tuple[str, bool]] = []

    def answer(effect: Charge, call: Call) -> Charged:
        keys.append((call.key, call.is_repeated))
        if len(keys) == 1:
            raise EffectRetry("no answer")
        return Charged(number=effect.number)

    lane.outside.answers(Charge, answer)
    lane.apply(Sell(number=1))
    lane.apply(Sell(number=2))
    assert lane.outside.calls == []
    assert [tried.applied for tried in lane.deliver()] == [True, True]
    assert lane.outside.calls == [Charge(number=1), Charge(number=1), Charge(number=2)]
    assert [row.is_paid for row in lane.rows(Sale)] == ["yes", "yes"]
    assert keys[0] == (keys[1][0], False)
    assert keys[1][1]
    assert keys[2][0] != keys[0][0]


def test_answers_from_outside_come_one_after_the_other() -> None:
    lane = LaneInMemory(tills)
    lane.outside.answers(Charge, EffectRetry("no answer"), Charged(number=1), Charged(number=3))
    for number in (1, 2, 3):
        lane.apply(Sell(number=number))
    assert [tried.result(Sale).number for tried in lane.deliver()] == [1, 3, 3]
    assert len(lane.outside.calls) == 4


def test_a_function_that_answers_may_return_that_no_answer_came() -> None:
    lane = LaneInMemory(tills)
    made: list[Charged | EffectRetry] = [EffectRetry("no answer"), Charged(number=1)]
    lane.outside.answers(Charge, lambda effect, call: made.pop(0))
    lane.apply(Sell(number=1))
    assert [tried.applied for tried in lane.deliver()] == [True]
    assert len(lane.outside.calls) == 2


def test_a_call_is_made_again_once_its_time_has_passed() -> None:
    """So a test has a provider that is silent for a while, or for ever."""
    lane = LaneInMemory(tills)
    repeated: list[bool] = []

    def answer(effect: Charge, call: Call) -> Charged:
        repeated.append(call.is_repeated)
        return Charged(number=effect.number)

    lane.outside.answers(Charge, EffectRetry("no answer", after_s=30), answer)
    lane.apply(Sell(number=1))
    assert lane.deliver() == []
    assert lane.advance(timedelta(seconds=29)) == []
    assert [tried.applied for tried in lane.advance(timedelta(seconds=1))] == [True]
    assert repeated == [True]
    lane.outside.answers(Charge, EffectRetry("no answer", after_s=60))
    lane.apply(Sell(number=2))
    assert lane.advance(timedelta(hours=1)) == []
    assert len(lane.outside.calls) == 2 + 61


@pytest.mark.parametrize("after_s", [None, 0.0, -1.0, 1e-9])
def test_a_function_that_never_answers_is_stopped(after_s: float | None) -> None:
    lane = LaneInMemory(tills)
    lane.outside.answers(Charge, lambda effect, call: EffectRetry("no answer", after_s=after_s))
    lane.apply(Sell(number=1))
    with pytest.raises(RuntimeError, match=rf"tills\.charge was called {CALLS_MAX} times, and got no answer"):
        lane.deliver()


def test_a_call_to_the_outside_without_an_answer_is_an_error() -> None:
    lane = LaneInMemory(tills)
    lane.apply(Sell(number=1))
    with pytest.raises(LookupError, match=r"tills\.charge was emitted, and has no answer: .* that of tills"):
        lane.deliver()
    for answers in ((), (Charged(number=1), EffectRetry("no answer"))):
        with pytest.raises(ValueError, match="its last answer must be a command, or make one"):
            lane.outside.answers(Charge, *answers)


def test_commands_that_emit_one_another_without_end_are_stopped() -> None:
    endless = Service("tills", models=(Sale,))

    @endless.handles(Sell)
    def again(work: UnitOfWork, command: Sell) -> None:
        work.emit(Sell(number=command.number + 1))

    lane = LaneInMemory(endless)
    lane.apply(Sell(number=1))
    with pytest.raises(RuntimeError, match=r"more than 1000 commands come of one another, the last a tills\.sell"):
        lane.deliver()
