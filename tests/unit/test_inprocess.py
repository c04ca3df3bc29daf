"""The monolith: lanes and effects in one process, without a broker."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from coordinator.client.blocking import BlockingWrites
from coordinator.client.writes import WriteOptions, execute
from coordinator.lane.batch import settlement_of
from coordinator.lane.committed import Committed
from coordinator.lane.control import Release, ReplayLetter
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import EffectSettings
from coordinator.service.commands import Command
from coordinator.service.errors import (
    BrokerUnavailable,
    CommandFailed,
    CommandPending,
    ConfigurationError,
    InvalidCommand,
    OutcomeUnknown,
)
from coordinator.service.ids import new_command_id, system_command_id
from coordinator.service.outcome import Outcome
from coordinator.service.outside_calls import Call, EffectHandler, EffectRetry, GivenUp
from coordinator.service.rows import R, Row
from coordinator.service.service import Service
from coordinator.stores.lane_tables import DeadLetter, LogEntry, OutboxEntry, ParkedCommand
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.port import StoreUnavailable, Transaction
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from coordinator.worker.inprocess import InProcessWrites
from coordinator.worker.waiting_issuer import WaitingIssuer
from tests.support.courier import Courier, Parcel, ParcelResult, SendParcel, TakeAway, service_of
from tests.support.ledger import LEDGER, Account, Deposit, Forward, Fragile, OpenAccount, Remark
from tests.support.store_contract import NOW
from tests.support.system import wait_until

WITHIN_S = 10.0


def writes_on(database: MemoryDatabase, service: Service) -> InProcessWrites:
    return InProcessWrites({service.name: MemoryStore(database)}, [service], clock=lambda: NOW)


def rows(database: MemoryDatabase, model: type[R]) -> list[R]:
    transaction = MemoryStore(database).begin()
    found = transaction.scan(model, 1000)
    transaction.rollback()
    return found


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, "what the lane does is done")


async def test_commands_issued_at_once_are_applied_in_their_order() -> None:
    database = MemoryDatabase()
    async with writes_on(database, LEDGER) as writes:
        opened = await asyncio.gather(
            *(execute(writes, OpenAccount(owner=f"o{number}"), Account, WriteOptions()) for number in range(50))
        )
    assert [written.value.owner for written in sorted(opened, key=lambda each: each.sequence)] == [
        f"o{number}" for number in range(50)
    ]


async def test_a_repeated_key_returns_the_first_outcome_in_the_next_process_too() -> None:
    database = MemoryDatabase()
    options = WriteOptions(idempotency_key="once")
    async with writes_on(database, LEDGER) as writes:
        first = await execute(writes, OpenAccount(owner="a"), Account, options)
    async with writes_on(database, LEDGER) as writes:
        again = await execute(writes, OpenAccount(owner="a"), Account, options)
    assert (first.replayed, again.replayed, again.value) == (False, True, first.value)


async def test_what_is_emitted_leaves_the_outbox_once_it_is_settled() -> None:
    database = MemoryDatabase()
    async with writes_on(database, LEDGER) as writes:
        await execute(writes, OpenAccount(owner="a"), Account, WriteOptions())
        await execute(writes, Forward(id=1, amount=5), type(None), WriteOptions())
        await until(lambda: rows(database, Account)[0].balance == 5 and not rows(database, OutboxEntry))


async def test_an_effect_is_carried_out_and_its_result_applied_once() -> None:
    database, courier = MemoryDatabase(), Courier([EffectRetry("busy", after_s=0.0)])
    async with writes_on(database, service_of(courier)) as writes:
        await execute(writes, SendParcel(), Parcel, WriteOptions())
        await until(lambda: rows(database, Parcel)[0].state == "taken" and not rows(database, OutboxEntry))
    assert rows(database, Parcel)[0].results == 1
    assert len(set(courier.keys)) == 1 < len(courier.keys)
    assert courier.is_closed


async def test_an_effect_that_the_process_did_not_live_to_see_is_carried_out_by_the_next() -> None:
    database, courier = MemoryDatabase(), Courier([])
    courier.may_go.clear()
    async with writes_on(database, service_of(courier)) as writes:
        await execute(writes, SendParcel(), Parcel, WriteOptions())
        async with asyncio.timeout(WITHIN_S):
            await courier.arrived.wait()
    assert [entry.type for entry in rows(database, OutboxEntry)] == ["courier.take_away"]
    successor = Courier([])
    later = NOW + timedelta(seconds=1)
    service = service_of(successor)
    async with InProcessWrites({"courier": MemoryStore(database)}, [service], clock=lambda: later):
        await until(lambda: {row.state for row in rows(database, Parcel)} == {"taken"})
    assert courier.keys[0] in successor.keys


async def test_a_standby_takes_an_effect_that_another_process_was_handed_for_one_that_may_have_happened() -> None:
    """Also if it began before that one emitted it."""
    database, courier, successor = MemoryDatabase(), Courier([]), Courier([])
    courier.may_go.clear()
    async with (
        writes_on(database, service_of(successor)) as standby,
        writes_on(database, service_of(courier)) as writes,
    ):
        await execute(writes, SendParcel(), Parcel, WriteOptions())
        async with asyncio.timeout(WITHIN_S):
            await courier.arrived.wait()
        await execute(standby, SendParcel(), Parcel, WriteOptions())
        await until(lambda: {row.state for row in rows(database, Parcel)} == {"taken"})
    repeated = {call.key: call.is_repeated for call in successor.calls}
    assert repeated.pop(courier.keys[0])
    assert list(repeated.values()) == [False]


async def test_an_outcome_that_the_process_before_owed_is_nobody_s_here() -> None:
    """It is of a command that waited for its key. Each process counts those who wait from 1."""
    database = MemoryDatabase()
    async with writes_on(database, LEDGER) as writes:
        await execute(writes, OpenAccount(owner="a"), Account, WriteOptions())
        await execute(writes, OpenAccount(owner="b"), Account, WriteOptions())
        await execute(writes, Remark(id=1, note="broken"), Account, WriteOptions())
        with pytest.raises(CommandFailed):
            await execute(writes, Fragile(id=1, amount=1), Account, WriteOptions())
        with pytest.raises(CommandPending):
            await execute(writes, Deposit(id=1, amount=2), Account, WriteOptions(wait_s=0.01))
        (failed,) = [row for row in rows(database, ParkedCommand) if row.error_code is not None]
    async with writes_on(database, LEDGER) as writes:
        told = WaitingIssuer(LEDGER.name, new_command_id(), asyncio.get_running_loop())
        for number in range(10):
            for name in (str(number), f"{writes._name}.{number}"):
                writes._waiting[name] = told
        writes._issued = 10
        release = Release(ordering_key=failed.ordering_key, command_id=failed.command_id)
        await writes.issue(LEDGER.name, order(release), None)
        # What waited goes to the end of the queue.
        await until(lambda: [row.balance for row in rows(database, Account)] == [2, 0])
        assert not rows(database, ParkedCommand)
        await execute(writes, OpenAccount(owner="c"), Account, WriteOptions())
        assert not told.outcome.done()


async def test_a_command_that_waits_for_its_key_is_pending() -> None:
    """It is committed, so it has left the queue; a client who is told that nobody has it issues it again."""
    database = MemoryDatabase()
    async with writes_on(database, LEDGER) as writes:
        await execute(writes, OpenAccount(owner="a"), Account, WriteOptions())
        await execute(writes, Remark(id=1, note="broken"), Account, WriteOptions())
        with pytest.raises(CommandFailed) as failed:
            await execute(writes, Fragile(id=1, amount=1), Account, WriteOptions())
        with pytest.raises(CommandPending) as waits:
            await execute(writes, Deposit(id=1, amount=2), Account, WriteOptions(wait_s=0))
        await until(lambda: len(rows(database, ParkedCommand)) == 2 and writes._lanes["ledger"].queue.waiting == 0)
        assert [writes.pending(each.value.command_id) for each in (failed, waits)] == [False, True]
    async with writes_on(database, LEDGER) as writes:
        await until(lambda: writes.pending(waits.value.command_id))
        key = rows(database, ParkedCommand)[0].ordering_key
        await writes.issue(LEDGER.name, order(Release(ordering_key=key, command_id=failed.value.command_id)), None)
        await until(lambda: not writes.pending(waits.value.command_id))
        statuses = {each.command_id: each.status for each in rows(database, LogEntry)}
        assert statuses[waits.value.command_id] == "applied"


async def test_an_outcome_that_comes_as_its_wait_ends_is_not_lost() -> None:
    issuer = WaitingIssuer(LEDGER.name, new_command_id(), asyncio.get_running_loop())
    waiting = asyncio.create_task(issuer.wait(WITHIN_S))
    await asyncio.sleep(0)
    issuer._end_wait()
    settled = Outcome(command_id=issuer.command_id, type=None, status="applied", sequence=1)
    issuer.outcome.set_result(settled)
    assert await waiting is None
    assert issuer.outcome.result() is settled


def order(command: Command) -> CommandMessage:
    return CommandMessage(
        command_id=new_command_id(), type=command.type, arguments=command.arguments(), origin="system"
    )


async def test_a_lane_that_is_elsewhere_is_an_error() -> None:
    async with writes_on(MemoryDatabase(), LEDGER) as writes:
        with pytest.raises(BrokerUnavailable, match="courier"):
            await execute(writes, SendParcel(), Parcel, WriteOptions())


async def test_who_does_not_wait_is_told_that_it_is_pending() -> None:
    database = MemoryDatabase()
    async with writes_on(database, LEDGER) as writes:
        with pytest.raises(CommandPending):
            await execute(writes, OpenAccount(owner="a"), Account, WriteOptions(wait_s=0))
        await until(lambda: len(rows(database, LogEntry)) == 1)


async def test_an_effect_that_is_handed_out_again_while_it_is_carried_out_is_called_once() -> None:
    database, courier = MemoryDatabase(), Courier([])
    courier.may_go.clear()
    async with writes_on(database, service_of(courier)) as writes:
        await execute(writes, SendParcel(), Parcel, WriteOptions())
        async with asyncio.timeout(WITHIN_S):
            await courier.arrived.wait()
        (entry,) = rows(database, OutboxEntry)
        writes.deliver_emitted(writes._lanes["courier"], entry, is_inherited=False)
        courier.may_go.set()
        await until(lambda: rows(database, Parcel)[0].state == "taken" and not rows(database, OutboxEntry))
    assert len(courier.keys) == 1


async def test_a_command_that_is_emitted_again_while_it_waits_for_its_lane_is_there_once() -> None:
    """As by a lane that renews its lease, again and again, while the other lane is held."""
    database = MemoryDatabase()
    store = Held(database)
    async with InProcessWrites({LEDGER.name: store}, [LEDGER], clock=lambda: NOW) as writes:
        await execute(writes, OpenAccount(owner="a"), Account, WriteOptions())
        store.may_go.clear()
        entry = OutboxEntry(
            id=10**6,
            command_id=new_command_id(),
            lane=LEDGER.name,
            type=OpenAccount.type,
            arguments=b'{"owner":"b"}',
            created_at=NOW,
        )
        lane = writes._lanes[LEDGER.name]
        for _ in range(3):
            writes.deliver_emitted(lane, entry, is_inherited=False)
        assert len(lane.queue._sizes) == 1
        store.may_go.set()
        await until(lambda: len(rows(database, Account)) == 2 and not lane.queue._sizes)
        writes.deliver_emitted(lane, entry, is_inherited=False)
        await until(lambda: not lane.queue._sizes and not writes._under_way)


async def test_what_is_settled_may_be_emitted_again_as_soon_as_its_lane_knows() -> None:
    """A lane that renews its lease just then reads the entry once more, and waits for it to be settled again."""
    async with writes_on(MemoryDatabase(), LEDGER) as writes:
        key, were_under_way = (LEDGER.name, 1), list[bool]()
        writes._under_way.add(key)
        writes._emitted_is_settled(key, lambda: were_under_way.append(key in writes._under_way))
        assert were_under_way == [False]


class Held(MemoryStore):
    """Answers nothing for a while."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.may_go = threading.Event()
        self.may_go.set()

    def begin(self) -> Transaction:
        self.may_go.wait(WITHIN_S)
        return super().begin()


