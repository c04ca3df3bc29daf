"""What a handler does wrongly fails its command with a text that says what to do, and names the author's line."""

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from zlib import crc32

import pytest
import structlog

from coordinator import (
    Command,
    ConfigurationError,
    Continuation,
    Digits,
    Handler,
    Principal,
    Reading,
    Rejected,
    Row,
    Saga,
    SagaRow,
    SagaStep,
    Service,
    Step,
    UnitOfWork,
)
from coordinator.lane.delivery import Delivery
from coordinator.lane.lane import Lane
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import imported
from coordinator.runtime.settings import LaneSettings
from coordinator.service.ids import new_command_id
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.testing import NOW, LaneInMemory
from coordinator.worker.observed import Observed
from tests.support.seats import BookSeat, Seat, seats


class Undeclared(Row, table="undeclared", key="id"):
    id: int


class Unhandled(Command, type="seats.unhandled"):
    """No service has a handler for it."""


class UnhandledAnswer(Continuation, type="seats.unhandled_answer"):
    """No service has a handler for it."""


Act = Callable[[UnitOfWork], object]


def nothing(work: UnitOfWork, command: BookSeat) -> None: ...


def service_of(act: Act) -> Any:
    def book(work: UnitOfWork, command: BookSeat) -> None:
        act(work)

    return seats.replace(handlers=(Handler(BookSeat, book),))


def refuses(code: Any) -> Any:
    def refuse(work: UnitOfWork) -> object:
        raise Rejected(code, "there is none")

    return refuse


MISUSED: dict[str, tuple[Any, str]] = {
    "find by a column that is not unique": (
        lambda work: work.find(Seat, "holder", "ada"),
        "Seat is found by 'id', 'code', and 'holder' is none of them: name it in `unique` of Seat",
    ),
    "a row that is not declared": (
        lambda work: work.add(Undeclared(id=1)),
        "Undeclared is no row of service seats: declare it with its `row`",
    ),
    "a class where a row belongs": (lambda work: work.add(Seat), "given a class where a row belongs"),
    "a class to remove": (lambda work: work.remove(Seat), "given a class where a row belongs"),
    **{
        f"nothing to {act}": (
            lambda work, act=act: getattr(work, act)(work.get(Seat, 9)),
            "given None where a row belongs: `get` and `find` return it where there is no row",
        )
        for act in ("add", "save", "remove")
    },
    "a command where a row belongs": (
        lambda work: work.save(BookSeat(id=1, holder="ada")),
        "BookSeat is no class of rows: derive it from Row",
    ),
    "a name where a class belongs": (lambda work: work.get("seats", 7), "'seats' is no class of rows"),
    "no key": (lambda work: work.get(Seat, None), "seats.id: it is None"),
    "a key of another type": (lambda work: work.get(Seat, "7"), "seats.id: a str where an integer belongs"),
    "a command that nobody handles": (
        lambda work: work.emit(Unhandled()),
        "Unhandled: seats has no handler for seats.unhandled: declare one",
    ),
    "a continuation that nobody handles": (
        lambda work: work.emit(BookSeat(id=1, holder="ada"), continuation=UnhandledAnswer),
        "UnhandledAnswer: seats has no handler for seats.unhandled_answer: declare one",
    ),
    "a code that is none": (
        refuses("Not Found!"),
        "Rejected with the code 'Not Found!', which is none: clients branch for it, so it is 1 to 100 visible ASCII",
    ),
    "no code": (refuses(None), "Rejected with NoneType: None, which is none: "),
    "a new row to save": (
        lambda work: work.save(Seat(id=9, code="A")),
        "seats has no row 9 to save: a new one is added (`work.add`)",
    ),
    "no limit": (lambda work: work.select(Seat), "work.select() missing 1 required keyword-only argument: 'limit'"),
    "a get without a key": (lambda work: work.get(Seat), "work.get() missing 1 required positional argument: 'key'"),
    "a get of two": (lambda work: work.next_id(Seat, 2), "work.next_id() takes 2 positional arguments but 3 were"),
    "a misspelt name": (
        lambda work: work.nextid(Seat),
        "work.nextid: a unit of work has no nextid; did you mean work.next_id?",
    ),
    "a name of others": (lambda work: work.commit(), "work.commit: a unit of work has no commit; it has actor, add, "),
    "a save of nothing": (lambda work: work.save(), "work.save() missing 1 required positional argument: 'row'"),
    "no command to emit": (lambda work: work.emit("seats.book"), "emit takes a command, and was given 'seats.book'"),
    "a row to emit": (lambda work: work.emit(Seat(id=1, code="A")), "emit takes a command, and was given Seat("),
}


@pytest.mark.parametrize("name", MISUSED)
def test_wrong_use_fails_its_command_in_plain_words(name: str) -> None:
    act, text = MISUSED[name]
    tried = LaneInMemory(service_of(act)).apply(BookSeat(id=7, holder="ada"))
    assert tried.outcome.status == "failed"
    assert text in str(tried.reason)
    assert "HandlerWork" not in str(tried.reason)


