"""Types that only a newer release has: when their commands wait, what asking costs, how operators take them back."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from coordinator import Handler, Service, UnitOfWork
from coordinator.cli import cli
from coordinator.lane.control import Release
from coordinator.lane.delivery import Settlement, Suspension
from coordinator.migrations.migrate import migrate
from coordinator.operate.output import as_user
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.announcements import Announcement, AnnouncementChange, Announcements, Withdrawal
from coordinator.stores.audit import ActQuery
from coordinator.stores.lane_tables import AnnouncedVersion, Cancellation, DeadLetter, ParkedCommand
from coordinator.stores.memory import MemoryDatabase, MemoryStore, MemoryTransaction
from coordinator.stores.open import open_admin, open_store
from coordinator.stores.port import Read
from tests.support.continuation_contract import brought
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, Account, Deposit, Fragile, OpenAccount, Postpone, Remark, Resume
from tests.support.release_contract import OLDER
from tests.support.releases import new, old

REMARK = b'{"id":1,"note":"new"}'


@pytest.fixture
def database() -> MemoryDatabase:
    """The newer release has migrated it."""
    database = MemoryDatabase()
    announce(database, Remark.type)
    return database


@pytest.fixture
def lane(database: MemoryDatabase) -> LaneUnderTest:
    return LaneUnderTest(MemoryStore(database), service=OLDER)


def announce(database: MemoryDatabase, *types: str, origin: str | None = None) -> None:
    for kind in types:
        database.tables[AnnouncedVersion][kind] = AnnouncedVersion(type=kind, version=1, origin=origin)


def remark(number: int, arguments: bytes = REMARK, **options: Any) -> Any:
    return delivery(number, arguments, command_type=Remark.type, **options)


# What waits


def test_a_strangers_command_waits_too_whatever_the_newer_release_thinks_of_it(lane: LaneUnderTest) -> None:
    """This process cannot know whose the type is, nor what its arguments are."""
    assert isinstance(lane.lane.apply([remark(1, b"{}", origin="public")]), Suspension)


def test_what_no_gateway_has_sent_is_a_dead_letter_and_stops_nobody(
    lane: LaneUnderTest, database: MemoryDatabase
) -> None:
    """Whoever may publish could have the lane wait for a release that never comes. Operators replay the letter."""
    stranger: dict[str, Any] = {"origin": "public", "is_strangers": True}
    outcomes = lane.outcomes(remark(1, **stranger), delivery(2, OpenAccount(owner="a")))
    assert codes(outcomes) == ["unknown_command_type", "applied"]
    (letter,) = database.tables[DeadLetter].values()
    assert (letter.type, letter.arguments) == (Remark.type, REMARK)


def test_a_strangers_continuation_is_a_dead_letter_too_also_once_it_was_put_off(
    lane: LaneUnderTest, database: MemoryDatabase
) -> None:
    """The system passes it on, so its lane sees no stranger's account."""
    lane.do(OpenAccount(owner="a"))
    named: dict[str, Any] = {"origin": "public", "is_strangers": True, "continuation": Remark.type}
    at_once = lane.settle(delivery(1, Deposit(id=1, amount=1), **named)).emitted
    lane.settle(delivery(2, Postpone(id=1), **named))
    put_off = lane.settle(delivery(3, Resume(id=1))).emitted
    for entry in (*at_once, *put_off):
        outcomes = lane.outcomes(brought(entry), delivery(4, OpenAccount(owner="b")))
        assert codes(outcomes) == ["unknown_command_type", "applied"]
    assert [letter.type for letter in database.tables[DeadLetter].values()] == [Remark.type] * 2


def test_what_only_the_system_may_issue_waits_for_nobody_else(lane: LaneUnderTest, database: MemoryDatabase) -> None:
    """A lane that was told of no gateways takes nobody for a stranger: the newer release would refuse this one."""
    announce(database, Remark.type, origin="system")
    outcomes = lane.outcomes(remark(1, origin="public"), delivery(2, OpenAccount(owner="a")))
    assert codes(outcomes) == ["unknown_command_type", "applied"]
    assert isinstance(lane.lane.apply([remark(3, origin="system")]), Suspension)
    announce(database, Remark.type, origin="public")
    lane.channel_number += 1
    assert isinstance(lane.lane.apply([remark(4, origin="public")], lane.channel_number), Suspension)


@pytest.mark.parametrize("arguments", [b"[]", b"{", b"7", b"", b"\xff", b"[" * 101 + b"]" * 101])
def test_what_is_no_json_object_does_not_wait(lane: LaneUnderTest, arguments: bytes) -> None:
    assert codes(lane.outcomes(remark(1, arguments), delivery(2, OpenAccount(owner="a")))) == [
        "unknown_command_type",
        "applied",
    ]


