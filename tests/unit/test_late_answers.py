"""An answer that does not come is visible from outside: in the reason, in the metric, and in one line of the log."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import Struct
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from coordinator.client.writes import WriteOptions, execute
from coordinator.runtime.awaited import LATE_S, Awaited
from coordinator.runtime.late_answers import LateAnswers
from coordinator.service.rows import Row
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.port import Changes, Lease, Store, StoreUnavailable, Transaction
from coordinator.stores.watched import WatchedStore
from coordinator.worker.inprocess import InProcessWrites
from tests.support.ledger import LEDGER, Account, OpenAccount
from tests.support.store_contract import NOW
from tests.support.system import wait_until

WITHIN_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def awaited(clock: Clock) -> Awaited:
    return Awaited(clock)


def metric(lane: str) -> float | None:
    return REGISTRY.get_sample_value("coordinator_lane_answer_late_seconds", {"lane": lane})


def test_an_answer_is_late_after_a_while(awaited: Awaited, clock: Clock) -> None:
    late = LateAnswers(("lane", "late"), [Awaited(clock), awaited])
    before = awaited.begin("the database (commit)")
    clock.now_s += LATE_S - 0.1
    assert metric("late") == 0
    clock.now_s += 4.1
    assert late.reason == "it has waited 7 s for the database (commit)"
    assert metric("late") == pytest.approx(LATE_S + 4)
    awaited.end(before)
    assert metric("late") == 0
    assert LateAnswers(("lane", "late"), [awaited]).reason is None


def test_each_late_answer_is_logged_once_and_its_end_once(awaited: Awaited, clock: Clock) -> None:
    late = LateAnswers(("lane", "logged"), [awaited])
    with capture_logs() as lines:
        for _ in range(2):
            before = awaited.begin("the database (commit)")
            for _ in range(3):
                clock.now_s += LATE_S
                late.look()
            awaited.end(before)
        late.look()
        late.look()
    assert [line["event"] for line in lines] == ["answer_late", "answer_came"] * 2
    assert lines[0]["awaited"] == "the database (commit)"


def test_the_line_of_a_late_answer_says_where_it_is_to_come_from(awaited: Awaited, clock: Clock) -> None:
    where = {"server.address": "127.0.0.1", "server.port": 3306}
    late = LateAnswers(("lane", "placed"), [awaited], {"the database (begin)": where})
    with capture_logs() as lines:
        for what in ("the database (begin)", "its own code"):
            before = awaited.begin(what)
            clock.now_s += LATE_S
            late.look()
            awaited.end(before)
            late.look()
    said = [line for line in lines if line["event"] == "answer_late"]
    assert [where.items() <= line.items() for line in said] == [True, False]


def test_what_is_around_an_answer_begins_anew_when_it_has_come(awaited: Awaited, clock: Clock) -> None:
    outer = awaited.begin("its own code")
    for _ in range(5):
        inner = awaited.begin("the database (read)")
        clock.now_s += LATE_S - 0.1
        awaited.end(inner)
        assert awaited.late is None
    clock.now_s += LATE_S
    assert awaited.late is not None
    assert awaited.late.what == "its own code"
    awaited.end(outer)
    assert awaited.late is None


CALLS: dict[str, Callable[[Store], object]] = {
    "check": lambda store: store.check(LEDGER.models),
    "take_over": lambda store: store.take_over("holder", NOW),
    "renew": lambda store: store.renew("holder", NOW, 0),
    "current": lambda store: store.current(),
    "command_at": lambda store: store.command_at(1),
    "look": lambda store: store.look(),
    "begin": lambda store: store.begin(),
    "close": lambda store: store.close(),
    "load": lambda store: store.begin().load([]),
    "scan": lambda store: store.begin().scan(Row, 1),
    "last_numbers": lambda store: store.begin().last_numbers(Account, 1),
    "last": lambda store: store.begin().last(Row, 1),
    "backlog": lambda store: store.begin().backlog(),
    "commit": lambda store: store.begin().commit(Lease(0, 0), 0, Changes([], [], [])),
    "rollback": lambda store: store.begin().rollback(),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_of_a_store_is_seen_while_it_lasts(
    name: str, awaited: Awaited, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore(MemoryDatabase())
    seen: list[str] = []

    def fails(*_: Any, **__: Any) -> None:
        clock.now_s += LATE_S
        seen.append("" if awaited.late is None else awaited.late.what)
        raise StoreUnavailable("away")

    owner = type(store) if hasattr(store, name) else type(store.begin())
    monkeypatch.setattr(owner, name, fails)
    with pytest.raises(StoreUnavailable):
        CALLS[name](WatchedStore(store, awaited))
    assert len(seen) == 1
    assert seen[0].startswith("the database (")
    assert awaited.late is None


def test_no_call_of_a_store_is_forgotten() -> None:
    public = {name for port in (Store, Transaction) for name in vars(port) if not name.startswith("_")}
    assert public == set(CALLS)


class HangingStore(MemoryStore):
    """Its transactions wait at their first read until the test lets them go on."""

    def __init__(self) -> None:
        super().__init__(MemoryDatabase())
        self.answers = threading.Event()
        self.answers.set()

    def begin(self) -> Transaction:
        self.answers.wait(WITHIN_S * 2)
        return super().begin()


@pytest.fixture
def hanging() -> Iterator[HangingStore]:
    store = HangingStore()
    yield store
    store.answers.set()


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, "what the lane waits for is seen")


async def test_a_monolith_says_that_a_database_does_not_answer(
    hanging: HangingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.runtime.awaited.LATE_S", 0.05)
    monkeypatch.setattr("coordinator.runtime.late_answers.LOOK_EVERY_S", 0.01)
    async with InProcessWrites({LEDGER.name: hanging}, [LEDGER]) as writes:
        await execute(writes, OpenAccount(owner="Ada"), Account, WriteOptions())
        assert writes.connected
        hanging.answers.clear()
        with capture_logs() as lines:

            def said() -> list[str]:
                # On a busy machine the lane's own code is late, too.
                return [line["event"] for line in lines if line.get("awaited") == "the database (begin)"]

            writing = asyncio.create_task(execute(writes, OpenAccount(owner="Bob"), Account, WriteOptions()))
            await until(lambda: "the database (begin)" in writes.unready_reason)
            assert writes.unready_reason.startswith("lane ledger is suspended: it has waited")
            assert writes.problem == "lane ledger is suspended: it waits for the database (begin)"
            await until(lambda: said() == ["answer_late"])
            hanging.answers.set()
            await writing
            await until(lambda: writes.connected)
            await until(lambda: said() == ["answer_late", "answer_came"])


async def test_a_monolith_says_that_a_handler_does_not_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.runtime.awaited.LATE_S", 0.05)
    goes_on = threading.Event()

    def waits(work: UnitOfWork, command: OpenAccount) -> Struct | None:
        goes_on.wait(WITHIN_S)
        return opened.handle(work, command)

    (opened,) = (each for each in LEDGER.handlers if each.command is OpenAccount)
    service = LEDGER.replace(handlers=(Handler(OpenAccount, waits),))
    async with InProcessWrites({LEDGER.name: MemoryStore(MemoryDatabase())}, [service]) as writes:
        writing = asyncio.create_task(execute(writes, OpenAccount(owner="Ada"), Account, WriteOptions()))
        await until(lambda: "a handler" in writes.unready_reason)
        assert writes.problem == "lane ledger is suspended: it waits for its own code, most likely a handler"
        goes_on.set()
        await writing
        await until(lambda: writes.connected)
