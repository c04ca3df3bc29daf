"""The operators' socket of a process without a broker: the same promises as through a broker."""

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.lane.control import Release
from coordinator.operate.conditions import NOBODY, LaneCondition, cause_of, state_of
from coordinator.operate.giving_orders import message_of
from coordinator.operate.kept_lanes import lane_todo
from coordinator.operate.lane_status import LaneLooks, LaneStatus, note_queue, read_process
from coordinator.operate.looking import note_conditions
from coordinator.operate.one_process import process_of, socket_of
from coordinator.operate.queue_depth import QueueDepth
from coordinator.operate.suspended_todo import suspended_todo
from coordinator.operations.lane_watch import LaneWatch
from coordinator.protocol.wire import CommandMessage
from coordinator.service.errors import (
    BrokerUnavailable,
    CommandPending,
    ConfigurationError,
    InvalidCommand,
    OutcomeUnknown,
)
from coordinator.service.ids import new_command_id
from coordinator.service.outcome import Outcome
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.sqlite.store import create_schema
from coordinator.transports.inprocess.at_hand import AtHand, CallsAtHand
from coordinator.transports.inprocess.operators_socket import (
    SocketWrites,
    check_path,
    is_listening,
    operators_socket,
    socket_beside,
)
from coordinator.worker.inprocess import InProcessWrites
from coordinator.writing import open_store
from tests.support.ledger import LEDGER

WITHIN_S = 20.0


def command(command_type: str, arguments: bytes, command_id: str | None = None) -> CommandMessage:
    return CommandMessage(command_id or new_command_id(), command_type, arguments, origin="system")


@asynccontextmanager
async def through_socket(folder: Path, store: MemoryStore | None = None) -> AsyncIterator[SocketWrites]:
    path = socket_beside(folder / "ledger.sqlite")
    lanes = InProcessWrites({"ledger": store or MemoryStore(MemoryDatabase())}, [LEDGER])
    async with lanes, operators_socket(path, lanes), SocketWrites(path) as writes, asyncio.timeout(WITHIN_S):
        yield writes


async def test_commands_given_at_once_reach_the_lane_in_their_order(tmp_path: Path) -> None:
    store = MemoryStore(MemoryDatabase())
    async with through_socket(tmp_path, store) as writes:
        given = [command("ledger.open", b'{"owner":"o%d"}' % number) for number in range(200)]
        outcomes = await asyncio.gather(*(writes.issue("ledger", each, None) for each in given))
        assert [outcome.sequence for outcome in outcomes] == list(range(1, 201))
        known = await writes.at_hand("ledger")
        assert (known.waiting, known.suspended, known.unwritable) == (0, None, None)
        lease = store.current()
        assert lease is not None
        assert known.holder == lease.holder != ""


async def test_an_order_is_taken_and_its_refusal_comes_back(tmp_path: Path) -> None:
    async with through_socket(tmp_path) as writes:
        order = Release(ordering_key="accounts:1", command_id=new_command_id())
        outcome = await writes.issue("ledger", message_of("ledger", order, 0, b""), None)
        assert outcome.status == "rejected"
        assert outcome.error is not None


async def test_what_is_raised_in_the_process_is_raised_outside_it(tmp_path: Path) -> None:
    async with through_socket(tmp_path) as writes:
        with pytest.raises(CommandPending):
            await writes.issue("ledger", command("ledger.open", b'{"owner":"a"}'), 0)
        with pytest.raises(InvalidCommand, match="must be a UUID") as invalid:
            await writes.issue("ledger", command("ledger.open", b"{}", "7"), None)
        assert invalid.value.field == "command_id"
        with pytest.raises(BrokerUnavailable, match="runs no lane 'other'"):
            await writes.issue("other", command("other.open", b"{}"), None)
        with pytest.raises(BrokerUnavailable, match="runs no lane 'other'"):
            await writes.at_hand("other")