def test_what_no_release_would_try_does_not_wait(lane: LaneUnderTest, database: MemoryDatabase) -> None:
    first = delivery(1, OpenAccount(owner="a"), publisher="p", publisher_seq=1)
    assert codes(lane.outcomes(first, remark(2, publisher="p", publisher_seq=1))) == [
        "applied",
        "publisher_seq_settled",
    ]
    over_ms = int(lane.now.timestamp() * 1000) - 1
    assert codes(lane.outcomes(remark(3, deadline_ms=over_ms))) == ["deadline_expired"]
    assert codes(lane.outcomes(remark(1))) == ["idempotency_mismatch"]
    lacks_id = lane.outcomes(remark(None))  # type: ignore[arg-type]
    assert codes(lacks_id) == ["unknown_command_type"]
    cancelled = Cancellation(command_id=command_id(4), reason="not now", requested_at=lane.now)
    assert isinstance(lane.lane.apply([remark(4)]), Suspension)
    database.tables[Cancellation][command_id(4)] = cancelled
    assert codes(lane.outcomes(remark(4))) == ["cancelled"]


def test_what_nobody_announced_is_a_dead_letter_after_its_deadline_too(lane: LaneUnderTest) -> None:
    over_ms = int(lane.now.timestamp() * 1000) - 1
    never, above = (
        delivery(number, b"{}", command_type=f"ledger.{name}", command_version=version, deadline_ms=over_ms)
        for number, name, version in ((1, "unknown", None), (2, "remark", 2))
    )
    assert codes(lane.outcomes(never, above)) == ["unknown_command_type"] * 2


def test_one_that_waits_expires_at_its_deadline(lane: LaneUnderTest) -> None:
    waiting = remark(1, deadline_ms=int(lane.now.timestamp() * 1000))
    assert isinstance(lane.lane.apply([waiting]), Suspension)
    lane.now = lane.now.replace(microsecond=lane.now.microsecond + 1000)
    assert codes(lane.outcomes(waiting)) == ["deadline_expired"]
    assert lane.rows(DeadLetter) == []


def test_one_that_waited_for_its_key_waits_for_the_newer_release(database: MemoryDatabase) -> None:
    """The newer process had the lane before, and parked the command."""
    newer = LaneUnderTest(MemoryStore(database), "newer")
    newer.do(OpenAccount(owner="a"), Remark(id=1, note="broken"))
    assert codes(newer.outcomes(delivery(10, Fragile(id=1, amount=1)))) == ["handler_error"]
    newer.do(Deposit(id=1, amount=5))
    assert len(database.rows(ParkedCommand)) == 2
    announce(database, Deposit.type)
    without = LEDGER.replace(handlers=[each for each in LEDGER.handlers if each.command is not Deposit])
    older = LaneUnderTest(MemoryStore(database), "older", without)
    release = delivery(20, Release(ordering_key="accounts.id=1", command_id=command_id(10)))
    assert isinstance(older.lane.apply([release]), Settlement)
    waits = older.lane.apply([release])
    assert isinstance(waits, Suspension)
    assert "is of type ledger.deposit, which a newer release has announced" in waits.reason
    assert codes(LaneUnderTest(MemoryStore(database), "newest").outcomes(release)) == ["applied"] * 2
    assert [row.balance for row in database.rows(Account)] == [5]


