"""What pages ask for costs a page, however much there is: 10,000 dead letters, as many parked commands, a long log.

The budget is of statements, of rows that the database gives, and of bytes that a browser gets: those do not depend on
the machine.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from coordinator.migrations.migrate import migrate
from coordinator.operate.conditions import LaneCondition
from coordinator.operate.finding import Finder
from coordinator.operate.forget_waiting import note_asked
from coordinator.operate.open import lane_admin, lane_api_keys
from coordinator.operations.lane_watch import FORGETS_EVERY_S, LaneWatch
from coordinator.operations.letters import page_of_letters, whole_letter
from coordinator.operations.settled_commands import known_command, page_of_commands
from coordinator.registry import APP_SETTING, registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.ids import new_command_id
from coordinator.service.json_text import to_json
from coordinator.stores.admin import LaneAdmin, LetterQuery
from coordinator.stores.audit import ActQuery
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.seats import seats

pytestmark = pytest.mark.operators

LANE: Final = "seats"
LETTERS: Final = 10_000
"""And as many parked commands, for ten keys: LANE_PARKED_MAX of them, by default."""
ENTRIES: Final = int(os.environ.get("LOG_ENTRIES", "30000"))
"""Of the log; the first ones failed, and are the letters."""
PAGE: Final = 50
LARGE: Final = 2000

_IDS: Final = "'01a20505-b7c5-73ed-8a97-' || lpad(to_hex(n), 12, '0')"
_FAILED: Final = f"CASE WHEN n <= {LETTERS} THEN"
FILL: Final = (
    f"""
    INSERT INTO command_log (
        command_id, type, status, sequence, epoch, fingerprint, settled_at, error_code, error_message, result
    ) SELECT
        {_IDS}, 'seats.book', {_FAILED} 'failed' ELSE 'applied' END, n, 1, repeat('f', 64),
        now() - interval '1 day' + n * interval '1 ms', {_FAILED} 'handler_error' END, {_FAILED} 'a defect' END,
        '"' || repeat('r', 200) || '"'
    FROM generate_series(1, {ENTRIES}) AS n
    """,
    f"""
    INSERT INTO dead_letters (
        id, source, target, command_id, type, origin, code, reason, sequence, size_bytes, arguments, traceback, copies,
        dead_at, options
    ) SELECT
        n, 'command ' || n, 'seats', {_IDS}, 'seats.book', 'public', 'handler_error', repeat('why ', 100), n, 2000,
        convert_to('{{"id": ' || n || ', "pad": "' || repeat('x', {LARGE}) || '"}}', 'UTF8'), repeat('line ', 400), 1,
        now(), '{{}}'
    FROM generate_series(1, {LETTERS}) AS n
    """,
    f"""
    INSERT INTO parked (
        command_id, ordering_key, position, message, fingerprint, error_code, error_message, parked_at
    ) SELECT
        {_IDS}, 'seats.id=' || (n % 10), n, convert_to(repeat('m', {LARGE}), 'UTF8'), repeat('f', 64),
        CASE WHEN n <= 10 THEN 'handler_error' END, NULL, now()
    FROM generate_series(1, {LETTERS}) AS n
    """,
    # Those that wait are not settled.
    f"DELETE FROM command_log WHERE sequence > 10 AND sequence <= {LETTERS} AND sequence % 2 = 0",
    f"UPDATE lane_lease SET sequence = {ENTRIES}, epoch = 1, holder = 'a coordinator'",
    "ANALYZE",
)


class Cost:
    """Of what was asked since it began."""

    def __init__(self) -> None:
        self.statements = self.rows = 0

    def note(self, _connection: Any, cursor: Any, *_: object) -> None:
        self.statements += 1
        self.rows += max(0, cursor.rowcount)


@contextmanager
def counted() -> Iterator[Cost]:
    cost = Cost()
    event.listen(Engine, "after_cursor_execute", cost.note)
    try:
        yield cost
    finally:
        event.remove(Engine, "after_cursor_execute", cost.note)


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch, databases: FreshDatabases) -> Iterator[LaneAdmin]:
    url = databases.new("USERS_DATABASE_URL")
    monkeypatch.setenv(APP_SETTING, "tests.support.seats:seats")
    monkeypatch.setenv("SEATS_DATABASE_URL", url)
    migrate(seats, DatabaseSettings(database_url=url))
    engine = sql_engine(url)
    with engine.begin() as connection:
        for statement in FILL:
            connection.execute(text(statement))
    engine.dispose()
    with lane_admin(LANE) as opened:
        opened.state()
        yield opened


def found_for(what: str) -> Any:
    """Through connections of its own, as the page asks."""
    condition = LaneCondition(lane=LANE, state="running", why=None, waiting=0)
    finder = Finder({LANE: condition}, registry().service, lane_admin, lane_api_keys)
    return finder.find(what, [LANE], frozenset({LANE}), None, None)


def command_id(number: int) -> str:
    return f"01a20505-b7c5-73ed-8a97-{number:012x}"


def letters(admin: LaneAdmin, after: int = 0, **query: Any) -> Any:
    return page_of_letters(admin, LetterQuery(**query), after, PAGE, with_content=True)


def commands(admin: LaneAdmin, **query: Any) -> Any:
    asked = {"before": None, "limit": PAGE, "command_type": None, "status": None, "until": None} | query
    return page_of_commands(admin, **asked)


Question = Callable[[LaneAdmin], Any]
ASKED: Final[dict[str, tuple[Question, int, int, int]]] = {
    "letters": (letters, 5, 2 * PAGE, 40_000),
    "the last letters": (lambda admin: letters(admin, LETTERS - 10), 5, 2 * PAGE, 40_000),
    "letters of a type": (lambda admin: letters(admin, type="seats.nothing"), 5, 10, 100),
    "letters with a text": (lambda admin: letters(admin, contains=b'"id": 9999,'), 5, 10, 1000),
    "a letter": (lambda admin: whole_letter(admin, LANE, LETTERS // 2, with_content=True), 10, 20, 6000),
    "commands": (commands, 5, 2 * PAGE, 20_000),
    "failed commands": (lambda admin: commands(admin, status="failed"), 15, 2 * PAGE, 20_000),
    "commands of a rare type": (lambda admin: commands(admin, command_type="seats.rare"), 15, 20, 100),
    "a command": (lambda admin: known_command(admin, LANE, command_id(ENTRIES), {}, with_content=True), 60, 500, 4000),
    "a failed one": (lambda admin: known_command(admin, LANE, command_id(7), {}, with_content=True), 60, 2500, 9000),
    "a parked one": (lambda admin: known_command(admin, LANE, command_id(9998), {}, with_content=True), 60, 3000, 4000),
    "acts": (lambda admin: admin.acts(ActQuery(), None, PAGE), 5, PAGE, 20_000),
    "find a command": (lambda _: found_for(command_id(7)), 90, 3000, 9000),
    "find a row": (lambda _: found_for("seats/7"), 60, 2000, 2000),
    "find a key": (lambda _: found_for("order-1"), 60, 100, 1000),
}
"""What pages ask: how many statements, rows and bytes they may take."""


def test_no_page_reads_more_than_it_shows(admin: LaneAdmin) -> None:
    watch = LaneWatch(LANE)
    looks: dict[str, tuple[Question, int, int, int]] = {
        "a first look": (lambda _: watch.look(), 30, 200, 60_000),
        "a look": (lambda _: watch.look(), 12, 30, 2000),
    }
    beyond = []
    for name, (question, *budget) in (looks | ASKED).items():
        with counted() as cost:
            began_s = time.perf_counter()
            found = question(admin)
            spent_ms = (time.perf_counter() - began_s) * 1000
        spent = (cost.statements, cost.rows, len(to_json(found)))
        # For whoever runs it with `-s LOG_ENTRIES=1000000`, say.
        print(f"{name:24} {spent_ms:7.1f} ms {spent[0]:3} statements {spent[1]:5} rows {spent[2]:6} bytes")
        if any(each > limit for each, limit in zip(spent, budget, strict=True)):
            beyond.append((name, spent, budget))
    watch.close()
    assert beyond == []


def test_what_is_shown_is_what_there_is(admin: LaneAdmin) -> None:
    state = admin.state()
    assert (state.dead_letters, state.parked.keys, state.parked.commands) == (LETTERS, 10, LETTERS - 10)
    parked = known_command(admin, LANE, command_id(9998), {}, with_content=True)
    assert parked is not None
    assert (parked.waits_for, parked.waits_behind) == ("seats.id=8", command_id(8))
    assert len(admin.parked(key="seats.id=8")) == len(admin.parked(command_id=command_id(8))) == LETTERS / 10
    assert admin.parked(key="seats.id=11") == admin.parked(command_id=command_id(ENTRIES)) == []
    # All failed ones, a page at a time: the earlier half of them has gaps.
    seen: list[int] = []
    before: int | None = None
    while True:
        page = commands(admin, status="failed", before=before, limit=2000)
        seen += [each.sequence for each in page.commands]
        if page.next is None:
            break
        before = page.next
    kept = [number for number in range(1, LETTERS + 1) if number <= 10 or number % 2]
    assert seen == kept[::-1]


@pytest.mark.usefixtures("admin")
def test_a_look_has_the_orders_to_forget_that_wait() -> None:
    """They are looked for now and then."""
    passed_s = [0.0]
    watch = LaneWatch(LANE, lambda: passed_s[0])
    assert watch.look().status.forgets == []
    note_asked(LANE, None, [new_command_id()])
    assert watch.look().status.forgets == []
    passed_s[0] = FORGETS_EVERY_S
    assert len(watch.look().status.forgets or []) == 1
    watch.close()
