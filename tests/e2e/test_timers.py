"""Timers on real servers: their holder is killed while they are due, nobody runs when they are, some are taken back."""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pika
import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

from coordinator.dev.servers.process import Process
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, encode_pack
from coordinator.service.commands import Command
from coordinator.service.ids import new_command_id
from coordinator.transports.rabbitmq.topology import WRITES_EXCHANGE
from tests.support import late_answers
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.late_answers import FERRIES, VOYAGES, Embark
from tests.support.system import System, wait_ready, wait_until
from tests.support.timers import SEATS, Hold, Pay

pytestmark = [pytest.mark.timeout(180), pytest.mark.faults]

SERVERS: Final = {"PostgreSQL": "USERS_DATABASE_URL", "MySQL": "PAYMENTS_DATABASE_URL"}
APP = "tests.support.timers:SEATS"
WATCH = {"LANE_OUTBOX_WATCH_S": "0.5"}
"""What a dead process has left in the outbox is looked for so often."""
HELD = 500
KILLS = 3
PACK = 50
FIRST_DUE_AFTER, DUE_WITHIN = timedelta(seconds=1), timedelta(seconds=8)
"""Longer than all kills take: some are always due later than the last of them."""
AWAY_FOR_AT_LEAST, AWAY_WITHIN = timedelta(seconds=4), timedelta(seconds=2)
VOYAGES_WAITING, VOYAGES_ANSWERED = 100, 20


class Lane:
    """One lane: its processes, and its database as it is."""

    def __init__(self, system: System, name: str, engine: Engine) -> None:
        self._system = system
        self._engine = engine
        self.name = name
        self.processes: list[Process] = []

    def start(self, count: int) -> None:
        """So many processes more; return when each holds the lane or stands by."""
        started = [self._system.launch_coordinator(self.name, WATCH) for _ in range(count)]
        for process, url in started:
            wait_ready(url, process)
        self.processes += [process for process, _ in started]

    def kill_holder(self) -> None:
        """Of the processes the one that has the lane. It is gone when this returns, and one of its kind is started."""
        holder = str(self.fetch("SELECT holder FROM lane_lease")[0][0])
        pid = int(holder.rpartition(":")[2].split()[0])
        (process,) = (each for each in self.processes if each.pid == pid)
        self._kill(process)
        self.start(1)

    def kill(self) -> None:
        """All of them."""
        for process in list(self.processes):
            self._kill(process)

    def _kill(self, process: Process) -> None:
        process.kill()
        self.processes.remove(process)

    def publish(self, commands: Sequence[Command]) -> list[str]:
        """As strangers do, in packs, each confirmed; return the ids."""
        ids = [new_command_id() for _ in commands]
        messages = [
            CommandMessage(command_id, command.type, msgspec.json.encode(command))
            for command_id, command in zip(ids, commands, strict=True)
        ]
        properties = pika.BasicProperties(content_type=PACK_CONTENT, delivery_mode=2)
        with self._system.broker() as channel:
            channel.confirm_delivery()
            for start in range(0, len(messages), PACK):
                body = encode_pack(messages[start : start + PACK])
                channel.basic_publish(WRITES_EXCHANGE, self.name, body, properties, mandatory=True)
        return ids

    def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement)).all()]

    def count(self, table: str, where: str = "1 = 1") -> int:
        return int(self.fetch(f"SELECT count(*) FROM {table} WHERE {where}")[0][0])

    def settled(self, *types: str) -> int:
        listed = ", ".join(f"'{each}'" for each in types)
        return self.count("command_log", f"type IN ({listed})")

    def is_quiet(self) -> bool:
        """Nothing is set, and nothing is on its way."""
        return not self.count("lane_timers") and not self.count("outbox")

    def check_log(self) -> None:
        """Gapless, and without a letter."""
        entries = self.count("command_log")
        numbers = self.fetch("SELECT min(sequence), max(sequence), count(DISTINCT sequence) FROM command_log")
        assert numbers == [(1, entries, entries)]
        assert self.fetch("SELECT command_id FROM dead_letters") == []


@contextmanager
def opened(system: System, name: str, url: str) -> Iterator[Lane]:
    engine = sql_engine(url)
    yield Lane(system, name, engine)
    engine.dispose()


@pytest.fixture(params=list(SERVERS))
def seats(request: pytest.FixtureRequest, system: System, databases: FreshDatabases) -> Iterator[Lane]:
    url = databases.new(SERVERS[request.param])
    system.prepare_other(APP, SEATS, url)
    with opened(system, SEATS.name, url) as lane:
        yield lane


