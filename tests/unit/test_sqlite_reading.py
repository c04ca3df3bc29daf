"""A gateway reads an SQLite file, beside the lane that writes it."""

import asyncio
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import pytest
from sqlalchemy import Numeric, cast, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator import Digits, Service
from coordinator.client.command_log import open_command_log
from coordinator.client.database import close_database, open_database, reading_problem
from coordinator.client.writes import WriteOptions, execute
from coordinator.reading import table_of
from coordinator.service.errors import DatabaseUnavailable
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


async def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    """A gateway of a release whose migration did not run yet would answer each read of the table with 503."""

    class Newer(Account, table="accounts", key="id"):
        Nickname: str = ""
        age: int = 0

    path = tmp_path / AWKWARD
    create_schema(str(path), LEDGER)
    engine = engine_of(path)
    try:
        assert await reading_problem(engine, LEDGER.name, (Account, LogEntry.table)) is None
        assert await reading_problem(engine, LEDGER.name, (Account, Newer)) == (
            "accounts has no column Nickname, age: run `coordinator migrate`"
        )
    finally:
        await close_database(engine)


async def test_decimals_that_are_cast_are_added_and_compared_as_numbers(tmp_path: Path) -> None:
    """As docs/YOUR_SERVICE.md says of routes of one's own: SQLite keeps them as texts."""

    class Invoice(Row, table="invoices", key="id"):
        id: int
        amount: Annotated[Decimal, Digits(12, 2)]

    billing = Service("billing", models=(Invoice,))
    path = tmp_path / "billing.sqlite"
    create_schema(str(path), billing)
    with sqlite3.connect(path) as writing:
        amounts = [*["0.10"] * 9, "10.00"]
        writing.executemany("INSERT INTO invoices (id, amount) VALUES (?, ?)", enumerate(amounts, start=1))
    writing.close()
    amount = cast(table_of(billing, Invoice).c.amount, Numeric(12, 2))
    engine = engine_of(path)
    try:
        async with engine.connect() as reading:
            assert await reading.scalar(select(func.sum(amount)).where(amount < Decimal(2))) == Decimal("0.90")
            assert await reading.scalar(select(func.max(amount))) == Decimal(10)
    finally:
        await close_database(engine)