@pytest.mark.parametrize(
    ("known", "is_paused", "errors"),
    [
        (AtHand(3), False, []),
        (AtHand(3, suspended="paused by an operator: x"), True, []),
        (AtHand(3, suspended="the database is away"), False, ["the database is away"]),
        (AtHand(3, suspended="paused by an operator: x", unwritable="no room"), True, ["no room"]),
    ],
)
def test_the_status_has_what_keeps_the_lane_from_its_work(
    monkeypatch: pytest.MonkeyPatch, known: AtHand, is_paused: bool, errors: list[str]
) -> None:
    monkeypatch.setattr("coordinator.operate.lane_status.process_of", lambda _: Path("socket"))
    monkeypatch.setattr("coordinator.operate.lane_status.at_hand", lambda *_: known)
    status = LaneStatus(lane="ledger", is_paused=is_paused, errors=[])
    assert read_process(status)
    assert (status.ready, status.errors) == (3, errors)


@pytest.mark.parametrize(
    ("cause", "todo"),
    [
        ("conflict", "end the session that has the lock"),
        # Of an earlier release, and of a later one.
        (None, "mend what it waits for"),
        ("moonlight", "mend what it waits for"),
    ],
)
async def test_what_suspends_a_lane_in_one_process_is_told_with_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str | None, todo: str
) -> None:
    async with through_socket(tmp_path) as writes:
        monkeypatch.setattr(
            InProcessWrites,
            "at_hand",
            lambda *_: AtHand(1, suspended="database is locked", cause=cause),  # type: ignore[arg-type]
        )
        known = await writes.at_hand("ledger")
    monkeypatch.setattr("coordinator.operate.lane_status.process_of", lambda _: Path("socket"))
    monkeypatch.setattr("coordinator.operate.lane_status.at_hand", lambda *_: known)
    status = LaneStatus(lane="ledger", sequence=1, rate=0.0, errors=[])
    assert read_process(status)
    state, why = state_of(status, 1, [], 5.0, is_local=True)
    assert (state, why) == ("suspended", "database is locked")
    assert todo in suspended_todo("ledger", cause_of(state, status, []))


@pytest.mark.parametrize(
    ("is_away", "state", "why"),
    [
        (True, "provider_away", "the provider does not answer"),
        (False, "working", "the last call to the provider had no answer: no"),
    ],
)
def test_how_calls_to_the_outside_do_in_one_process_is_known(
    monkeypatch: pytest.MonkeyPatch, is_away: bool, state: str, why: str
) -> None:
    trouble = "the last call to the provider had no answer: no"
    calls = CallsAtHand(under_way=1, waiting=2, oldest_s=7.04, is_provider_away=is_away, trouble=trouble)
    monkeypatch.setattr("coordinator.operate.lane_status.process_of", lambda _: Path("socket"))
    monkeypatch.setattr("coordinator.operate.lane_status.at_hand", lambda *_: AtHand(0, calls=calls))
    status = LaneStatus(lane="ledger", sequence=1, rate=0.0, errors=[])
    assert read_process(status)
    note_conditions([status], {}, [])
    assert status.effects is not None
    assert (status.effects.state, status.effects.waiting, status.effects.under_way) == (state, 2, 1)
    assert (status.effects.why or "").startswith(why)
    assert status.effects.oldest_s == 7.0


@pytest.mark.parametrize(
    ("suspended", "holder"), [(None, "this process"), ("it has lost the lane", "a process that is gone")]
)
def test_the_holder_is_the_process_that_runs_the_lane_before_its_first_command(
    monkeypatch: pytest.MonkeyPatch, suspended: str | None, holder: str
) -> None:
    known = AtHand(0, suspended, holder="this process")
    monkeypatch.setattr("coordinator.operate.lane_status.process_of", lambda _: Path("socket"))
    monkeypatch.setattr("coordinator.operate.lane_status.at_hand", lambda *_: known)
    status = LaneStatus(lane="ledger", holder="a process that is gone", taken_at=datetime.now(UTC), errors=[])
    read_process(status)
    assert (status.holder, status.taken_at is None) == (holder, suspended is None)


