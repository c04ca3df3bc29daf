"""`BlockingWrites`: threads that wait, beside an event loop of their own."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from coordinator.client import BlockingWrites, WriteOptions
from coordinator.protocol.wire import CommandMessage
from coordinator.service.errors import (
    BrokerUnavailable,
    CommandPending,
    CommandRejected,
    ConfigurationError,
    InvalidCommand,
    OutcomeUnknown,
)
from coordinator.service.ids import command_id_for, new_command_id
from coordinator.service.outcome import Outcome
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from coordinator.worker.inprocess import InProcessWrites
from tests.support.ledger import LEDGER, Account, Deposit, OpenAccount

ROOT = Path(__file__).parents[2]
WITHIN_S = 10.0
THREADS = 50


class Holding:
    """Takes commands and gives no outcome until it may. It is connected when it is told so."""

    def __init__(self, *, is_connected: bool = True) -> None:
        self.taken: list[CommandMessage] = []
        self.arrived = threading.Event()
        self.left = threading.Event()
        self.may_go = threading.Event()
        self.is_closed = False
        self._is_connected = is_connected

    async def start(self) -> None:
        pass

    async def wait_connected(self, timeout_s: float) -> None:
        if not self._is_connected:
            self.arrived.set()
            await asyncio.sleep(timeout_s)
            raise BrokerUnavailable(f"not connected within {timeout_s} s")

    async def close(self) -> None:
        self.is_closed = True

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        self.taken.append(message)
        self.arrived.set()
        try:
            while not self.may_go.is_set():  # noqa: ASYNC110  # an event of threads
                await asyncio.sleep(0.001)
        finally:
            self.left.set()
        return Outcome(command_id=message.command_id, type=message.type, status="applied", sequence=1)


@pytest.fixture
def holding() -> Holding:
    return Holding()


@pytest.fixture
def blocking(holding: Holding) -> Iterator[BlockingWrites]:
    with BlockingWrites(lambda: holding) as writes:
        yield writes


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "ledger.db")
    create_schema(path, LEDGER)
    return path


def on_file(path: str) -> BlockingWrites:
    return BlockingWrites(lambda: InProcessWrites({LEDGER.name: SqliteStore(path, LEDGER)}, [LEDGER]))


def log_of(path: str) -> list[LogEntry]:
    with closing(SqliteStore(path, LEDGER)) as store:
        transaction = store.begin()
        entries = transaction.scan(LogEntry, 1000)
        transaction.rollback()
        return entries


def test_threads_at_once_have_each_its_own_outcome(path: str) -> None:
    with on_file(path) as writes:
        account = writes.execute(OpenAccount(owner="ada"), Account).value
        start = threading.Barrier(THREADS)

        def deposit(amount: int) -> int:
            start.wait(WITHIN_S)
            return sum(writes.execute(Deposit(id=account.id, amount=amount), Account).sequence for _ in range(4))

        with ThreadPoolExecutor(THREADS) as threads:
            sequences = list(threads.map(deposit, range(THREADS)))
        assert writes.execute(Deposit(id=1, amount=0), Account).value.balance == 4 * sum(range(THREADS))
    assert sum(sequences) == sum(range(2, 4 * THREADS + 2)), "each command has a place of its own"


def test_options_and_errors_are_those_of_the_asynchronous_one(path: str) -> None:
    with on_file(path) as writes:
        once = WriteOptions(idempotency_key="once")
        first = writes.execute(OpenAccount(owner="ada"), Account, once)
        again = writes.execute(OpenAccount(owner="ada"), Account, once)
        assert (first.replayed, again.replayed) == (False, True)
        assert first.command_id == again.command_id == command_id_for(LEDGER.name, "once")
        assert first.value == again.value
        command_id = new_command_id().upper()
        named = writes.execute(OpenAccount(owner="bob"), Account, WriteOptions(command_id=command_id))
        assert named.command_id == command_id.lower()
        with pytest.raises(CommandRejected) as rejected:
            writes.execute(Deposit(id=1, amount=1), Account, WriteOptions(expected_version=7))
        assert rejected.value.code == "version_conflict"
        with pytest.raises(InvalidCommand, match="amount"):
            writes.execute(Deposit(id=1, amount=10**7), Account)
        with pytest.raises(CommandPending):
            writes.execute(Deposit(id=1, amount=1), Account, WriteOptions(wait_s=0))
    with on_file(path) as writes:
        assert writes.execute(Deposit(id=1, amount=1), Account).value.balance == 2


@pytest.fixture
def interrupted_once() -> Iterator[threading.Event]:
    """SIGINT raises KeyboardInterrupt once, and sets this."""
    was_raised = threading.Event()

    def handle(*_: object) -> None:
        if not was_raised.is_set():
            was_raised.set()
            raise KeyboardInterrupt

    handler = signal.signal(signal.SIGINT, handle)
    yield was_raised
    signal.signal(signal.SIGINT, handler)


def test_who_interrupts_a_waiting_thread_is_told_of_the_command(
    blocking: BlockingWrites, holding: Holding, interrupted_once: threading.Event
) -> None:
    main = threading.get_ident()

    def interrupt() -> None:
        holding.arrived.wait(WITHIN_S)
        # A signal that comes just before Python blocks is seen only with the next one.
        while not interrupted_once.wait(0.05):
            signal.pthread_kill(main, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt) as interrupted:
        blocking.execute(OpenAccount(owner="ada"), Account)
    interrupting.join()
    (note,) = interrupted.value.__notes__
    assert f"command {holding.taken[0].command_id} may be applied" in note
    assert holding.left.wait(WITHIN_S), "nobody waits for it in the loop either"
    holding.may_go.set()
    assert blocking.execute(Deposit(id=1, amount=1), type(None)).sequence == 1, "it goes on"


def test_closing_tells_those_who_wait_and_refuses_those_who_come(holding: Holding) -> None:
    writes = BlockingWrites(lambda: holding)
    writes.open()
    with ThreadPoolExecutor(1) as threads:
        told = threads.submit(writes.execute, OpenAccount(owner="ada"), Account)
        assert holding.arrived.wait(WITHIN_S)
        writes.close()
        with pytest.raises(OutcomeUnknown, match="may be applied"):
            told.result(WITHIN_S)
    assert holding.is_closed
    with pytest.raises(BrokerUnavailable, match="closed: the command was not handed over") as refused:
        writes.execute(OpenAccount(owner="bob"), Account)
    assert refused.type is BrokerUnavailable
    writes.close()
    with pytest.raises(ConfigurationError, match="was closed already"):
        writes.open()


def test_no_thread_waits_for_ever_however_close_and_execute_meet() -> None:
    for _ in range(50):
        holding = Holding()
        holding.may_go.set()
        writes = BlockingWrites(lambda: holding)  # noqa: B023  # opened within this turn
        writes.open()
        start = threading.Barrier(5)

        def write(writes: BlockingWrites = writes, start: threading.Barrier = start) -> None:
            start.wait(WITHIN_S)
            while True:
                try:
                    writes.execute(OpenAccount(owner="ada"), type(None))
                except BrokerUnavailable:
                    return

        with ThreadPoolExecutor(4) as threads:
            ended = [threads.submit(write) for _ in range(4)]
            start.wait(WITHIN_S)
            writes.close()
            for each in ended:
                each.result(WITHIN_S)


def use_at(place: int, writes: BlockingWrites, use: Callable[[BlockingWrites], object]) -> bool:
    """Issue a command, and at that place (a bytecode) `use` them, as a signal's handler would. False: it is shorter."""
    passed = 0
    is_within = False

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal passed, is_within
        if frame.f_code is BlockingWrites._outcome_of.__code__:
            is_within = event != "return"
        if not is_within:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            passed += 1
            if passed == place:
                use(writes)
        return trace

    def issue() -> None:
        sys.settrace(trace)
        try:
            writes.execute(OpenAccount(owner="ada"), type(None))
        except (BrokerUnavailable, OutcomeUnknown):
            assert use is BlockingWrites.close
        finally:
            sys.settrace(None)
        ended.set()

    ended = threading.Event()
    # A daemon, so that one that hangs fails this test and no other.
    threading.Thread(target=issue, daemon=True).start()
    assert ended.wait(WITHIN_S), f"it hangs when it is used at place {place}"
    return passed >= place