KEPT: dict[str, Act] = {
    "save": lambda work: work.save(Seat(id=1, code="A", holder="eve")),
    "add": lambda work: work.add(Seat(id=2, code="B")),
    "remove": lambda work: work.remove(Seat(id=1, code="A")),
    "get": lambda work: work.get(Seat, 1),
    "find": lambda work: work.find(Seat, "code", "A"),
    "select": lambda work: work.select(Seat, limit=1, holder="ada"),
    "exists": lambda work: work.exists(Seat, holder="ada"),
    "next_id": lambda work: work.next_id(Seat),
    "emit": lambda work: work.emit(BookSeat(id=1, holder="eve")),
    "cancel": lambda work: work.cancel(new_command_id()),
    "defer": lambda work: work.defer(),
    "now": lambda work: work.now,
    "command_id": lambda work: work.command_id,
    "actor": lambda work: work.actor,
}


@pytest.mark.parametrize("fails", [False, True], ids=["after success", "after failure"])
@pytest.mark.parametrize("name", KEPT)
def test_a_unit_of_work_that_was_kept_says_that_its_command_has_ended(name: str, fails: bool) -> None:
    kept: list[UnitOfWork] = []

    def act(work: UnitOfWork) -> None:
        kept.append(work)
        KEPT[name](kept[0])
        if fails:
            raise ValueError

    lane = LaneInMemory(service_of(act))
    lane.given(Seat(id=1, code="A", holder="ada"))
    lane.apply(BookSeat(id=7, holder="ada"))
    tried = lane.apply(BookSeat(id=7, holder="ada"))
    assert tried.failed_with("handler_error")
    says = "RuntimeError: this unit of work is that of a command that has ended, and nothing is read or written by it"
    assert says in str(tried.reason)


def test_what_a_rule_has_kept_says_that_its_command_has_ended() -> None:
    kept: list[Any] = []

    def allow(who: Principal, command: BookSeat, rows: Reading) -> bool:
        kept.append(rows)
        return kept[0].get(Seat, 1) is None

    lane = LaneInMemory(seats.replace(handlers=(Handler(BookSeat, nothing, allow=allow),)))
    assert lane.apply(BookSeat(id=7, holder="ada"), actor=Principal(subject="ada")).applied
    tried = lane.apply(BookSeat(id=7, holder="ada"), actor=Principal(subject="ada"))
    assert "this unit of work is that of a command that has ended" in str(tried.reason)


NAMED: dict[str, tuple[dict[str, Any], str]] = {
    "target by a column": (
        {"target": lambda command: Seat.at(holder=command.holder)},
        "`target` of BookSeat: WrongReference: Seat is found by 'id', 'code', and 'holder' is none of them",
    ),
    "target that is none": ({"target": lambda command: [Seat.at(command.id)]}, "`target` of BookSeat: TypeError: "),
    "reads by a column": (
        {"reads": lambda command: [Seat.at(holder=command.holder)]},
        "`reads` of BookSeat: WrongReference: Seat is found by 'id', 'code'",
    ),
    "one reference": (
        {"reads": lambda command: Seat.at(command.id)},
        "`reads` of BookSeat: TypeError: it returns one reference, to a Seat: return a list of references",
    ),
    "one selection": (
        {"reads": lambda command: Seat.where(id=command.id, limit=1)},
        "`reads` of BookSeat: TypeError: it returns one selection, of Seat rows: return a list of references",
    ),
    "nothing": ({"reads": lambda command: None}, "`reads` of BookSeat: TypeError: it returns None: return a list"),
}


def test_a_decorator_without_its_class_is_refused_at_once() -> None:
    """Else the function would be gone, and only the first command would say so."""
    handles: Any = Service("halls").handles
    with pytest.raises(TypeError, match=r"given the function after_all instead of a class: write @halls\.handles\(…\)"):
        handles(after_all)


def after_all(function: Any) -> Any:
    """The function, which shows only for a true command what it names: a start does not find it."""
    return lambda command: function(command) if command.id + 0 else ()


@pytest.mark.parametrize("name", NAMED)
def test_wrong_references_say_which_function_names_them(name: str) -> None:
    options, text = NAMED[name]
    options = {what: after_all(function) for what, function in options.items()}
    service = seats.replace(handlers=(Handler(BookSeat, nothing, **options),))
    tried = LaneInMemory(service).apply(BookSeat(id=7, holder="ada"))
    assert tried.failed_with("handler_error")
    assert text in str(tried.reason)


@pytest.mark.parametrize("name", [name for name in MISUSED if name not in ("no key", "a key of another type")])
def test_wrong_use_is_a_defect_of_the_handler_and_no_row_that_a_database_refuses(name: str) -> None:
    assert LaneInMemory(service_of(MISUSED[name][0])).apply(BookSeat(id=7, holder="ada")).failed_with("handler_error")