def test_the_process_of_a_lane_is_asked_beside_a_broker_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some lanes run in one process, others behind the broker, and an operator has the addresses of all."""
    database = tmp_path / "ledger.sqlite"
    create_schema(str(database), LEDGER)
    monkeypatch.setenv("LEDGER_DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.setenv("AMQP_URL", "amqp://127.0.0.1:9/")
    # A coordinator has the file.
    assert process_of("ledger") is None
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(socket_beside(database)))
    listening.listen()
    calls = CallsAtHand(under_way=1, waiting=2, oldest_s=7.0, is_provider_away=True, trouble=None)
    monkeypatch.setattr("coordinator.operate.lane_status.at_hand", lambda *_: AtHand(3, calls=calls))
    with LaneLooks(["ledger"]) as looks:
        (status,) = looks.look(0.0)
        note_conditions([status], looks.depths, [])
    assert (process_of("ledger"), socket_of("ledger")) == (socket_beside(database), None)
    listening.close()
    # It was killed, and left the socket: a coordinator may have the lane since.
    assert process_of("ledger") is None
    assert status.ready == 3
    assert status.effects is not None
    assert status.effects.state == "provider_away"


def test_of_a_process_that_does_not_answer_nobody_knows_whether_it_makes_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def silent(*_: object) -> AtHand:
        raise BrokerUnavailable("the process does not answer")

    monkeypatch.setattr("coordinator.operate.lane_status.process_of", lambda _: Path("socket"))
    monkeypatch.setattr("coordinator.operate.lane_status.at_hand", silent)
    for lane, makes_calls in (("payments", True), ("users", False)):
        status = LaneStatus(lane=lane, sequence=1, rate=0.0, errors=[])
        assert read_process(status)
        said = None if status.effects is None else (status.effects.state, status.effects.why)
        assert said == (("unknown", "the process does not answer") if makes_calls else None)


def test_a_file_that_nobody_can_open_keeps_no_lane_from_being_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that gets a second name while somebody looks."""
    database = tmp_path / "ledger.sqlite"
    create_schema(str(database), LEDGER)
    monkeypatch.setenv("LEDGER_DATABASE_URL", f"sqlite:///{database}")
    tmp_path.joinpath("other").hardlink_to(database)
    (error,) = LaneWatch("ledger").look().status.errors
    assert "has 2 names" in error


@pytest.mark.parametrize(
    ("ready", "is_local", "counted"),
    [(2, True, 7), (None, True, None), (None, False, 5)],
    ids=["both", "silent", "broker"],
)
def test_what_waits_with_the_broker_waits_beside_what_the_process_has(
    ready: int | None, is_local: bool, counted: int | None
) -> None:
    status = LaneStatus(lane="ledger", sequence=1, rate=0.0, ready=ready, errors=["the process does not answer"])
    note_queue(status, QueueDepth(ready=5, consumers=1), is_local=is_local)
    assert (status.ready, status.consumers) == (counted, 1)
    if is_local and ready is None:
        assert state_of(status, None, [], 0.0, is_local=True) == ("unknown", "the process does not answer")


def test_a_lane_of_one_process_that_has_lost_the_broker_is_not_started_as_a_coordinator() -> None:
    status = LaneStatus(lane="ledger", sequence=1, rate=0.0, ready=5, consumers=0, errors=[])
    state, why = state_of(status, 5, [], 5.0, is_local=True)
    todo = lane_todo(LaneCondition(lane="ledger", state=state, why=why, waiting=5, is_local=True))
    assert todo == "start the process that runs lane ledger; where it runs, its /readyz says why it is cut off"
    # One that hangs loses its connection, too.
    silent = LaneStatus(lane="ledger", sequence=1, rate=0.0, consumers=0, errors=["the process does not answer"])
    assert state_of(silent, None, [], 5.0, is_local=True) == ("stuck", f"{NOBODY}; the process does not answer")