@pytest.mark.parametrize(
    "use",
    [
        BlockingWrites.close,
        lambda writes: writes.execute(OpenAccount(owner="bob"), type(None)),
    ],
    ids=["close", "execute"],
)
def test_a_signal_s_handler_may_use_them_wherever_it_interrupts(use: Callable[[BlockingWrites], object]) -> None:
    place, is_longer = 0, True
    while is_longer:
        place += 1
        holding = Holding()
        holding.may_go.set()
        writes = BlockingWrites(lambda: holding)  # noqa: B023  # opened within this turn
        writes.open()
        is_longer = use_at(place, writes, use)
        writes.close()
    assert place > 50


async def test_a_thread_with_an_event_loop_is_not_stopped(blocking: BlockingWrites, holding: Holding) -> None:
    holding.may_go.set()
    with pytest.raises(ConfigurationError, match=r"execute would stop the event loop.*, await coordinator"):
        blocking.execute(OpenAccount(owner="ada"), Account)
    with pytest.raises(ConfigurationError, match=r"open would stop the event loop.*asyncio\.to_thread\(writes\.open\)"):
        BlockingWrites(lambda: holding).open()
    written = await asyncio.to_thread(blocking.execute, OpenAccount(owner="ada"), type(None))
    assert written.sequence == 1