@pytest.mark.parametrize(
    ("digits", "text"),
    [((2, 12), r"Digits\(12, 2\) has 2 of 12 after it"), ((0, 0), "at most 34 digits"), ((40, 2), "at most 34 digits")],
)
def test_digits_that_are_none_say_how_they_are_meant(digits: tuple[int, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Digits(*digits)


def fails(work: UnitOfWork) -> object:
    return Decimal(1) / Decimal(0)


def test_the_log_names_the_author_s_line() -> None:
    message = CommandMessage(new_command_id(), BookSeat.type, b'{"id":7,"holder":"ada"}', origin="system")
    store = MemoryStore(MemoryDatabase())
    lane = Lane(service_of(fails), store, lambda: NOW, "test", LaneSettings(), lambda: 0.0)
    settlement: Any = lane.apply([Delivery(tag=1, commands=(message,))], 1)
    with structlog.testing.capture_logs() as logs:
        Observed("seats", ()).settled(settlement, 0, 1)
    line = fails.__code__.co_firstlineno + 1
    assert [log["place"] for log in logs if log["event"] == "dead_lettered"] == [f"{__file__}:{line}, in fails"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seats = Service('seats').rows", r"no attribute 'rows' \(.*broken_{at}\.py:3, in <module>\)"),
        (
            "tenants = os.environ['NO_SUCH_TENANTS']",
            r"KeyError: 'NO_SUCH_TENANTS' \(.*broken_{at}\.py:3, in <module>\)",
        ),
        ("seats = Service('seats'", r"SyntaxError: '\(' was never closed \(broken_{at}\.py, line 3\)"),
        ("raise ConfigurationError('there are no tenants')", r"^there are no tenants$"),
    ],
)
def test_an_error_of_an_author_s_module_names_its_line(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each has a name of its own: a module that was imported is not imported again.
    at = crc32(line.encode())
    begin = "import os\nfrom coordinator import ConfigurationError, Service\n"
    (tmp_path / f"broken_{at}.py").write_text(f"{begin}{line}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    with pytest.raises(ConfigurationError, match=said.replace("{at}", str(at))):
        imported(f"broken_{at}:seats", object)


DUPLICATES: dict[str, tuple[Act, str]] = {
    "of a key": (
        lambda work: work.add(Seat(id=7, code="B")),
        "seats: duplicate key 7: a handler asks first (`work.get`), or numbers its rows (`work.next_id`)",
    ),
    "of a unique value": (
        lambda work: work.add(Seat(id=8, code="A")),
        "seats: duplicate 'A' in a unique column: a handler asks first (`work.find`)",
    ),
}


@pytest.mark.parametrize("name", DUPLICATES)
def test_a_row_that_only_the_database_has_is_refused_with_its_handler_and_what_to_do(name: str) -> None:
    act, says = DUPLICATES[name]
    lane = LaneInMemory(service_of(act))
    lane.given(Seat(id=7, code="A"))
    tried = lane.apply(BookSeat(id=1, holder="ada"))
    assert tried.failed_with("database_refused")
    assert f"{says}; it was written by " in str(tried.reason)
    assert re.search(rf"book \({re.escape(__file__)}:\d+\)$", str(tried.reason))


def test_a_row_that_is_known_is_added_in_no_second_place() -> None:
    tried = LaneInMemory(service_of(lambda work: [work.add(Seat(id=7, code="A")) for _ in range(2)])).apply(
        BookSeat(id=1, holder="ada")
    )
    assert "seats already has a row 7: ask first (`work.get`), or number rows (`work.next_id`)" in str(tried.reason)


class Ticket(Row, table="tickets", key="id"):
    id: int
    price: Annotated[Decimal, Digits(12, 2)]


@pytest.mark.parametrize(
    ("price", "says"),
    [
        ("9.995", """a Decimal with more than 2 digits after the point: .quantize(Decimal("0.01")) rounds it (class"""),
        ("1E12", "a Decimal with more than 10 digits before the point (class"),
    ],
)
def test_a_price_with_too_many_digits_is_told_what_rounds_it(price: str, says: str) -> None:
    service = service_of(lambda work: work.add(Ticket(id=1, price=Decimal(price)))).replace(models=(Seat, Ticket))
    assert f"tickets.price: {says} Ticket)" in str(LaneInMemory(service).apply(BookSeat(id=1, holder="ada")).reason)


class Tour(SagaRow, table="tours", key="id"):
    """A flow of one step."""


def test_a_saga_whose_continuation_nobody_handles_does_not_begin() -> None:
    step = Step[Tour](name="book", do=lambda tour: BookSeat(id=tour.id, holder="ada"))
    saga = Saga("tour", Tour, UnhandledAnswer, steps=(step,), finish=lambda work, tour: None)

    def book(work: UnitOfWork, command: BookSeat) -> None:
        saga.begin(work, Tour(id=1))

    lane = LaneInMemory(seats.replace(models=(Seat, Tour, SagaStep), handlers=(Handler(BookSeat, book),)))
    assert "UnhandledAnswer: seats has no handler for seats.unhandled_answer: declare one" in repr(
        lane.apply(BookSeat(id=1, holder="ada"))
    )
    assert lane.rows(Tour) == []