async def test_a_process_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that was stopped: the system accepts what is sent to it."""
    monkeypatch.setattr("coordinator.transports.inprocess.operators_socket.ANSWERED_WITHIN_S", 0.05)
    monkeypatch.setattr("coordinator.transports.inprocess.operators_socket.TAKEN_WITHIN_S", 0.05)
    path = socket_beside(tmp_path / "ledger.sqlite")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        async with asyncio.timeout(WITHIN_S), SocketWrites(path) as writes:
            with pytest.raises(BrokerUnavailable, match="the process that runs lane ledger does not answer"):
                await writes.at_hand("ledger")
            given = command("ledger.deposit", b"{}")
            # Without its id the same again would be another command.
            with pytest.raises(OutcomeUnknown, match=f"does not answer: command {given.command_id} may be applied"):
                await writes.issue("ledger", given, 0.0)


async def test_an_operator_learns_that_nothing_can_be_made_safe(tmp_path: Path) -> None:
    database = tmp_path / "ledger.sqlite"
    create_schema(str(database), LEDGER)
    path = socket_beside(database)
    writes = InProcessWrites({LEDGER.name: open_store(f"sqlite:///{database}", LEDGER)}, [LEDGER])
    async with writes, operators_socket(path, writes), SocketWrites(path) as asking, asyncio.timeout(WITHIN_S):
        assert (await asking.at_hand("ledger")).unwritable is None
        os.rename(f"{database}-queue", tmp_path / "moved")  # noqa: PTH104
        unwritable = (await asking.at_hand("ledger")).unwritable
        assert unwritable is not None
        assert "is another file than the one that was opened" in unwritable


class Silent:
    """Lanes that never answer."""

    def __init__(self) -> None:
        self.was_asked = asyncio.Event()

    def at_hand(self, lane: str) -> AtHand:
        raise AssertionError(lane)

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        self.was_asked.set()
        await asyncio.Event().wait()
        raise AssertionError((lane, message, wait_s))


async def test_an_operator_learns_that_the_process_went_away(tmp_path: Path) -> None:
    path, silent = socket_beside(tmp_path / "ledger.sqlite"), Silent()
    is_listening = asyncio.Event()
    server = asyncio.create_task(_listen(path, silent, is_listening))
    async with asyncio.timeout(WITHIN_S):
        await is_listening.wait()
        async with SocketWrites(path) as writes:
            asking = asyncio.create_task(writes.issue("ledger", command("ledger.open", b"{}"), None))
            await silent.was_asked.wait()
            server.cancel()
            with pytest.raises(OutcomeUnknown, match="is gone"):
                await asking
    with pytest.raises(BrokerUnavailable, match="no process takes orders for this lane"):
        async with SocketWrites(path):
            pass
    with suppress(asyncio.CancelledError):
        await server


async def _listen(path: Path, lanes: Silent, is_listening: asyncio.Event) -> None:
    async with operators_socket(path, lanes):
        is_listening.set()
        await asyncio.Event().wait()


def test_what_a_killed_process_has_forked_does_not_listen(tmp_path: Path) -> None:
    """A worker of a pool waits for work of a parent that is gone: whoever asks there would wait, too."""
    path = tmp_path / "ledger-operators"
    ran = subprocess.run([sys.executable, "-c", _FORKS_AND_IS_KILLED, path], stdout=subprocess.PIPE, check=False)
    try:
        assert path.exists()
        assert not is_listening(path)
    finally:
        os.kill(int(ran.stdout), signal.SIGKILL)


_FORKS_AND_IS_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from coordinator.transports.inprocess.operators_socket import operators_socket

async def run():
    async with operators_socket(Path(sys.argv[1]), None):
        if child := os.fork():
            print(child, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        os.close(1)
        signal.pause()

asyncio.run(run())
"""


async def test_what_a_killed_process_left_is_replaced_and_only_its_user_may_connect(tmp_path: Path) -> None:
    path = socket_beside(tmp_path / "ledger.sqlite")
    path.touch()
    async with operators_socket(path, Silent()):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_path_that_no_socket_can_have_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with pytest.raises(ConfigurationError, match="too long"):
        async with operators_socket(socket_beside(deep / "a.sqlite"), Silent()):
            pass
    with pytest.raises(ConfigurationError, match="too long"):
        check_path(socket_beside(deep / "a.sqlite"))
    monkeypatch.chdir(deep)
    check_path(socket_beside(deep / "a.sqlite"))
    async with operators_socket(socket_beside(deep / "a.sqlite"), Silent()):
        assert [path.name for path in deep.iterdir()] == ["a.sqlite-operators"]


@pytest.mark.parametrize("turns", range(6))
def test_no_connection_is_left_open_however_short_before_the_end_it_came(tmp_path: Path, turns: int) -> None:
    path, loop = tmp_path / "operators", asyncio.new_event_loop()
    name = os.path.relpath(path)

    async def come_and_go() -> None:
        lanes = InProcessWrites({}, [])
        with socket.socket(socket.AF_UNIX) as operator:
            async with operators_socket(path, lanes):
                operator.connect(name)
                for _ in range(turns):
                    await asyncio.sleep(0)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        loop.run_until_complete(come_and_go())
        loop.close()
        gc.collect()
    assert [str(each.message) for each in seen] == []