async def test_whoever_waits_for_a_lane_that_another_process_took_over_is_told() -> None:
    database = MemoryDatabase()
    async with writes_on(database, LEDGER) as one, asyncio.timeout(WITHIN_S):
        await execute(one, OpenAccount(owner="a"), Account, WriteOptions())
        async with writes_on(database, LEDGER) as two:
            await execute(two, OpenAccount(owner="b"), Account, WriteOptions())
        for owner, kind in (("c", OutcomeUnknown), ("d", BrokerUnavailable)):
            with pytest.raises(BrokerUnavailable, match="another process took lane ledger over") as told:
                await execute(one, OpenAccount(owner=owner), Account, WriteOptions())
            assert told.type is kind


class Defective(MemoryStore):
    """Has a defect at each transaction, from some time on."""

    is_broken = False

    def begin(self) -> Transaction:
        if self.is_broken:
            raise RuntimeError("a defect of the store")
        return super().begin()


async def test_whoever_waits_for_a_lane_that_ends_by_a_defect_is_told() -> None:
    store = Defective(MemoryDatabase())
    async with InProcessWrites({LEDGER.name: store}, [LEDGER]) as writes, asyncio.timeout(WITHIN_S):
        await execute(writes, OpenAccount(owner="a"), Account, WriteOptions())
        store.is_broken = True
        for owner, kind in (("b", OutcomeUnknown), ("c", BrokerUnavailable)):
            with pytest.raises(BrokerUnavailable, match=r"lane ledger has ended .* a defect of the store") as told:
                await execute(writes, OpenAccount(owner=owner), Account, WriteOptions())
            assert told.type is kind


