"""A lane moves from a file to PostgreSQL with real processes, a broker, and clients that write all the time."""

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from coordinator.migrations.migrate import migrate
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings, DatabaseSettings
from coordinator.service.errors import CommandPending, Unavailable
from coordinator.transports.rabbitmq.rights import OPERATOR, gateway_account
from coordinator.writing import RabbitWrites
from tests.support.accounts import as_account
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.system import START_TIMEOUT_S, System, wait_ready, wait_until

pytestmark = pytest.mark.upgrades

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PAUSE_S_MAX = 2.0
ROWS = int(os.environ.get("MOVE_ROWS", "2000"))
WRITERS = int(os.environ.get("MOVE_WRITERS", "8"))
"""`make move-large` has more of both."""


class Moving:
    """Seats in a file, and an empty database for them."""

    def __init__(self, system: System, source: str, target: str) -> None:
        self.system = system
        self.source = source
        self.target = target

    def numbers(self, url: str, query: str) -> list[int]:
        engine = sql_engine(url)
        with engine.connect() as connection:
            found = [int(each) for each in connection.execute(text(query)).scalars()]
        engine.dispose()
        return found

    def has_begun(self) -> bool:
        return bool(self.numbers(self.source, "SELECT count(*) FROM lane_lease WHERE move IS NOT NULL")[0])

    async def coordinator(self, *arguments: str) -> tuple[int, str, str]:
        """Run one of an operator's commands; its exit status, and what it has said."""
        broker = as_account(self.system.environment["AMQP_URL"], OPERATOR)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "coordinator", *arguments),
            env=self.system.environment | {"AMQP_URL": broker},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, errors = await process.communicate()
        return process.returncode or 0, said.decode(), errors.decode()


@pytest.fixture
def moving(databases: FreshDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moving]:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "seats", raising=False)
    service = importlib.import_module("seats").seats
    monkeypatch.delitem(sys.modules, "seats")
    source, target = f"sqlite:///{tmp_path / 'seats.db'}", databases.new("USERS_DATABASE_URL")
    # Without forks: theirs do not look where this service is.
    system = System(*databases.environments(), tmp_path)
    system.environment |= {"PYTHONPATH": str(EXAMPLES)}
    system.prepare_other("seats:seats", service, source)
    migrate(service, DatabaseSettings(database_url=target))
    yield Moving(system, source, target)
    system.stop()


class Writers:
    """Clients that issue a command again, under its id, until they are told its outcome."""

    def __init__(self, system: System, at_once_max: int) -> None:
        url = as_account(system.environment["AMQP_URL"], gateway_account("seats"))
        self._writes = RabbitWrites(
            BrokerSettings(url=url, heartbeat_s=5),
            confirm_timeout_s=30,
            wait_s=30,
            in_flight_max=at_once_max,
            log=None,
            name="gateway.seats.test",
        )
        self.told: list[int] = []
        """The sequences of the commands, which were all applied."""

    async def start(self) -> None:
        await self._writes.start()
        await self._writes.wait_connected()

    async def close(self) -> None:
        await self._writes.close()

    async def add_seats(self, first: int, count: int) -> None:
        """All at once."""
        await asyncio.gather(*(self.add_seat(number) for number in range(first, first + count)))

    async def add_seat(self, number: int) -> None:
        message = CommandMessage(
            command_id=f"00000000-0000-7000-8000-{number:012d}",
            type="seats.add",
            arguments=b'{"place": "P%d"}' % number,
        )
        while True:
            with suppress(CommandPending, Unavailable):
                outcome = await self._writes.issue("seats", message, None)
                break
        assert outcome.status == "applied", outcome
        assert outcome.sequence is not None
        self.told.append(outcome.sequence)

    async def add_until(self, is_over: asyncio.Event, first: int) -> None:
        """One after the other, and five more."""
        left, number = 5, first
        while left:
            await self.add_seat(number)
            left, number = left - is_over.is_set(), number + 1


async def move_under_load(moving: Moving, rows: int, writers: int) -> None:
    """Put so many rows into the file, move the lane while so many clients write, and compare what they were told."""
    system, is_over = moving.system, asyncio.Event()
    old = system.start_coordinator("seats")
    clients = Writers(system, at_once_max=10_000)
    await clients.start()
    for first in range(0, rows, 5000):
        await clients.add_seats(first, min(5000, rows - first))
    writing = [asyncio.create_task(clients.add_until(is_over, (1 + each) * 1_000_000)) for each in range(writers)]
    moved = asyncio.create_task(moving.coordinator("move", "seats", "--to", moving.target, "--json"))
    await asyncio.to_thread(wait_until, moving.has_begun, "the move has begun")
    # It waits for the lane, so that nobody waits for it.
    new, url = system.launch_coordinator("seats", {"SEATS_DATABASE_URL": moving.target})
    status, said, errors = await moved
    assert status == 0, errors
    answer = json.loads(said)
    await asyncio.to_thread(wait_ready, url, new)
    # As it was told to: no fault.
    assert "database_unavailable" not in new.log_path.read_text()
    is_over.set()
    await asyncio.gather(*writing)
    await clients.close()
    assert answer["paused_s"] < PAUSE_S_MAX
    await asyncio.to_thread(wait_until, lambda: not old.alive, "the old coordinator ends", old, START_TIMEOUT_S)
    assert (old.exit_status, "has moved to postgresql://" in old.log_tail(20)) == (2, True)
    log = moving.numbers(moving.target, "SELECT sequence FROM command_log ORDER BY sequence")
    assert log == [*range(1, len(clients.told) + 1)] == sorted(clients.told)
    assert moving.numbers(moving.target, "SELECT id FROM seats ORDER BY id") == log
    assert moving.numbers(moving.source, "SELECT max(sequence) FROM command_log") == [answer["sequence"]]
    assert rows < answer["sequence"] < len(log)


async def nobody_comes_back(moving: Moving) -> None:
    again, _ = moving.system.launch_coordinator("seats", {})
    await asyncio.to_thread(wait_until, lambda: not again.alive, "it refuses to start", again, START_TIMEOUT_S)
    assert (again.exit_status, "has moved to postgresql://" in again.log_tail(20)) == (2, True)
    status, _, errors = await moving.coordinator("pause", "seats", "--reason", "x")
    assert (status, "has moved to" in errors) == (2, True), errors
    # Whoever was not told that it is done may run it again.
    status, said, _ = await moving.coordinator("move", "seats", "--to", moving.target, "--json")
    assert (status, json.loads(said)["paused_s"]) == (0, None)


@pytest.mark.timeout(120 + ROWS / 50)
async def test_a_lane_moves_under_load_and_nothing_is_lost_doubled_or_out_of_order(moving: Moving) -> None:
    await move_under_load(moving, rows=ROWS, writers=WRITERS)
    await nobody_comes_back(moving)