@pytest.fixture(params=[("PostgreSQL", "MySQL"), ("MySQL", "PostgreSQL")], ids="-".join)
def voyages_and_ferries(
    request: pytest.FixtureRequest, system: System, databases: FreshDatabases
) -> Iterator[tuple[Lane, Lane]]:
    urls = [databases.new(SERVERS[each]) for each in request.param]
    for service, url in zip((VOYAGES, FERRIES), urls, strict=True):
        system.prepare_other(f"{late_answers.__name__}:APP", service, url)
    with opened(system, VOYAGES.name, urls[0]) as voyages, opened(system, FERRIES.name, urls[1]) as ferries:
        yield voyages, ferries


def holds(numbers: Sequence[int], first: timedelta, within: timedelta, chance: random.Random) -> list[Command]:
    """Seats that are held until some moment, in no order; some of them until the same one."""
    begin = datetime.now(UTC) + first
    moments = [begin + chance.random() * within for _ in range(len(numbers) * 3 // 4)]
    return [Hold(id=number, at=chance.choice(moments)) for number in numbers]


def test_timers_are_applied_once_and_in_order_whoever_is_killed(seats: Lane) -> None:
    chance = random.Random(5)
    seats.start(2)

    # The holder is killed again and again while timers are due, and seats are paid for all the while.
    numbers = range(1, HELD + 1)
    held = holds(numbers, FIRST_DUE_AFTER, DUE_WITHIN, chance)
    seats.publish(held)
    payers = iter(chance.sample(numbers, HELD // 2))
    seats.publish([Pay(id=next(payers)) for _ in range(HELD // 10)])
    for number in range(1, KILLS + 1):
        enough = number * HELD // 10
        wait_until(lambda enough=enough: seats.settled("seats.release") >= enough, "some have fired")  # type: ignore[misc]
        seats.publish([Pay(id=next(payers)) for _ in range(HELD // 10)])
        assert seats.count("lane_timers"), "some are not due yet, or not moved"
        seats.kill_holder()
    paid = (KILLS + 1) * HELD // 10
    wait_until(lambda: seats.settled("seats.pay") == paid, "all that pay are answered")
    wait_until(seats.is_quiet, "all have fired")

    # Nobody runs when the others are due.
    away = range(HELD + 1, 2 * HELD + 1)
    held += holds(away, AWAY_FOR_AT_LEAST, AWAY_WITHIN, chance)
    seats.publish(held[HELD:])
    wait_until(lambda: seats.settled("seats.hold") == 2 * HELD, "all are held")
    seats.kill()
    assert seats.count("lane_timers") == HELD, "they are due later"
    late_payers = chance.sample(away, HELD // 10)
    seats.publish([Pay(id=number) for number in late_payers])
    last_due = max(hold.at for hold in held if isinstance(hold, Hold) and hold.at is not None)
    wait_until(lambda: datetime.now(UTC) > last_due, "all are due")
    seats.start(2)
    paid += len(late_payers)
    wait_until(lambda: seats.settled("seats.pay") == paid, "all that pay are answered")
    wait_until(seats.is_quiet, "all have fired")

    wait_until(lambda: not_yet_released(seats) == set(), "what has fired is applied")
    check_timers(seats, held)


def not_yet_released(seats: Lane) -> set[str]:
    """The timers that were not taken back, and are not applied."""
    timers = {json.loads(result)["timer"] for (result,) in results(seats, "seats.hold")}
    released = {command_id for (command_id,) in seats.fetch("SELECT command_id FROM command_log")}
    return timers - released - taken_back(seats)


def taken_back(seats: Lane) -> set[str]:
    """The timers of the seats that are paid for: a payment is applied if, and only if, it took the timer back."""
    timers = {seat["id"]: seat["timer"] for seat in (json.loads(result) for (result,) in results(seats, "seats.hold"))}
    return {timers[json.loads(result)["id"]] for (result,) in results(seats, "seats.pay")}


def results(seats: Lane, type_: str) -> list[tuple[Any, ...]]:
    return seats.fetch(f"SELECT result FROM command_log WHERE type = '{type_}' AND status = 'applied'")


def check_timers(seats: Lane, held: Sequence[Command]) -> None:
    seats.check_log()
    due_at = {hold.id: hold.at for hold in held if isinstance(hold, Hold)}
    entries = seats.fetch("SELECT command_id, type, status, result, settled_at FROM command_log ORDER BY sequence")
    set_at: dict[str, datetime] = {}
    seat_of: dict[str, int] = {}
    fired: list[str] = []
    for command_id, type_, status, result, settled_at in entries:
        at = settled_at if settled_at.tzinfo else settled_at.replace(tzinfo=UTC)
        if type_ == "seats.hold":
            assert status == "applied"
            seat = json.loads(result)
            set_at[seat["timer"]], seat_of[seat["timer"]] = at, seat["id"]
        elif type_ == "seats.release":
            assert status == "applied", "once, under the id that `emit` returned"
            due = due_at[seat_of[command_id]]
            assert due is not None
            assert at >= due - timedelta(milliseconds=1), "not before it is due; the database keeps milliseconds"
            fired.append(command_id)
    back = taken_back(seats)
    assert back, "some were in time"
    assert len(fired) == len(set(fired))
    assert set(fired) == set(set_at) - back
    rows = {row[0]: row[1] for row in seats.fetch("SELECT id, holder FROM seats")}
    assert {number for number, holder in rows.items() if holder is not None} == {seat_of[timer] for timer in back}

    # In order of due times, as far as a timer was set before the other was due.
    def due_of(timer: str) -> datetime:
        due = due_at[seat_of[timer]]
        assert due is not None
        return due

    compared = 0
    for place, later in enumerate(fired):
        for earlier in fired[place + 1 :]:
            if set_at[earlier] < due_of(later):
                compared += 1
                assert due_of(earlier) >= due_of(later) - timedelta(milliseconds=1), "it was due earlier"
    assert compared > len(fired), "most of them were set in time"


def test_a_step_that_is_answered_too_late_is_taken_back_once_whoever_is_killed(
    voyages_and_ferries: tuple[Lane, Lane],
) -> None:
    voyages, ferries = voyages_and_ferries
    ferries.start(1)
    voyages.start(2)
    # The ferries are away, and what limits the steps falls due while the voyages' holder is killed.
    ferries.kill()
    voyages.publish([Embark() for _ in range(VOYAGES_WAITING)])
    wait_until(lambda: voyages.count("voyages") == VOYAGES_WAITING, "all wait for an answer")
    voyages.kill_holder()
    late = "status = 'compensating' AND reason_code = 'no_answer'"
    wait_until(lambda: voyages.count("voyages", late) > 0, "the first have no answer in time")
    voyages.kill_holder()
    wait_until(lambda: voyages.count("voyages", late) == VOYAGES_WAITING, "nobody has an answer in time")

    # Both orders wait for the ferries. The answers come too late, and the holder is killed in their midst.
    ferries.start(2)
    wait_until(lambda: ferries.settled("ferries.book") > 0, "the ferries are back")
    ferries.kill_holder()
    voyages.kill_holder()
    wait_until(lambda: voyages.count("voyages", "status = 'compensated'") == VOYAGES_WAITING, "all are taken back")
    wait_until(lambda: answered(voyages) == 2 * VOYAGES_WAITING, "the late answers have come, too")

    # Those of now are answered, in time or not.
    voyages.publish([Embark() for _ in range(VOYAGES_ANSWERED)])
    total = VOYAGES_WAITING + VOYAGES_ANSWERED
    wait_until(lambda: voyages.count("voyages", "ended_at IS NOT NULL") == total, "all have ended")
    wait_until(lambda: voyages.is_quiet() and ferries.is_quiet(), "nothing is on its way")
    check_voyages(voyages, ferries, total)


def answered(voyages: Lane) -> int:
    return voyages.count("saga_steps", "status IN ('applied', 'expired')")


def check_voyages(voyages: Lane, ferries: Lane, total: int) -> None:
    voyages.check_log()
    ferries.check_log()
    status = dict(voyages.fetch("SELECT id, status FROM voyages"))
    assert set(status.values()) <= {"completed", "compensated"}
    assert [status[number] for number in range(1, VOYAGES_WAITING + 1)] == ["compensated"] * VOYAGES_WAITING
    steps = voyages.fetch("SELECT saga_id, direction, status FROM saga_steps ORDER BY saga_id, number")
    booked = {number: each for number, direction, each in steps if direction == "do"}
    back = {number for number, direction, each in steps if (direction, each) == ("undo", "applied")}
    # Each was asked for once, and is not done where its turn came too late.
    assert (booked.keys(), set(booked.values()) <= {"applied", "expired"}) == (status.keys(), True)
    assert len(steps) == len(booked) + len(back)
    assert {number for number, each in status.items() if each == "completed"} == {
        number for number, each in booked.items() if each == "applied" and number not in back
    }
    cabins = {row[0]: tuple(row[1:]) for row in ferries.fetch("SELECT id, booked, given_back FROM cabins")}
    assert cabins == {
        number: (int(each == "applied"), int(number in back))
        for number, each in booked.items()
        if each == "applied" or number in back
    }
    assert (ferries.settled("ferries.book"), ferries.settled("ferries.give_back")) == (total, len(back))
