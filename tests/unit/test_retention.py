"""What is too old goes by itself, a little at a time, and only while this process has the lane."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from coordinator.client.writes import WriteOptions, execute
from coordinator.runtime.settings import LaneSettings
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.stores.admin import LaneAdmin, LetterQuery
from coordinator.stores.audit import ActQuery
from coordinator.stores.open import open_admin
from coordinator.stores.operator_acts import made_act
from coordinator.stores.port import Lease
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from coordinator.worker import retention
from coordinator.worker.inprocess import InProcessWrites
from coordinator.worker.retention import EVERY_S, REST_S_MIN, RETRY_S, Retention
from tests.support.admin_contract import letter
from tests.support.ledger import LEDGER, Account, OpenAccount
from tests.support.pauses import Pauses
from tests.support.silent_database import check_it_ends
from tests.support.store_contract import NOW, changes, commit, entry
from tests.support.system import wait_until

LEASE = Lease(1, 5, holder="holder")
SETTINGS = LaneSettings(log_retention_days=7, dead_letter_retention_days=30, acts_retention_days=30)


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[LaneAdmin]:
    with closing(open_admin(f"sqlite:///{tmp_path}/ledger.db", LEDGER.name)) as admin:
        yield admin


@pytest.fixture
def open_one(tmp_path: Path) -> Callable[[], LaneAdmin]:
    path = f"{tmp_path}/ledger.db"
    create_schema(path, LEDGER)
    with closing(SqliteStore(path, LEDGER)) as store:
        rows = [*(entry(number) for number in range(1, 6)), letter(1), letter(2)]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows), 5)
    with closing(open_admin(f"sqlite:///{path}", LEDGER.name)) as admin:
        for day in (0, 2):
            admin.record(made_act(NOW + timedelta(days=day), "ops", "pause", {}))
    return lambda: open_admin(f"sqlite:///{path}", LEDGER.name)


def run(retained: Retention) -> list[dict[str, object]]:
    with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        asyncio.run(retained.run())
    return [dict(line) for line in lines]


def test_what_is_older_than_its_retention_goes_in_small_steps(
    open_one: Callable[[], LaneAdmin], admin: LaneAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOG_ROWS", 2)
    monkeypatch.setattr(retention, "LETTERS", 1)
    pauses = Pauses(EVERY_S)
    later = NOW + timedelta(days=31)
    lines = run(Retention("ledger", open_one, lambda: LEASE, SETTINGS, lambda: later, pauses))
    assert admin.letters(LetterQuery(), 0, 10) == []
    assert [act.done_at for act in admin.acts(ActQuery(), None, 10)] == [NOW + timedelta(days=2)]
    # The last one stays.
    assert [number for number in range(1, 6) if admin.find(entry(number).command_id) is not None] == [5]
    assert pauses.taken[0] == RETRY_S
    assert len(pauses.taken) == 1 + 2 + 2 + 1 + 1
    assert all(pause >= REST_S_MIN for pause in pauses.taken)
    assert [(line["event"], line["table"], line["rows"]) for line in lines] == [
        ("old_rows_removed", "dead_letters", 2),
        ("old_rows_removed", "command_log", 4),
        ("old_rows_removed", "operator_acts", 1),
    ]


def test_what_is_not_older_stays(open_one: Callable[[], LaneAdmin], admin: LaneAdmin) -> None:
    early = NOW + timedelta(days=6)
    assert run(Retention("ledger", open_one, lambda: LEASE, SETTINGS, lambda: early, Pauses(EVERY_S))) == []
    assert len(admin.letters(LetterQuery(), 0, 10)) == 2
    assert admin.find(entry(1).command_id) is not None


@pytest.mark.parametrize(("lease", "settings"), [(None, SETTINGS), (LEASE, LaneSettings())])
def test_a_standby_and_a_lane_without_a_retention_remove_nothing(
    open_one: Callable[[], LaneAdmin], admin: LaneAdmin, lease: Lease | None, settings: LaneSettings
) -> None:
    later = NOW + timedelta(days=400)
    pauses = Pauses(RETRY_S, 3)
    assert run(Retention("ledger", open_one, lambda: lease, settings, lambda: later, pauses)) == []
    assert pauses.taken == [RETRY_S] * 3
    assert len(admin.letters(LetterQuery(), 0, 10)) == 2


def test_a_process_that_loses_the_lane_stops_between_two_steps(
    open_one: Callable[[], LaneAdmin], admin: LaneAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LETTERS", 1)
    answers = iter([LEASE, LEASE, LEASE])
    later = NOW + timedelta(days=31)
    pauses = Pauses(RETRY_S, 3)
    run(Retention("ledger", open_one, lambda: next(answers, None), SETTINGS, lambda: later, pauses))
    assert [row.id for row in admin.letters(LetterQuery(), 0, 10)] == [2]


def test_nothing_is_removed_while_the_lane_is_paused(open_one: Callable[[], LaneAdmin], admin: LaneAdmin) -> None:
    """An idle lane does not know of it."""
    admin.pause("maintenance", NOW)
    later = NOW + timedelta(days=31)
    lines = run(Retention("ledger", open_one, lambda: LEASE, SETTINGS, lambda: later, Pauses(RETRY_S, 3)))
    assert [line["event"] for line in lines] == ["retention_postponed"]
    assert "lane ledger is paused" in str(lines[0]["reason"])
    assert len(admin.letters(LetterQuery(), 0, 10)) == 2


def test_a_database_that_is_away_is_asked_again_later() -> None:
    def away() -> LaneAdmin:
        raise DatabaseUnavailable("it is away")

    lines = run(Retention("ledger", away, lambda: LEASE, SETTINGS, lambda: NOW, Pauses(RETRY_S, 3)))
    assert [line["event"] for line in lines] == ["retention_postponed"]


async def test_a_monolith_removes_it_too(
    open_one: Callable[[], LaneAdmin], admin: LaneAdmin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its first command it takes the lane."""
    monkeypatch.setattr(retention, "RETRY_S", 0.01)
    stores = {LEDGER.name: SqliteStore(f"{tmp_path}/ledger.db", LEDGER)}
    addresses = {LEDGER.name: f"sqlite:///{tmp_path}/ledger.db"}
    later = NOW + timedelta(days=31)
    async with InProcessWrites(stores, [LEDGER], SETTINGS, lambda: later, addresses=addresses) as writes:
        await execute(writes, OpenAccount(owner="Ada"), Account, WriteOptions())
        await asyncio.to_thread(
            wait_until, lambda: admin.letters(LetterQuery(), 0, 10) == [], "old dead letters are removed"
        )
        await asyncio.to_thread(
            wait_until, lambda: admin.find(entry(5).command_id) is None, "old log entries are removed, the last one too"
        )


