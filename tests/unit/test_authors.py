"""Whatever a function of the service's author does is that command's failure, and nothing else."""

import asyncio
import itertools
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar, get_type_hints

import msgspec
import pytest

from coordinator.lane.delivery import Settlement
from coordinator.lane.results import RESULT_BYTES_MAX
from coordinator.protocol.wire import BODY_BYTES_MAX
from coordinator.service.commands import Command
from coordinator.service.continuation import Deferred, continued
from coordinator.service.errors import Rejected
from coordinator.service.reading import Reading
from coordinator.service.rows import Ref, Row
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.lane_tables import LANE_MODELS, DeadLetter, ParkedCommand
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.port import StoreUnavailable
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, Account, Deposit, Fragile, Note, OpenAccount, Remark
from tests.support.store_contract import NOW


class Odd(Command):
    type = "ledger.odd"
    id: int = 1


class Large(Command):
    type = "ledger.large"
    text: str


class Strange(Command):
    """Its own class raises."""

    type = "ledger.strange"

    does: ClassVar[Callable[..., Any]] = id

    def __post_init__(self) -> None:
        type(self).does()


class StrangeError(BaseException):
    """Of an author who has read too much."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Codeless(Rejected):
    def __init__(self) -> None:
        Exception.__init__(self, "without a code")


class Other(Row):
    table = "others"
    key = "id"
    id: int


def raises(error: BaseException) -> Callable[..., Any]:
    def function(*_: Any) -> Any:
        raise error

    return function


def recurses(*arguments: Any) -> Any:
    return recurses(*arguments)


def generates(*_: Any) -> Any:
    yield object()


async def waits(*_: Any) -> None:
    await asyncio.sleep(0)


ERRORS: dict[str, Callable[..., Any]] = {
    "raises": raises(RuntimeError("boom \x00 \ud800")),
    "exits": raises(SystemExit(3)),
    "interrupts": raises(KeyboardInterrupt()),
    "cancels": raises(asyncio.CancelledError()),
    "raises what is no Exception": raises(StrangeError()),
    "raises what has no words": raises(Unprintable()),
    "raises as the database does": raises(StoreUnavailable("so it says")),
    "recurses": recurses,
    "runs out of memory": raises(MemoryError()),
    "generates": generates,
    "waits": waits,
    "returns an object": lambda *_: object(),
    "returns a number": lambda *_: 7.5,
    "returns too much": lambda *_: msgspec.defstruct("Much", ["text"])("x" * (1 << 20)),
}
RETURNING = ("generates", "waits", "returns an object", "returns a number", "returns too much")
REFERENCES: dict[str, Callable[..., Any]] = {
    "no reference": lambda *_: ("row",),
    "of no model": lambda *_: (Ref(dict, "id", 1),),  # type: ignore[type-var]
    "of another service's model": lambda *_: (Other.at(1),),
    "an unknown column": lambda *_: (Ref(Account, "colour", "red"),),
    "no unique column": lambda *_: (Ref(Account, "balance", 1),),
    "an unhashable column": lambda *_: (Ref(Account, ["id"], 1),),  # type: ignore[arg-type]
    "an unhashable value": lambda *_: (Ref(Account, "id", [1]),),  # type: ignore[arg-type]
    "a mistyped value": lambda *_: (Ref(Account, "id", "one"),),
    "no value": lambda *_: (Ref(Account, "id", None),),  # type: ignore[arg-type]
    "a float": lambda *_: (Ref(Account, "id", 1.5),),  # type: ignore[arg-type]
    "half a surrogate pair": lambda *_: (Ref(Account, "owner", "\ud800"),),
    "out of range": lambda *_: (Ref(Account, "id", 2**70),),
    "without an end": lambda *_: (Account.at(number) for number in itertools.count(1)),
}
ROWS: dict[str, Any] = {
    "a float": {"balance": 1.5},
    "a dict": {"balance": {}},
    "a bool": {"balance": True},
    "none": {"owner": None},
    "too large": {"balance": 2**63},
    "too long": {"note": "x" * 51},
    "bytes as text": {"note": b"x"},
    "an object": {"data": object()},
}


def one_of(handler: Handler[Any], store: MemoryStore | None = None) -> LaneUnderTest:
    service = Service(
        name="ledger",
        models=LEDGER.models,
        handlers=(*LEDGER.handlers, handler, Handler(Strange, lambda work, command: None)),
        metadata=LEDGER.metadata,
    )
    lane = LaneUnderTest(store or MemoryStore(MemoryDatabase()), service=service)
    lane.do(OpenAccount(owner="a"))
    return lane


def outcome_of_one(lane: LaneUnderTest, **options: Any) -> str:
    """The code of the odd one's outcome, among neighbours that all are applied."""
    settlement = lane.settle(
        delivery(1, Deposit(id=1, amount=1)),
        delivery(2, Odd(), **options),
        delivery(3, Deposit(id=1, amount=1)),
        delivery(4, OpenAccount(owner="b")),
    )
    assert isinstance(settlement, Settlement)
    first, odd, *others = codes(settlement.outcomes)
    assert {first, *others} == {"applied"}
    account = lane.account(1)
    assert account is not None
    assert account.balance == 2
    assert [entry.sequence for entry in lane.log()] == [1, 2, 3, 4, 5]
    assert len(lane.rows(DeadLetter)) == (odd not in ("applied", "rejected"))
    return odd