class Away(SqliteStore):
    """Cannot be reached while its process starts."""

    is_away = True

    def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> Sequence[str]:
        if self.is_away:
            self.is_away = False
            raise StoreUnavailable("the database is away")
        return super().check(models, must_sync=must_sync)


async def test_a_database_that_was_away_at_the_start_is_checked_once_it_is_there(tmp_path: Path) -> None:
    """Else a lane would work on one that a start refuses, and would not know in which order rows are to be written."""
    path = str(tmp_path / "ledger.db")
    create_schema(path, LEDGER)
    with closing(sqlite3.connect(path)) as connection:
        (made,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'accounts'").fetchone()
        connection.execute("DROP TABLE accounts")
        connection.execute(made.replace('UNIQUE ("owner")', "CHECK (1)"))
        connection.commit()
    async with InProcessWrites({LEDGER.name: Away(path, LEDGER)}, [LEDGER]) as writes, asyncio.timeout(WITHIN_S):
        with pytest.raises(CommandPending):
            await execute(writes, OpenAccount(owner="a"), Account, WriteOptions(wait_s=1))
        assert "accounts.owner is not unique" in writes.unready_reason
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM command_log").fetchone() == (0,)
            connection.execute("CREATE UNIQUE INDEX accounts_owner_unique ON accounts (owner)")
            connection.commit()
        account = await execute(writes, OpenAccount(owner="b"), Account, WriteOptions())
        assert account.value.owner == "b"
        assert not writes.unready_reason


def test_a_program_with_threads_opens_while_its_database_is_away(tmp_path: Path) -> None:
    """Commands are taken, and wait for the database, as behind a broker."""
    path = str(tmp_path / "ledger.db")
    create_schema(path, LEDGER)
    with BlockingWrites(lambda: InProcessWrites({LEDGER.name: Away(path, LEDGER)}, [LEDGER])) as writes:
        assert writes.execute(OpenAccount(owner="a"), Account, WriteOptions(wait_s=WITHIN_S)).value.owner == "a"


async def test_a_process_that_waits_for_its_database_stops(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    create_schema(path, LEDGER)

    class Gone(Away):
        def check(self, models: Sequence[type[Row]], *, must_sync: bool = True) -> Sequence[str]:
            raise StoreUnavailable("the database is away")

    async with asyncio.timeout(WITHIN_S), InProcessWrites({LEDGER.name: Gone(path, LEDGER)}, [LEDGER]) as writes:
        assert "the database is away" in writes.unready_reason


def rename_lane(path: str, name: str) -> None:
    """As if another database stood in its place."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE lane_lease SET lane = ?", [name])
        connection.commit()


async def test_another_lane_s_database_is_found_out_before_anything_is_written(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    other = LEDGER.replace(name="other")
    with closing(SqliteStore(path, other)) as store:
        create_schema(path, other)
        store.take_over("holder", NOW)
    with pytest.raises(ConfigurationError, match="LEDGER_DATABASE_URL is that of lane other"):
        await InProcessWrites({LEDGER.name: SqliteStore(path, LEDGER)}, [LEDGER]).start()
    async with InProcessWrites({LEDGER.name: Away(path, LEDGER)}, [LEDGER]) as writes, asyncio.timeout(WITHIN_S):
        with pytest.raises(CommandPending):
            await execute(writes, OpenAccount(owner="a"), Account, WriteOptions(wait_s=1))
        assert "LEDGER_DATABASE_URL is that of lane other" in writes.unready_reason
        with closing(SqliteStore(path, other)) as store:
            assert store.current() is not None
        # It was exchanged, and is put back.
        rename_lane(path, LEDGER.name)
        account = await execute(writes, OpenAccount(owner="b"), Account, WriteOptions())
        assert account.value.owner == "b"
        rename_lane(path, other.name)
    with closing(SqliteStore(path, other)) as store:
        store.check(other.models)


async def test_nobody_is_told_that_it_is_safe_by_a_lane_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it was written down the lane ended: it is neither settled nor safe."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("coordinator.worker.local_lane.LocalQueue.accept", never)
    store = Defective(MemoryDatabase())
    async with InProcessWrites({LEDGER.name: store}, [LEDGER]) as writes, asyncio.timeout(WITHIN_S):
        await execute(writes, OpenAccount(owner="a"), Account, WriteOptions())
        store.is_broken = True
        with pytest.raises(OutcomeUnknown, match="may be applied"):
            await execute(writes, OpenAccount(owner="b"), Account, WriteOptions(wait_s=0))


async def test_a_monolith_whose_lane_is_paused_takes_commands_and_says_why_they_wait() -> None:
    """It is ready, as a gateway is whose lane is behind a broker: an operator's maintenance is no outage."""
    database = MemoryDatabase()
    async with writes_on(database, LEDGER) as writes, asyncio.timeout(WITHIN_S):
        await execute(writes, OpenAccount(owner="a"), Account, WriteOptions())
        epoch = database.epoch
        database.paused, database.revision = "maintenance", database.revision + 1
        with pytest.raises(CommandPending):
            await execute(writes, OpenAccount(owner="b"), Account, WriteOptions(wait_s=0.1))
        await until(lambda: writes.at_hand("ledger").suspended == "paused by an operator: maintenance")
        assert writes.at_hand("ledger").cause == "paused"
        assert (writes.connected, writes.unready_reason, writes.problem) == (True, "", None)
        database.paused, database.revision = None, database.revision + 1
        await until(lambda: writes.connected and len(rows(database, Account)) == 2)
        assert database.epoch == epoch


class AwayAtFirst(MemoryStore):
    """Cannot be reached by its first transaction."""

    times = 0

    def begin(self) -> Transaction:
        self.times += 1
        if self.times == 1:
            raise StoreUnavailable("it starts")
        return super().begin()


async def test_what_was_left_in_the_outbox_goes_on_once_the_database_is_there() -> None:
    database, courier = MemoryDatabase(), Courier([])
    courier.may_go.clear()
    async with writes_on(database, service_of(courier)) as writes:
        await execute(writes, SendParcel(), Parcel, WriteOptions())
    service = service_of(Courier([]))
    async with InProcessWrites({service.name: AwayAtFirst(database)}, [service]):
        await until(lambda: rows(database, Parcel)[0].state == "taken" and not rows(database, OutboxEntry))


async def test_an_id_of_the_system_s_own_is_not_a_caller_s_to_use() -> None:
    async with writes_on(MemoryDatabase(), LEDGER) as writes:
        options = WriteOptions(command_id=system_command_id("a", "b"))
        with pytest.raises(InvalidCommand, match="version 8"):
            await execute(writes, OpenAccount(owner="a"), Account, options)


class Unreadable(Courier):
    """Somebody answers to its calls what no lane can be told, until that is mended."""

    is_mended = False

    async def _take_away(self, effect: TakeAway, call: Call) -> Command:
        told = await super()._take_away(effect, call)
        return told if self.is_mended else ParcelResult(id=effect.id, state="\ud800")


class Crashing(Unreadable):
    """And it has a defect of its own."""

    @property
    def handlers(self) -> tuple[EffectHandler[TakeAway], ...]:
        return (EffectHandler(TakeAway, self._take_away, self._crash),)

    def _crash(self, effect: TakeAway, given_up: GivenUp) -> Command:
        raise ValueError(f"{effect.id}: {given_up.reason}")


async def test_an_answer_that_no_lane_can_read_is_sent_on_as_one_that_nobody_knows() -> None:
    database = MemoryDatabase()
    async with writes_on(database, service_of(Unreadable([]))) as writes:
        await execute(writes, SendParcel(), Parcel, WriteOptions())
        await until(lambda: rows(database, Parcel)[0].state == "unsure" and not rows(database, OutboxEntry))
    assert rows(database, DeadLetter) == []


async def test_an_effect_that_meets_a_defect_is_a_dead_letter_and_is_carried_out_when_it_is_replayed() -> None:
    """Under its own id, which is the idempotency key, and with the doubt that a call was made."""
    database, courier = MemoryDatabase(), Crashing([])
    async with writes_on(database, service_of(courier)) as writes:
        await execute(writes, SendParcel(), Parcel, WriteOptions())
        await until(lambda: bool(rows(database, DeadLetter)) and not rows(database, OutboxEntry))
        (letter,) = rows(database, DeadLetter)
        assert (letter.target, letter.type, letter.code) == ("effects.courier", TakeAway.type, "handler_error")
        assert (letter.command_id, letter.arguments) == (courier.keys[0], b'{"id":1}')
        assert "ValueError" in (letter.traceback or "")
        courier.is_mended = True
        arguments = ReplayLetter(letter=letter.id).arguments()
        message = CommandMessage(
            command_id=new_command_id(), type=ReplayLetter.type, arguments=arguments, origin="system"
        )
        assert (await writes.issue("courier", message, WITHIN_S)).status == "applied"
        await until(lambda: rows(database, Parcel)[0].state == "taken" and not rows(database, OutboxEntry))
    assert [call.is_repeated for call in courier.calls] == [False, True]
    assert len(set(courier.keys)) == 1
    assert rows(database, DeadLetter) == []


async def test_an_effect_that_is_given_up_has_been_looked_up() -> None:
    database, courier = MemoryDatabase(), Courier([EffectRetry("busy") for _ in range(10_000)])
    settings = EffectSettings(give_up_after_s=0.05, retry_delay_s=0.001, retry_delay_s_max=0.001)
    stores = {"courier": MemoryStore(database)}
    writes = InProcessWrites(stores, [service_of(courier)], clock=lambda: NOW, effect_settings=settings)
    async with writes:
        await execute(writes, SendParcel(), Parcel, WriteOptions())
        await until(lambda: rows(database, Parcel)[0].state == "left")
    assert courier.looked_up == 1


async def test_effects_that_wait_take_no_turn_from_others() -> None:
    database = MemoryDatabase()
    courier = Courier([EffectRetry("busy", after_s=WITHIN_S) for _ in range(3)])
    stores = {"courier": MemoryStore(database)}
    settings = EffectSettings(concurrency=1)
    writes = InProcessWrites(stores, [service_of(courier)], clock=lambda: NOW, effect_settings=settings)
    async with writes:
        await asyncio.gather(*(execute(writes, SendParcel(), Parcel, WriteOptions()) for _ in range(4)))
        await until(lambda: any(row.state == "taken" for row in rows(database, Parcel)))


async def test_a_lane_goes_on_where_the_loop_of_those_who_wait_is_closed(tmp_path: Path) -> None:
    """A program that ends without closing its writes leaves lanes behind, and no thread may be started to stop them."""
    store = SqliteStore(str(tmp_path / "ledger.db"), LEDGER)
    create_schema(str(tmp_path / "ledger.db"), LEDGER)
    async with InProcessWrites({LEDGER.name: store}, [LEDGER]) as writes:
        closed, running = asyncio.new_event_loop(), writes._loop
        closed.close()
        writes._loop = closed
        writes.lost(LEDGER.name, "the test says so")
        writes.reply(writes._lanes[LEDGER.name], settlement_of([], Committed(), [], []))
        writes._loop = running
