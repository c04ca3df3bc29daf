"""A gateway reads an SQLite file, beside the lane that writes it."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.command_log import open_command_log
from coordinator.client.database import check_reads, close_database, open_database, reading_problem
from coordinator.client.writes import WriteOptions, execute
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.service.rows import Row
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from coordinator.worker.inprocess import InProcessWrites
from tests.support.ledger import LEDGER, Account, OpenAccount

AWKWARD = "a b%20c?d#e.sqlite"


def engine_of(path: Path) -> AsyncEngine:
    opened = open_database(f"sqlite:///{path}")
    assert isinstance(opened, AsyncEngine)
    return opened


async def test_what_a_lane_has_committed_is_read_at_once_by_many(tmp_path: Path) -> None:
    path = tmp_path / AWKWARD
    create_schema(str(path), LEDGER)
    engine = engine_of(path)
    try:
        assert await reading_problem(engine, LEDGER.name, (Account.table, LogEntry.table)) is None
        async with InProcessWrites({"ledger": SqliteStore(str(path), LEDGER)}, [LEDGER]) as writes:
            written = await execute(writes, OpenAccount(owner="ada"), Account, WriteOptions())
            log = open_command_log(engine)
            found = await asyncio.gather(*(log.find(written.command_id) for _ in range(30)))
            assert {entry and entry.sequence for entry in found} == {written.sequence}
    finally:
        await close_database(engine)


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / AWKWARD
    create_schema(str(path), LEDGER)
    engine = engine_of(path)
    try:
        async with engine.connect() as connection:
            with pytest.raises(OperationalError, match="readonly"):
                await connection.execute(text("DELETE FROM command_log"))
    finally:
        await close_database(engine)


async def test_a_column_that_no_migration_has_made_yet_is_named(tmp_path: Path) -> None:
    """A gateway of a newer release that is started before `migrate` would refuse every read of the table."""

    class Wider(Account, table="accounts", key="id"):
        limit_cents: int = 0
        branch: str = "main"

    path = tmp_path / AWKWARD
    create_schema(str(path), LEDGER)
    engine = engine_of(path)
    try:
        assert await reading_problem(engine, LEDGER.name, (Account.table,), [Account]) is None
        problem = await reading_problem(engine, LEDGER.name, (Account.table,), [Wider])
        assert problem == "accounts has no column limit_cents, branch: run `coordinator migrate`"
        with pytest.raises(ConfigurationError, match="no column limit_cents, branch"):
            await check_reads(engine, LEDGER.name, [Wider])
    finally:
        await close_database(engine)


async def test_a_missing_file_is_not_made_and_a_missing_table_is_named(tmp_path: Path) -> None:
    class Elsewhere(Row, table="elsewhere", key="id"):
        id: int

    missing, empty = tmp_path / "missing.sqlite", tmp_path / "empty.sqlite"
    empty.touch()
    engine = engine_of(missing)
    try:
        with pytest.raises(DatabaseUnavailable, match="unable to open"):
            await reading_problem(engine, LEDGER.name, (Elsewhere.table,))
    finally:
        await close_database(engine)
    assert not missing.exists()
    engine = engine_of(empty)
    try:
        assert await reading_problem(engine, LEDGER.name, (Elsewhere.table,)) == (
            "elsewhere is not there: run `coordinator migrate`"
        )
    finally:
        await close_database(engine)