@pytest.mark.parametrize("what", ERRORS)
def test_of_handle(what: str) -> None:
    assert outcome_of_one(one_of(Handler(Odd, ERRORS[what]))) == (
        "applied" if what == "returns a number" else "handler_error"
    )


@pytest.mark.parametrize("what", ERRORS | REFERENCES)
def test_of_reads(what: str) -> None:
    reads = (ERRORS | REFERENCES)[what]
    assert outcome_of_one(one_of(Handler(Odd, lambda work, command: None, reads=reads))) == "handler_error"


@pytest.mark.parametrize("what", ERRORS | REFERENCES)
@pytest.mark.parametrize("policy", ["park-key", "park"])
def test_of_target(what: str, policy: Any) -> None:
    target = (ERRORS | REFERENCES)[what]

    def broken(*arguments: Any) -> Any:
        found = target(*arguments)
        return found[0] if isinstance(found, tuple) else found

    handler = Handler(Odd, lambda work, command: None, target=broken, on_failure=policy)
    code = outcome_of_one(one_of(handler), expected_version=1)
    assert code in ("handler_error", "version_conflict")


@pytest.mark.parametrize("what", ROWS)
@pytest.mark.parametrize("how", ["save", "add"])
def test_of_a_row_that_no_database_takes(what: str, how: str) -> None:
    def handle(work: Any, command: Odd) -> Any:
        row = msgspec.structs.replace(work.get(Account, command.id), **ROWS[what])
        return work.save(row) if how == "save" else work.add(msgspec.structs.replace(row, id=7))

    lane = one_of(Handler(Odd, handle))
    assert outcome_of_one(lane) == "invalid_row"
    (letter,) = lane.rows(DeadLetter)
    assert letter.reason.startswith(f"InvalidRow: accounts.{next(iter(ROWS[what]))}: ")
    shown = lane.log()[2].error_message or ""
    assert "a row that no database takes" in shown
    assert "accounts" not in shown


@pytest.mark.parametrize(
    ("handle", "code"),
    [
        (lambda work, command: work.emit(object()), "handler_error"),
        (lambda work, command: work.emit(Odd), "handler_error"),
        (lambda work, command: work.emit(Odd(), continuation="users.note"), "handler_error"),
        (lambda work, command: work.emit(Large(text="x" * (1 << 20))), "handler_error"),
        (lambda work, command: work.next_id("n" * 65), "invalid_row"),
        (lambda work, command: work.next_id(["n"]), "handler_error"),
        (lambda work, command: work.add("row"), "handler_error"),
        (lambda work, command: work.add(Other(id=1)), "handler_error"),
        (lambda work, command: work.save(Other(id=1)), "handler_error"),
        (lambda work, command: work.remove(None), "handler_error"),
        (lambda work, command: work.get(Account, {}), "invalid_row"),
        (lambda work, command: work.get(Account, "one"), "invalid_row"),
        (lambda work, command: work.find(Account, "colour", 1), "handler_error"),
        (lambda work, command: work.resume("what", None), "handler_error"),
        (raises(Rejected("c" * 101, "too long a code")), "handler_error"),
        (raises(Rejected(None, "no code")), "handler_error"),  # type: ignore[arg-type]
        (raises(Rejected("no code at all", "spaces")), "handler_error"),
        (raises(Codeless()), "handler_error"),
        (raises(Rejected("fine", "\x00 \ud800" * 2000)), "fine"),
    ],
)
def test_of_what_a_handler_asks_for(handle: Any, code: str) -> None:
    assert outcome_of_one_or_rejected(one_of(Handler(Odd, handle))) == code


def outcome_of_one_or_rejected(lane: LaneUnderTest) -> str:
    settlement = lane.settle(
        delivery(1, Deposit(id=1, amount=1)), delivery(2, Odd()), delivery(3, Deposit(id=1, amount=1))
    )
    first, odd, last = codes(settlement.outcomes)
    assert (first, last) == ("applied", "applied")
    return odd