async def test_a_monolith_whose_settings_ask_for_retention_needs_an_address(tmp_path: Path) -> None:
    stores = {LEDGER.name: SqliteStore(f"{tmp_path}/ledger.db", LEDGER)}
    with pytest.raises(ConfigurationError, match=r"LANE_LOG_RETENTION_DAYS .* lane 'ledger'"):
        InProcessWrites(stores, [LEDGER], SETTINGS)
    InProcessWrites(stores, [LEDGER], LaneSettings())


async def test_a_defect_of_the_retention_ends_a_monolith(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def defect(_: Retention) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Retention, "run", defect)
    stores = {LEDGER.name: SqliteStore(f"{tmp_path}/ledger.db", LEDGER)}
    addresses = {LEDGER.name: f"sqlite:///{tmp_path}/ledger.db"}
    create_schema(f"{tmp_path}/ledger.db", LEDGER)
    async with InProcessWrites(stores, [LEDGER], SETTINGS, addresses=addresses) as writes:
        with pytest.raises(ZeroDivisionError):
            await writes.failed()


def test_a_process_ends_though_its_database_never_answers() -> None:
    def asking(stands_still: Callable[[], None]) -> Coroutine[Any, Any, None]:
        admin: Any = SimpleNamespace(clock=stands_still, close=lambda: None)
        return Retention("ledger", lambda: admin, lambda: LEASE, SETTINGS, lambda: NOW, Pauses(EVERY_S)).run()

    check_it_ends(asking)
