"""In process, over a crash: what was accepted is applied by the next process, in its order."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.client.writes import WriteOptions, execute
from coordinator.migrations.migrate import migrate
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import DatabaseSettings, LaneSettings
from coordinator.service.errors import CommandPending, ConfigurationError, OutcomeUnknown, Overloaded
from coordinator.service.ids import new_command_id
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from coordinator.transports.inprocess.journal import FileJournal, JournalUnavailable
from coordinator.transports.inprocess.queue import COMMAND_BYTES, QUEUE_BYTES_MAX
from coordinator.worker.inprocess import InProcessWrites
from tests.support.ledger import LEDGER, Account, OpenAccount
from tests.support.releases import AddNote, Note, OldAddNote, new, old
from tests.support.system import wait_until

ROOT = Path(__file__).parents[2]
WITHIN_S = 20.0
COMMANDS = 20
PROCESS = """
import asyncio, sys

from coordinator.client.writes import WriteOptions, execute
from coordinator.service.errors import CommandPending
from coordinator.stores.sqlite.store import SqliteStore
from coordinator.worker.inprocess import InProcessWrites
from tests.support.ledger import LEDGER, Account, OpenAccount

told, sys.stdout = sys.stdout, sys.stderr  # where log lines go

async def main(path, count):
    async with InProcessWrites({"ledger": SqliteStore(path, LEDGER)}, [LEDGER]) as writes:
        for number in range(count):
            try:
                await execute(writes, OpenAccount(owner=f"o{number}"), Account, WriteOptions(wait_s=0))
            except CommandPending:
                print(number, file=told, flush=True)
        await asyncio.sleep(600)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "ledger.db")
    create_schema(path, LEDGER)
    return path


def writes_on(path: str, queue_bytes_max: int = QUEUE_BYTES_MAX) -> InProcessWrites:
    settings = LaneSettings(retry_delay_s=0.05, retry_delay_s_max=0.1)
    return InProcessWrites(
        {LEDGER.name: SqliteStore(path, LEDGER)}, [LEDGER], settings, queue_bytes_max=queue_bytes_max
    )


def test_what_was_accepted_is_applied_by_the_next_process(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
        # The lane cannot commit, and nothing is settled.
        somebody.execute("BEGIN EXCLUSIVE")
        with subprocess.Popen(
            [sys.executable, "-c", PROCESS, path, str(COMMANDS)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            accepted = [int(process.stdout.readline()) for _ in range(COMMANDS)]
            process.kill()
        somebody.execute("ROLLBACK")
    assert accepted
    asyncio.run(until_applied(path, accepted))
    with closing(sqlite3.connect(path)) as after:
        assert after.execute("SELECT owner FROM accounts ORDER BY id").fetchall() == [(f"o{n}",) for n in accepted]


async def until_applied(path: str, accepted: list[int]) -> None:
    """The next process: a command behind them has the last number."""
    async with asyncio.timeout(WITHIN_S), writes_on(path) as writes:
        last = await execute(writes, OpenAccount(owner="last"), Account, WriteOptions())
        assert last.value.id == len(accepted) + 1
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM accounts WHERE owner = 'last'")
        database.commit()
    journal = FileJournal(Path(f"{path}-queue"))
    assert journal.read() == []
    journal.close()


async def test_a_lane_s_journal_is_one_process_s(path: str) -> None:
    async with writes_on(path):
        with pytest.raises(ConfigurationError, match="another process runs a lane on this file"):
            await writes_on(path).start()


async def test_a_queue_that_is_full_refuses(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
        somebody.execute("BEGIN EXCLUSIVE")
        async with asyncio.timeout(WITHIN_S), writes_on(path, queue_bytes_max=2 * COMMAND_BYTES) as writes:
            with pytest.raises(CommandPending):
                await execute(writes, OpenAccount(owner="a"), Account, WriteOptions(wait_s=0))
            with pytest.raises(Overloaded, match="wait for lane ledger"):
                await execute(writes, OpenAccount(owner="b"), Account, WriteOptions(wait_s=0))
            somebody.execute("ROLLBACK")


async def test_who_cannot_be_told_that_it_is_safe_is_told_so(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.worker.local_lane.journal_of", lambda *_: None)
    async with asyncio.timeout(WITHIN_S), writes_on(path) as writes:
        with pytest.raises(OutcomeUnknown, match="would be lost with this process"):
            await execute(writes, OpenAccount(owner="a"), Account, WriteOptions(wait_s=0))


async def test_a_lane_that_is_suspended_or_cannot_write_its_journal_is_not_connected(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
        async with asyncio.timeout(WITHIN_S), writes_on(path) as writes:
            await execute(writes, OpenAccount(owner="a"), Account, WriteOptions())
            assert (writes.connected, writes.unready_reason) == (True, "")
            somebody.execute("BEGIN EXCLUSIVE")
            with pytest.raises(CommandPending):
                await execute(writes, OpenAccount(owner="b"), Account, WriteOptions(wait_s=0))
            await asyncio.to_thread(wait_until, lambda: not writes.connected, "it is suspended")
            assert "lane ledger is suspended: " in writes.unready_reason
            said = "lane ledger is suspended: somebody keeps rows or tables of its database locked"
            assert writes.problem == said, "for anybody: the reason may quote rows"
            somebody.execute("ROLLBACK")
            await asyncio.to_thread(wait_until, lambda: writes.connected, "it goes on")
            monkeypatch.setattr(FileJournal, "write", _full)
            somebody.execute("BEGIN EXCLUSIVE")
            with pytest.raises(OutcomeUnknown, match="not safe"):
                await execute(writes, OpenAccount(owner="c"), Account, WriteOptions(wait_s=0))
            somebody.execute("ROLLBACK")
            await execute(writes, OpenAccount(owner="d"), Account, WriteOptions())
            assert writes.unready_reason == "the journal of lane ledger cannot be written: the disk is full"
            assert writes.problem == "what lane ledger accepts cannot be written"


def _full(*_: object) -> None:
    raise JournalUnavailable("the disk is full")


def test_a_version_that_a_newer_release_has_announced_waits_for_its_process(tmp_path: Path) -> None:
    path = str(tmp_path / "notes.db")
    settings = LaneSettings(retry_delay_s=0.05, retry_delay_s_max=0.1)
    migrate(new, DatabaseSettings(database_url=f"sqlite:///{path}"))
    newer_note = CommandMessage(new_command_id(), AddNote.type, b'{"title":"b"}', command_version=2)

    async def with_old() -> None:
        async with InProcessWrites({"notes": SqliteStore(path, old)}, [old], settings) as writes:
            assert (await execute(writes, OldAddNote(text="a"), Note, WriteOptions())).value.title == "a"
            with pytest.raises(CommandPending):
                await writes.issue("notes", newer_note, 0.3)
            with pytest.raises(CommandPending):
                await execute(writes, OldAddNote(text="c"), Note, WriteOptions(wait_s=0))
            assert "has version 2, which a newer release has announced" in writes.unready_reason
            assert not writes.connected

    async def with_new() -> list[str]:
        async with InProcessWrites({"notes": SqliteStore(path, new)}, [new], settings) as writes:
            again = await writes.issue("notes", newer_note, WITHIN_S)
            assert again.status == "applied"
            last = await execute(writes, AddNote(title="d"), Note, WriteOptions())
            assert (last.sequence, last.value.id) == (4, 4)
        with closing(sqlite3.connect(path)) as after:
            return [title for (title,) in after.execute("SELECT title FROM notes ORDER BY id")]

    asyncio.run(with_old())
    assert asyncio.run(with_new()) == ["a", "b", "c", "d"]