@pytest.mark.parametrize("what", [each for each in ERRORS if each not in RETURNING])
def test_of_a_command_s_own_class(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(Strange, "does", ERRORS[what])
    lane = one_of(Handler(Odd, lambda work, command: None))
    outcomes = lane.outcomes(delivery(2, b"{}", command_type=Strange.type), delivery(3, Deposit(id=1, amount=1)))
    assert codes(outcomes) == ["handler_error", "applied"]


@pytest.mark.parametrize("what", ERRORS | REFERENCES)
def test_of_a_command_that_is_delivered_again(what: str) -> None:
    """Its rows are named again for the projections."""
    is_broken = False

    def reads(command: Odd) -> Any:
        return (ERRORS | REFERENCES)[what](command) if is_broken else ()

    lane = one_of(Handler(Odd, lambda work, command: None, reads=reads))
    again = delivery(2, Odd(), redelivered=True)
    lane.settle(again)
    is_broken = True
    outcomes = lane.outcomes(again, delivery(3, Deposit(id=1, amount=1)))
    assert [outcome.replayed for outcome in outcomes] == [True, False]


def test_of_target_while_other_commands_wait() -> None:
    lane = one_of(Handler(Odd, lambda work, command: None, target=ERRORS["raises"]))
    lane.do(Remark(id=1, note="broken"), Fragile(id=1, amount=1))
    assert codes(lane.do(Odd(), OpenAccount(owner="b"))) == ["handler_error", "applied"]
    assert len(lane.rows(ParkedCommand)) == 1


def test_an_outage_that_a_handler_catches_is_an_outage_all_the_same() -> None:
    class Away(MemoryStore):
        is_away = False

        def begin(self) -> Any:
            transaction = super().begin()
            load = transaction.load

            def failing(reads: Any) -> Any:
                if self.is_away and any(read.model is Account for read in reads):
                    raise StoreUnavailable("gone")
                return load(reads)

            transaction.load = failing  # type: ignore[method-assign]
            return transaction

    def careless(work: Any, command: Odd) -> None:
        try:
            work.get(Account, 77)
        except Exception:  # noqa: BLE001
            work.emit(Note(command_id="x", command_type="x", status="applied"))

    database = MemoryDatabase()
    store = Away(database)
    lane = one_of(Handler(Odd, careless), store)
    lane.channel_number = 1
    lane.settle(delivery(1, OpenAccount(owner="c")))
    store.is_away = True
    suspension = lane.lane.apply([delivery(2, Odd())], 1)
    assert "gone" in suspension.reason  # type: ignore[union-attr]
    store.is_away = False
    assert codes(lane.outcomes()) == ["applied"]


@pytest.mark.parametrize("model", LANE_MODELS, ids=lambda model: model.table)
@pytest.mark.parametrize("how", ["add", "save", "remove"])
def test_a_handler_that_writes_what_is_the_lane_s_own_fails_alone(model: type[Row], how: str) -> None:
    """Else it would stop its lane, or forge its log."""
    hints = get_type_hints(model)
    values: dict[Any, Any] = {int: 1, str: "x", bytes: b"x", datetime: NOW}
    row = model(**{name: values.get(hints[name]) for name in model.__struct_fields__})
    service = Service(
        name="ledger",
        models=LEDGER.models,
        handlers=(*LEDGER.handlers, Handler(Odd, lambda work, _: getattr(work, how)(row))),
        metadata=LEDGER.metadata,
    )
    lane = LaneUnderTest(MemoryStore(MemoryDatabase()), service=service)
    settlement = lane.settle(
        delivery(1, OpenAccount(owner="a")), delivery(2, Odd()), delivery(3, OpenAccount(owner="b"))
    )
    assert codes(settlement.outcomes) == ["applied", "handler_error", "applied"]


def test_a_handler_can_call_what_a_unit_of_work_has_and_nothing_else() -> None:
    names: list[str] = []
    lane = one_of(Handler(Odd, lambda work, _: names.extend(name for name in dir(work) if name[0] != "_")))
    assert codes(lane.do(Odd())) == ["applied"]
    assert names == sorted(name for name in (vars(Reading) | vars(UnitOfWork)) if name[0] != "_")


def test_the_largest_result_can_be_continued_with() -> None:
    """What the largest one becomes is taken by the lane that it goes to."""
    deferred = Deferred(command_id=command_id(1), type="t" * 100, continuation="c." + "c" * 98, origin="public")
    largest = b'"' + b"x" * (RESULT_BYTES_MAX - 2) + b'"'
    assert len(continued(deferred, "applied", largest, None).arguments) <= BODY_BYTES_MAX
