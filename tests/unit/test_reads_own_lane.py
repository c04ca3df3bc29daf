"""A reader whose address comes to lead to another lane's database reads nothing there."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from coordinator.client.database import close_database, open_database, reading
from coordinator.stores.kinds import ReadsAnotherLanes


def _make(path: Path, lane: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE lane_lease (lane TEXT)")
        connection.execute("INSERT INTO lane_lease VALUES (?)", (lane,))
    connection.close()


async def test_a_new_connection_to_another_lanes_database_is_not_used(tmp_path: Path) -> None:
    here, own = tmp_path / "here.db", tmp_path / "own.db"
    _make(here, "users")
    database = open_database(f"sqlite:///{here}", 1, lane="users")

    async def read() -> str:
        async with reading(), database.connect() as connection:
            return str((await connection.execute(text("SELECT lane FROM lane_lease"))).scalar())

    assert await read() == "users"
    await close_database(database)
    here.rename(own)
    _make(here, "payments")
    for _ in range(2):
        with pytest.raises(ReadsAnotherLanes):
            await read()
    here.unlink()
    own.rename(here)
    assert await read() == "users"
    await close_database(database)


async def test_a_database_without_a_lease_shows_nothing(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/empty.db", 1, lane="users")
    sqlite3.connect(tmp_path / "empty.db").close()
    async with reading(), database.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    await close_database(database)