def test_what_is_not_open_says_so(holding: Holding) -> None:
    writes = BlockingWrites(lambda: holding)
    with pytest.raises(ConfigurationError, match=r"not open: use them in `with`"):
        writes.execute(OpenAccount(owner="ada"), Account)
    with writes, pytest.raises(ConfigurationError, match="was opened already: make another one"):
        writes.open()


def test_no_connection_within_the_time_is_an_error_and_leaves_nothing() -> None:
    holding = Holding(is_connected=False)
    writes = BlockingWrites(lambda: holding, connect_timeout_s=0.01)
    with pytest.raises(BrokerUnavailable, match=r"not connected within 0\.01 s"):
        writes.open()
    assert holding.is_closed
    assert "blocking writes" not in {thread.name for thread in threading.enumerate()}


def test_without_a_time_it_opens_unconnected() -> None:
    holding = Holding(is_connected=False)
    holding.may_go.set()
    with BlockingWrites(lambda: holding, connect_timeout_s=0) as writes:
        assert writes.execute(OpenAccount(owner="ada"), type(None)).sequence == 1


def test_closing_while_it_connects_ends_the_opening() -> None:
    holding = Holding(is_connected=False)
    writes = BlockingWrites(lambda: holding, connect_timeout_s=WITHIN_S)
    with ThreadPoolExecutor(1) as threads:
        opened = threads.submit(writes.open)
        assert holding.arrived.wait(WITHIN_S)
        writes.close()
        with pytest.raises(BrokerUnavailable, match="closed before they were connected"):
            opened.result(WITHIN_S)


def test_an_error_of_what_makes_the_writes_is_raised_by_open() -> None:
    def make() -> Holding:
        raise ConfigurationError("AMQP_URL is missing")

    with pytest.raises(ConfigurationError, match="AMQP_URL is missing"):
        BlockingWrites(make).open()


PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
from coordinator import ConfigurationError, Unavailable
from coordinator.client import BlockingWrites
from coordinator.writing import InProcessWrites, open_store
from tests.support.ledger import LEDGER, Account, Deposit, OpenAccount

path, = sys.argv[1:]

def make():
    return InProcessWrites({"ledger": open_store(f"sqlite:///{path}", LEDGER)}, [LEDGER])

writes = BlockingWrites(make)
"""


def run(path: str, program: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", PROGRAM + program, path],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def unlogged(text: str) -> list[str]:
    """The lines that are none of the log, each of which begins with its time."""
    return [line for line in text.splitlines() if not line.startswith("20")]


def test_a_fork_is_told_to_open_its_own(path: str) -> None:
    ended = run(
        path,
        """
writes.open()
writes.execute(OpenAccount(owner="ada"), Account)
child = os.fork()
if child == 0:
    signal.alarm(30)  # it ends even if it hangs
    for use in (lambda: writes.execute(OpenAccount(owner="bob"), Account), writes.open):
        try:
            use()
        except ConfigurationError as error:
            print(str(error).replace(str(os.getppid()), "PARENT").replace(str(os.getpid()), "CHILD"))
    writes.close()
    sys.exit(7)  # with what is to be done at exit
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(writes.execute(Deposit(id=1, amount=5), Account).value.balance)
writes.close()
""",
    )
    assert (ended.returncode, unlogged(ended.stderr)) == (0, []), ended.stderr
    *told, balance = ended.stdout.splitlines()
    assert len(told) == 2
    for line in told:
        assert "were opened in process PARENT, and have no connection in its fork CHILD: open them in each" in line
    assert balance == "5"


def test_what_was_made_before_a_fork_is_opened_after_it(path: str) -> None:
    ended = run(
        path,
        """
child = os.fork()
if child == 0:
    signal.alarm(30)  # it ends even if it hangs
    with writes:
        writes.execute(OpenAccount(owner="ada"), Account)
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
with writes:
    print(writes.execute(Deposit(id=1, amount=5), Account).value.balance)
""",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "5"


@pytest.mark.parametrize(
    "ending", ["", "raise SystemExit(0)", "threading.Thread(target=waits, daemon=True).start(); sys.exit()"]
)
def test_a_program_that_forgets_to_close_ends(path: str, ending: str) -> None:
    ended = run(
        path,
        f"""
def waits():
    try:
        while True:
            writes.execute(Deposit(id=1, amount=1), Account)
    except Unavailable:
        pass

writes.open()
writes.execute(OpenAccount(owner="ada"), Account)
{ending}
""",
    )
    assert (ended.returncode, unlogged(ended.stderr)) == (0, [])
    assert log_of(path)[0].status == "applied"