def test_a_flood_of_unknown_types_costs_no_query_each(lane: LaneUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    lane.do(OpenAccount(owner="a"), OpenAccount(owner="b"))
    asked: list[list[Any]] = []
    load = MemoryTransaction.load

    def counted(transaction: MemoryTransaction, reads: Any) -> Any:
        asked.append([read for read in reads if isinstance(read, Read) and read.model is AnnouncedVersion])
        return load(transaction, reads)

    monkeypatch.setattr(MemoryTransaction, "load", counted)
    flood = [delivery(100 + number, b"{}", command_type=f"ledger.u{number % 50}~!\"'%") for number in range(200)]
    assert codes(lane.outcomes(*flood, delivery(400, OpenAccount(owner="c")))) == [
        *["unknown_command_type"] * 200,
        "applied",
    ]
    assert [[len(read.values) for read in reads] for reads in asked] == [[50], []], "the types, and an account's owner"
    asked.clear()
    lane.do(*(Deposit(id=1, amount=1) for _ in range(10)))
    assert [reads for reads in asked if reads] == [], "nobody pays who knows his types"


# What a migration makes of announcements


def of(versions: dict[str, int]) -> dict[str, Announcement]:
    return {kind: Announcement(version, "public") for kind, version in versions.items()}


def test_a_release_announces_what_it_knows_and_takes_nothing_back() -> None:
    of_new = Announcement(2, "public")
    assert Announcements({}, new, []).changes == [AnnouncementChange("notes.add", None, of_new)]
    before = Announcement(1, "public")
    assert Announcements({"notes.add": before}, new, []).changes == [AnnouncementChange("notes.add", before, of_new)]
    assert Announcements({"notes.add": of_new, "notes.pin": Announcement(3)}, old, []).changes == []


def test_a_release_says_whether_anybody_may_issue_a_command() -> None:
    (handler,) = new.handlers
    inner, operators = (
        new.replace(handlers=[msgspec.structs.replace(handler, **{flag: True})])
        for flag in ("is_internal", "is_operators")
    )
    said: list[tuple[Announcement | None, Service, Announcement]] = [
        (None, inner, Announcement(2, "system")),
        (None, operators, Announcement(2, "system")),
        # An earlier release did not say.
        (Announcement(2), inner, Announcement(2, "system")),
        (Announcement(2), new, Announcement(2, "public")),
        # Two releases have the same version: whoever may issue it in one of them.
        (Announcement(2, "system"), new, Announcement(2, "public")),
        (Announcement(2, "public"), inner, Announcement(2, "public")),
        # Of the higher version.
        (Announcement(3, "public"), inner, Announcement(3, "public")),
        (Announcement(3, "system"), new, Announcement(3, "system")),
        (Announcement(1, "public"), inner, Announcement(2, "system")),
    ]
    for before, service, after in said:
        there = {} if before is None else {"notes.add": before}
        changes = Announcements(there, service, []).changes
        assert changes == ([] if before == after else [AnnouncementChange("notes.add", before, after)])


@pytest.mark.parametrize(
    ("withdrawals", "changes"),
    [
        ([Withdrawal("notes.pin")], [("notes.pin", 3, None)]),
        ([Withdrawal("notes.pin", 2)], [("notes.pin", 3, 2)]),
        ([Withdrawal("notes.pin", 3)], []),
        ([Withdrawal("notes.pin", 4)], []),
        ([Withdrawal("notes.add", 1)], [("notes.add", 2, 1)]),
        ([Withdrawal("notes.other")], []),
        ([Withdrawal("notes.other", 2)], []),
        (
            [Withdrawal("notes.pin", 2), Withdrawal("notes.pin"), Withdrawal("notes.add", 1)],
            [("notes.add", 2, 1), ("notes.pin", 3, None)],
        ),
    ],
)
def test_a_withdrawal_takes_back_what_is_above_its_version(
    withdrawals: list[Withdrawal], changes: list[tuple[str, int, int | None]]
) -> None:
    found = Announcements(of({"notes.add": 2, "notes.pin": 3}), old, withdrawals).changes
    versions = [
        (each.type, *(None if it is None else it.version for it in (each.before, each.after))) for each in found
    ]
    assert versions == changes
    # Of a version below the one that is announced nobody has said who may issue it, but this release of its own.
    left = [each.after for each in found if each.after is not None]
    assert {each.origin for each in left} <= {"public" if each.version == 1 else None for each in left}


def said(announced: dict[str, int], service: Service, *withdrawals: Withdrawal) -> list[dict[str, Any]]:
    with capture_logs() as lines:
        Announcements(of(announced), service, withdrawals).say()
    return [{name: value for name, value in line.items() if name != "service"} for line in lines]


def test_what_a_release_does_not_know_is_said() -> None:
    assert said({"notes.add": 2}, new) == []
    pin = {"event": "unknown_type_announced", "log_level": "warning", "type": "notes.pin", "announced": 1}
    add = {"event": "newer_version_announced", "log_level": "warning", "type": "notes.add", "announced": 2, "known": 1}
    assert said({"notes.add": 2, "notes.pin": 1}, old) == [add, pin]
    assert said({"notes.add": 2, "notes.pin": 1}, new) == [pin]
    assert said({"notes.add": 2, "notes.pin": 1}, new, Withdrawal("notes.pin"), Withdrawal("notes.typo")) == [
        {"event": "announcement_withdrawn", "log_level": "info", "type": "notes.pin", "announced": 1, "left": None},
        {"event": "nothing_withdrawn", "log_level": "warning", "type": "notes.typo", "announced": None},
    ]
    assert said({"notes.add": 3}, old, Withdrawal("notes.add", 2)) == [
        {"event": "announcement_withdrawn", "log_level": "info", "type": "notes.add", "announced": 3, "left": 2},
        add,
    ]


# The command


def pinned() -> Service:
    """The release after `new`, of which a type was taken out again."""
    service = new.replace()

    class Pin(Remark, type="notes.pin", version=1):
        """A type of its own."""

    def pin(work: UnitOfWork, command: Pin) -> None:
        """Pins nothing."""

    return service.replace(handlers=[*new.handlers, Handler(Pin, pin)])


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/notes.db"
    migrate(pinned(), DatabaseSettings(database_url=url))
    return url


def announced(url: str) -> dict[str, int]:
    store = open_store(url, old)
    transaction = store.begin()
    try:
        return {row.type: row.version for row in transaction.scan(AnnouncedVersion, 10)}
    finally:
        transaction.rollback()
        store.close()


def run(url: str, release: str, *arguments: str) -> click.testing.Result:
    environment = {"NOTES_DATABASE_URL": url, "COORDINATOR_APP": f"tests.support.releases:{release}"}
    return CliRunner().invoke(cli, ["migrate", *arguments], env=environment)


def test_an_operator_withdraws_a_type_and_a_version(url: str) -> None:
    assert announced(url) == {"notes.add": 2, "notes.pin": 1}
    ran = run(url, "old")
    assert (ran.exit_code, "unknown_type_announced" in ran.output, "newer_version_announced" in ran.output) == (
        0,
        True,
        True,
    )
    assert announced(url) == {"notes.add": 2, "notes.pin": 1}
    ran = run(url, "old", "notes", "--withdraw", "notes.pin", "--withdraw=notes.add=1")
    assert ran.exit_code == 0, ran.output
    assert ran.output.count("announcement_withdrawn") == 2
    assert announced(url) == {"notes.add": 1}
    again = run(url, "old", "--withdraw", "notes.pin")
    assert (again.exit_code, "nothing_withdrawn" in again.output) == (0, True), "a second time does no harm"


def test_who_migrates_is_recorded_once_for_each_release(url: str) -> None:
    """With what the release knows, what is withdrawn, and why; a repetition, as at each start of a system, is not."""
    withdrawing = ("old", "--withdraw=notes.pin", "--reason", "rolled back")
    for release, *arguments in (("new",), ("new",), ("old",), withdrawing):
        ran = run(url, release, *arguments)
        assert ran.exit_code == 0, ran.output
    with closing(open_admin(url, "notes")) as admin:
        acts = admin.acts(ActQuery(), None, 10)
    assert {(each.act, each.author) for each in acts} == {("migrate", as_user())}
    details = [json.loads(each.details) for each in acts]
    assert [each.get("withdrawn") for each in details] == [["notes.pin"], None, None]
    assert [each["commands"] for each in details] == [old.versions, old.versions, new.versions]
    assert [each.reason for each in acts] == ["rolled back", None, None]


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("notes.add", "this release has notes.add in version 2, and announces that with each migration"),
        ("notes.add=1", "this release has notes.add in version 2"),
    ],
)
def test_what_the_release_itself_has_is_not_withdrawn(url: str, argument: str, text: str) -> None:
    ran = run(url, "new", "--withdraw=notes.pin", f"--withdraw={argument}")
    assert isinstance(ran.exception, ConfigurationError)
    assert text in str(ran.exception)
    assert announced(url) == {"notes.add": 2, "notes.pin": 1}, "nothing was done"


def test_a_release_without_the_revision_of_the_database_says_so(url: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE lane_schema_version SET version_num = 'lane_9999'")
        connection.commit()
    ran = run(url, "old", "--withdraw", "notes.pin")
    assert isinstance(ran.exception, ConfigurationError)
    assert "of a newer release: lane_schema_version is lane_9999, and this one knows up to lane_" in str(ran.exception)
    assert announced(url) == {"notes.add": 2, "notes.pin": 1}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--withdraw", "notes"], "'notes' is no command type, such as seats.book or seats.book=2"),
        (["--withdraw", "notes.pin=0"], "0 is not in the range"),
        (["--withdraw", "notes.pin="], "'' is not a whole number from 1"),
        (["--withdraw", "notes.pin=x"], "'x' is not a whole number from 1"),
        (["--withdraw", "seats.book"], "'seats' is not one of 'notes'"),
        (["--withdraw", "notes." + "x" * 100], "is no command type"),
    ],
)
def test_what_is_no_announcement_is_refused(url: str, arguments: list[str], text: str) -> None:
    ran = run(url, "old", *arguments)
    assert (ran.exit_code, text in " ".join(ran.output.split())) == (2, True), ran.output
