"""The operator's commands without servers: what they take, how they refuse, what they print."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import click
import msgspec
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, insert, text

from coordinator.cli import cli
from coordinator.migrations.migrate import migrate
from coordinator.operate import find, output, send
from coordinator.operate.answers import outcome_of
from coordinator.operate.continuing import message_of
from coordinator.operate.found import Found, FoundCommand, FoundRow
from coordinator.operate.output import now, print_fields, print_table
from coordinator.operate.places import Stop
from coordinator.operate.send import checked
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.continuation import Deferred, continued
from coordinator.service.errors import ConfigurationError, InvalidCommand
from coordinator.service.ids import system_command_id
from coordinator.service.options import Origin
from coordinator.service.outcome import Outcome
from coordinator.service.rows import Row
from coordinator.service.text import printable
from coordinator.stores import lane_tables
from coordinator.stores.clocks import CLOCKS_APART_MAX
from coordinator.stores.lane_tables import LogEntry, OutboxEntry
from coordinator.stores.sql.admin import SqlAdmin
from shared.payments.commands import OpenPayment
from shared.payments.model import Payment, ReversalWaiter, Waiters
from shared.payments.model import metadata as payments_metadata
from tests.support.shop.service import SERVICE as SHOP

ID = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environment)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", timedelta(days=7)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("45s", timedelta(seconds=45)),
        ("2w", timedelta(weeks=2)),
        ("0s", timedelta()),
        ("99999w", timedelta(weeks=99999)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert output.duration(text) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "7 d", "7y", "7d12h", "999999999999w", "\u0667d"])
def test_what_is_no_duration_is_named(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no duration"):
        output.duration(text)


def test_deadlines_are_from_now_or_times() -> None:
    assert output.deadline("2030-01-31T12:00:00Z") == datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert output.deadline("2030-01-31T12:00:00") == datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert output.deadline("2030-01-31T12:00:00+02:00") == datetime(2030, 1, 31, 10, tzinfo=UTC)
    assert timedelta(seconds=28) < output.deadline("30s") - datetime.now(UTC) < timedelta(seconds=31)
    with pytest.raises(click.BadParameter, match=r"'tomorrow' is no time: write 30s \(from now\)"):
        output.deadline("tomorrow")


@pytest.mark.parametrize(
    "text",
    [
        "20300131T120000Z",
        "2030-W05-4",
        "2030-01-31T12:00:00,5Z",
        "2030-01-31T12Z",
        "\uff12030-01-31",
        "2030-01-31T1:00:00Z",
    ],
)
def test_of_the_many_forms_of_a_time_one_is_taken(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no time"):
        output.deadline(text)
    assert output.deadline("2030-01-31") == output.deadline("2030-01-31 00:00:00.000000Z")


def test_times_past_are_so_long_ago_or_times() -> None:
    assert output.past("2030-01-31T12:00:00Z") == datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert timedelta(hours=1, minutes=59) < datetime.now(UTC) - output.past("2h") < timedelta(hours=2, minutes=1)
    assert output.past("99999w").year > 0
    with pytest.raises(click.BadParameter, match=r"'yesterday' is no time: write 2h \(ago\)"):
        output.past("yesterday")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-5, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (10**7, "115 d")]
)
def test_ages_are_short(seconds: int, shown: str) -> None:
    assert output.age(output.now() - timedelta(seconds=seconds)) == shown


HOSTILE = "a\x1b[2J\x00\x07\x7f\x9b31m\u202e\u2028\ud800b\u00e9\U0001f600 c"


def test_nothing_that_is_printed_gives_the_terminal_orders(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printable(HOSTILE)
    assert shown == ("a\\u001b[2J\\u0000\\u0007\\u007f\\u009b31m\\u202e\\u2028\\ud800b\u00e9\U0001f600 c")
    print_fields({"reason": f"one\n{HOSTILE}"})
    print_table(("REASON",), [(HOSTILE,)])
    print_fields({"tag": "\U000e0001"})
    lines = capsys.readouterr().out.split("\n")
    assert all(line.isprintable() for line in lines)
    assert lines[1] == f"        {shown}"
    assert "\\udb40\\udc01" in lines[-2]


def test_neither_does_an_error_nor_what_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    output.CommandRefused(f"one\n{HOSTILE}").show()
    assert all(line.isprintable() for line in capsys.readouterr().err.split("\n"))
    # JSON text has most such characters as they are.
    row = msgspec.json.format(msgspec.json.encode({"name": HOSTILE.replace("\ud800", "")}), indent=2).decode()
    found = FoundRow(lane="l", table="t", key=HOSTILE, row=row, is_stuck=True, where=HOSTILE, why=HOSTILE, todo=HOSTILE)
    stop = Stop(kind="settled", lane="l", text=HOSTILE, type=HOSTILE, command_id=HOSTILE, said=HOSTILE, why=HOSTILE)
    command = FoundCommand(
        lane="l", command_id="0", stops=[stop], is_stuck=False, where=HOSTILE, why=HOSTILE, todo=HOSTILE
    )
    with pytest.raises(output.CommandRefused):
        find._print(Found(asked="a", rows=[found], commands=[command], away=[HOSTILE], nothing=HOSTILE))
    printed = capsys.readouterr()
    assert all(line.isprintable() for line in (printed.out + printed.err).split("\n"))
    assert "\\u009b31m" in printed.out


def test_json_says_the_same_without_them() -> None:
    value = {"text": HOSTILE.replace("\ud800", ""), "raw": msgspec.Raw(b'{ "a" :\n"\xc2\x9b" }')}
    text = output.json_text(value)
    assert text.isprintable()
    assert json.loads(text) == {"text": value["text"], "raw": {"a": "\x9b"}}


@pytest.mark.parametrize("text", ["", " ", "x" * 501, "a\nb"])
def test_what_is_no_reason_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="1 to 500 printable"):
        output.reason(text)


def test_ids_are_stored_in_small_letters() -> None:
    assert output.command_id(ID.upper()) == ID
    with pytest.raises(click.BadParameter, match="UUID"):
        output.command_id("5")


def test_tables_and_fields_fit_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "BCD"), [("x\ny", None), (1.25, "z" * 100)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["A    BCD", "x y  -"]
    assert lines[2] == f"1.2  {'z' * 59}…"
    print_table(("A", "BCD"), [])
    print_fields({"one": None, "two": "a\nb", "three": datetime(2030, 1, 1, tzinfo=UTC)})
    assert capsys.readouterr().out == "A  BCD\ntwo    a\n       b\nthree  2030-01-01 00:00:00.000000Z\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("send", "users.none", "{}"), "no command type 'users.none': there are users.create"),
        (("send", "users.create", "{}", "--lane", "items"), "no command type 'users.create': there are items.create"),
        (("send", "users.continue_purchase", "{}"), "users.continue_purchase is internal (is_internal)"),
        (("send", "users.create", "{"), "not valid JSON"),
        (("send", "users.create", '{"name": "Ada"}'), "argument 'email'"),
        (("send", "users.credit", '{"id": 0, "amount": 1}'), "argument 'id'"),
        (("send", "users.credit", '{"id": 1, "amount": 1, "x": 1}'), "argument 'x'"),
        (("log", "prune", "users", "--older-than", "47h"), "--force"),
        (("send", "users.credit", '{"id": 1, "amount": 1}', "--id", system_command_id("x")), "UUID version 8"),
        (("cancel", "00000000-0000-0000-0000-000000000000", "--lane", "users"), "no id of any command"),
        (("cancel", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "--lane", "users"), "no id of any command"),
    ],
)
def test_refusals_are_one_line_that_names_the_value(arguments: tuple[str, ...], named: str) -> None:
    ran = run(*arguments)
    assert (ran.exit_code, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1)
    assert ran.stderr.startswith("coordinator: ")
    assert named in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("pause", "users"),
        ("pause", "nobody", "--reason", "x"),
        ("cancel", ID),
        ("cancel", "5", "--lane", "users"),
        ("log", "prune", "users"),
        ("log", "prune", "users", "--older-than", "soon"),
        ("send", "users.create"),
        ("dead", "show", "5"),
        ("dead", "show"),
        ("dead", "show", ID, "--all", "--lane", "users"),
        ("dead", "show", ID, "--letter", "1", "--lane", "users"),
        ("dead", "discard", "--all"),
        ("dead", "discard", "--letter", "1"),
        ("dead", "discard", "--letter", "0", "--lane", "users"),
        ("dead", "discard", "--letter", "1", "--lane", "users", "--lane", "items"),
        ("dead", "replay", ID, "--code", "handler_error"),
        ("dead", "list", "--after", "3"),
        ("dead", "list", "--since", "soon"),
        ("dead", "list", "effects.users"),
        ("outbox", "list", "--after", "3"),
        ("outbox", "discard", "users"),
        ("outbox", "discard", "users", "--entry", "1", "--all"),
        ("outbox", "discard", "users", "--all"),
        ("outbox", "discard", "users", "--target", "items"),
        ("timers", "list", "--after", "3"),
        ("timers", "cancel", "users"),
    ],
)
def test_wrong_usage_is_exit_status_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_missing_address_is_a_configuration_error() -> None:
    for arguments in (
        ("status", "users"),
        ("pause", "users", "--reason", "x"),
        ("command", ID, "--lane", "users"),
        ("dead", "list", "users"),
        ("dead", "show", ID, "--lane", "users"),
        ("outbox", "list", "users"),
        ("timers", "list", "users"),
    ):
        assert isinstance(run(*arguments).exception, ConfigurationError)


def test_arguments_are_sent_as_they_were_given() -> None:
    text = b'{"email": "ada@example.org",  "name": "Ada"}'
    assert checked(CommandMessage(command_id=ID, type="users.create", arguments=text), None)[0] == "users"
    with pytest.raises(InvalidCommand, match="more than"):
        checked(CommandMessage(command_id=ID, type="users.create", arguments=b" " * 2_000_000), None)


@pytest.mark.parametrize("lane", [None, "users"])
@pytest.mark.parametrize("command_type", ["lane.marker", "lane.release", "lane.nonsense"])
def test_orders_of_the_lane_are_not_sent_by_hand(lane: str | None, command_type: str) -> None:
    with pytest.raises(InvalidCommand, match=f"{command_type} is an order to the lane itself.*coordinator drain"):
        checked(CommandMessage(command_id=ID, type=command_type, arguments=b"{}"), lane)


def test_a_value_that_is_none_of_those_that_there_are_is_told_of_these() -> None:
    arguments = b'{"id": 1, "step": "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11", "verdict": "maybe", "reason": "AL"}'
    with pytest.raises(InvalidCommand, match=r"argument 'verdict'.*'maybe'.*; there are again, done, not_done"):
        checked(CommandMessage(command_id=ID, type="users.resume_purchase", arguments=arguments), None)


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/users.db"
    migrate(registry().service("users"), DatabaseSettings(database_url=url))
    return url


def test_a_refused_migration_names_the_address_and_that_of_the_owner(tmp_path: Path) -> None:
    (tmp_path / "users.db").write_bytes(b"not a database" * 100)
    settings = DatabaseSettings(database_url=f"sqlite:///{tmp_path}/users.db")
    with pytest.raises(ConfigurationError, match=r"as USERS_DATABASE_URL has it; .*MIGRATION_URL names the owner"):
        migrate(registry().service("users"), settings)


def test_changes_of_a_lane_that_never_ran(database: str) -> None:
    environment = {"USERS_DATABASE_URL": database}
    paused = json.loads(run("pause", "users", "--reason", "disk", "--json", **environment).stdout)
    assert paused == {"lane": "users", "paused": "disk", "sequence": 0, "revision": 1}
    assert json.loads(run("pause", "users", "--reason", "net", "--json", **environment).stdout)["revision"] == 2
    assert run("resume", "users", **environment).stdout == "users goes on (it was paused: net)\n"
    assert run("resume", "users", **environment).stdout == "users was not paused\n"
    # What changed nothing was not counted: a lane that runs need not renew its lease.
    assert json.loads(run("pause", "users", "--reason", "x", "--json", **environment).stdout)["revision"] == 4
    assert run("resume", "users", **environment).exit_code == 0
    cancelled = run("cancel", ID, "--lane", "users", "--json", **environment)
    assert json.loads(cancelled.stdout)["reason"] == "no reason given"
    assert run("cancel", ID, "--lane", "users", **environment).exit_code == 0
    told = run("command", ID, "--lane", "users", **environment)
    assert (told.exit_code, "status      cancelled\n" in told.stdout) == (1, True)
    assert "Z: lane users does not apply it when its turn comes\n" in told.stdout
    assert "lane users has not settled command" in run("command", str(uuid4()), "--lane", "users", **environment).stderr


def test_a_command_that_a_failover_might_lose_is_not_said_to_be_settled(database: str) -> None:
    engine = create_engine(database)
    keep(database, logged(type="users.add"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE lane_lease SET epoch = 1, sequence = 7, proved = 6"))
    refused = run("command", ID, "--lane", "users", USERS_DATABASE_URL=database)
    assert refused.exit_code == 1
    assert "applied in lane users as number 7; the database's synchronous standby may not have it" in refused.stderr
    with engine.begin() as connection:
        connection.execute(text("UPDATE lane_lease SET proved = 7"))
    engine.dispose()
    shown = json.loads(run("command", ID, "--lane", "users", "--json", USERS_DATABASE_URL=database).stdout)
    assert (shown["status"], shown["sequence"], shown["timeline"]["why"]) == ("applied", 7, None)


@pytest.mark.parametrize("apart", [timedelta(days=30), -2 * CLOCKS_APART_MAX])
@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--force",)])
def test_no_wrong_clock_decides_what_is_forgotten(
    database: str, monkeypatch: pytest.MonkeyPatch, apart: timedelta, options: tuple[str, ...]
) -> None:
    """Entries of ten minutes ago were old enough to a machine that was a month ahead."""
    command = ("log", "prune", "users", "--older-than", "7d", *options)
    assert run(*command, USERS_DATABASE_URL=database).exit_code == 0
    monkeypatch.setattr(SqlAdmin, "clock", lambda _: now() - apart)
    refused = run(*command, USERS_DATABASE_URL=database)
    assert refused.exit_code == 1
    assert "correct the one that is wrong; nothing was deleted" in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("pause", "payments", "--reason", "x"),
        ("resume", "payments"),
        ("accept-loss", "payments", "--at", "0", "--up-to", "1"),
        ("cancel", ID, "--lane", "payments"),
        ("log", "prune", "payments", "--older-than", "7d"),
        ("log", "prune", "payments", "--older-than", "7d", "--dry-run"),
        ("audit", "payments", "--operators"),
        ("audit", "payments", "--actor", "ada"),
        ("audit", "payments", "payments", "1"),
        ("status",),
        ("status", "payments"),
        ("command", ID),
        ("command", ID, "--lane", "payments"),
        ("dead", "list"),
        ("dead", "list", "payments"),
        ("dead", "list", "effects.payments"),
        ("dead", "show", ID),
        ("dead", "replay", "--all", "--lane", "payments"),
        ("dead", "discard", ID),
        ("outbox", "list"),
        ("outbox", "list", "payments"),
        ("outbox", "discard", "payments", "--entry", "1"),
        ("timers", "list"),
        ("timers", "list", "payments"),
        ("timers", "cancel", "payments", ID),
        ("parked",),
        ("parked", "payments"),
        ("release", "payments", "payments.id=1"),
        ("drain", "payments"),
    ],
)
def test_a_database_of_another_lane_is_wrong_for_every_command(database: str, arguments: tuple[str, ...]) -> None:
    lanes = ("USERS", "ITEMS", "PAYMENTS")
    ran = run(*arguments, **dict.fromkeys((f"{lane}_DATABASE_URL" for lane in lanes), database))
    assert isinstance(ran.exception, ConfigurationError), ran.output
    wrong = "PAYMENTS" if any("payments" in argument for argument in arguments) else "ITEMS"
    assert str(ran.exception) == f"the database of {wrong}_DATABASE_URL is that of lane users: a lane needs its own"


def test_a_database_is_migrated_for_one_lane_only(database: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ORDERS_DATABASE_URL is that of lane users: a lane needs its own"):
        migrate(SHOP, DatabaseSettings(database_url=database))
    with pytest.raises(ConfigurationError, match="ORDERS_MIGRATION_URL is that of lane users"):
        migrate(SHOP, DatabaseSettings(database_url=f"sqlite:///{tmp_path}/orders.db", migration_url=database))


def test_a_service_whose_tables_nobody_makes_is_not_said_to_be_migrated(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    revisions = tmp_path / "revisions"
    revisions.mkdir()
    service = SHOP.replace(migrations=revisions)
    with pytest.raises(ConfigurationError, match=rf"no migration makes the table orders: .*Alembic.*{revisions}"):
        migrate(service, DatabaseSettings(database_url=url))
    migrate(SHOP, DatabaseSettings(database_url=url))


@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("ALTER TABLE dead_letters RENAME TO dead_letters_old", "table dead_letters"),
        ("ALTER TABLE lane_lease DROP COLUMN supersedes", "column lane_lease.supersedes"),
    ],
)
def test_a_database_that_has_lost_a_table_of_the_lane_is_not_said_to_be_migrated(
    tmp_path: Path, statement: str, lost: str
) -> None:
    """A lane without it says to migrate, and no revision makes it again."""
    settings = DatabaseSettings(database_url=f"sqlite:///{tmp_path}/orders.db")
    migrate(SHOP, settings)
    with closing(sqlite3.connect(tmp_path / "orders.db")) as connection:
        connection.execute(statement)
    with pytest.raises(ConfigurationError, match=rf"^orders: the database has lost the lane's {lost}, .* backup$"):
        migrate(SHOP, settings)


def test_a_database_whose_file_is_missing_is_refused_and_no_file_is_made(tmp_path: Path) -> None:
    ran = run("pause", "users", "--reason", "x", USERS_DATABASE_URL=f"sqlite:///{tmp_path}/missing.db")
    assert isinstance(ran.exception, ConfigurationError)
    assert f"USERS_DATABASE_URL: there is no file {tmp_path}/missing.db" in str(ran.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_not_migrated_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    ran = run("pause", "users", "--reason", "x", USERS_DATABASE_URL=f"sqlite:///{tmp_path}/empty.db")
    assert isinstance(ran.exception, ConfigurationError)
    assert "run `coordinator migrate users`" in str(ran.exception)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say one of --logged, --result and --rejected"),
        (["--logged", "--result", "{}"], "say one of --logged, --result and --rejected"),
        (["--result", "{}", "--rejected", "declined"], "say one of --logged, --result and --rejected"),
        (["--logged", "--to", "users.credit"], "'users.credit' is no continuation: there are users.continue_purchase"),
        (["--logged"], "has not settled command"),
        (["--logged"], "its database knows nothing of it: where it waits in a queue"),
    ],
)
def test_what_cannot_be_continued_is_refused(database: str, options: list[str], said: str) -> None:
    to = [] if "--to" in options else ["--to", "users.continue_purchase"]
    ran = run("continue", "users", ID, *to, *options, USERS_DATABASE_URL=database)
    assert ran.exit_code == (1 if options == ["--logged"] else 2)
    assert said in ran.stderr


PAYMENT = Payment(
    id=7,
    user_id=1,
    amount=5,
    currency="EUR",
    status="authorized",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    updated_at=datetime(2026, 1, 1, tzinfo=UTC),
)
WHOLE = msgspec.json.encode(PAYMENT).decode()
NESTED = "[" * 2000 + "]" * 2000


@pytest.fixture
def payments(tmp_path: Path) -> str:
    """A database of payments that has settled the command ID, an OpenPayment."""
    url = f"sqlite:///{tmp_path}/payments.db"
    migrate(registry().service("payments"), DatabaseSettings(database_url=url))
    keep(url, logged(type=OpenPayment.type, result=WHOLE))
    return url


def keep(url: str, row: Row) -> None:
    engine = create_engine(url)
    tables = lane_tables.metadata.tables | payments_metadata.tables
    with engine.begin() as connection:
        connection.execute(insert(tables[row.table]).values(msgspec.structs.asdict(row)))
    engine.dispose()


def continue_payment(url: str, *options: str) -> Result:
    arguments = ["payments", ID, "--to", "users.continue_purchase", *options]
    return run("continue", *arguments, PAYMENTS_DATABASE_URL=url)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--result", '{"id":7,"id":8}'], "has the name 'id' twice"),
        (["--result", '{"id":7,"a":{"b":1,"b":2}}'], "has the name 'b' twice"),
        (["--result", '{"id":'], "--result is no JSON"),
        (["--result", ""], "--result is no JSON"),
        (["--result", NESTED], "--result is nested deeper than 100 levels"),
        (["--result", "null"], "no result of payments.open, which is a whole Payment: Expected `object`, got `null`"),
        (["--result", '{"id":"x"}'], "at `$.id`"),
        (["--result", '{"id":7}'], "missing required field"),
        (["--result", WHOLE.replace("authorized", "nice")], "Invalid enum value 'nice' - at `$.status`"),
        (["--result", WHOLE[:-1] + ',"more":"' + "x" * 2_000_000 + '"}'], "the continuation has more than"),
        (["--rejected", ""], "--rejected '' is no code"),
        (["--rejected", "card declined"], "is no code"),
        (["--rejected", "a\tb"], "is no code"),
        (["--rejected", "ä"], "is no code"),
        (["--rejected", "x" * 101], "is no code"),
    ],
)
def test_an_answer_that_the_lane_could_not_have_sent_is_refused_before_it_is_sent(
    payments: str, options: list[str], said: str
) -> None:
    ran = continue_payment(payments, *options)
    assert (ran.exit_code, ran.stdout) == (2, ""), ran.output
    assert said in ran.stderr
    assert len(ran.stderr) < 600


@pytest.mark.parametrize(
    ("options", "is_awaited"),
    [
        (["--result", WHOLE], False),
        (["--rejected", "card_declined"], False),
        (["--logged"], False),
        (["--rejected", "card_declined", "--even-if-awaited"], True),
    ],
)
def test_an_answer_that_can_be_is_sent(
    payments: str, options: list[str], is_awaited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_awaited:
        deferred = Deferred(command_id=ID, type=OpenPayment.type, continuation="users.continue_purchase")
        keep(payments, Waiters(payment_id=7, action=deferred.encode()))
    sent: list[tuple[str, CommandMessage]] = []

    def issue(lane: str, message: CommandMessage, wait_s: float) -> None:
        sent.append((lane, message))

    monkeypatch.setattr("coordinator.operate.continuing.issue", issue)
    ran = continue_payment(payments, *options)
    assert ran.exit_code == 3, ran.output
    ((lane, message),) = sent
    assert (lane, message.type) == ("users", "users.continue_purchase")


def waiting_as(how: str, waiter: str) -> Row:
    """The row by which a command waits: for the action, for the reversal, or beside another one."""
    if how == "other":
        return ReversalWaiter(payment_id=7, number=1, waiter=waiter)
    return Waiters(payment_id=7, action=waiter) if how == "action" else Waiters(payment_id=7, reversal=waiter)


@pytest.mark.parametrize(
    ("options", "how", "origin"),
    [
        (["--result", WHOLE], "action", "system"),
        (["--rejected", "card_declined"], "reversal", "system"),
        (["--logged"], "action", "public"),
        (["--logged"], "other", "system"),
    ],
)
def test_a_command_whose_answer_is_still_to_come_is_not_continued(
    payments: str, options: list[str], how: str, origin: Origin
) -> None:
    deferred = Deferred(command_id=ID, type=OpenPayment.type, continuation="users.continue_purchase", origin=origin)
    keep(payments, waiting_as(how, deferred.encode()))
    ran = continue_payment(payments, *options)
    assert ran.exit_code == 1
    row = "row 7/1 of payment_reversal_waiters" if how == "other" else "row 7 of payment_waiters"
    assert f"the answer to command {ID} is still to come: the {row} waits for it" in ran.stderr


def test_a_continuation_that_waits_to_be_sent_is_left_alone(payments: str) -> None:
    deferred = Deferred(command_id=ID, type=OpenPayment.type, continuation="users.continue_purchase")
    emission = continued(deferred, "applied", b"{}", None)
    keep(
        payments,
        OutboxEntry(
            id=1,
            lane="users",
            command_id=emission.command_id,
            type=emission.type,
            arguments=emission.arguments,
            continuation=None,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        ),
    )
    ran = continue_payment(payments, "--rejected", "card_declined", "--even-if-awaited")
    assert ran.exit_code == 1
    assert "the continuation waits in the outbox of lane payments and will come by itself" in ran.stderr


@pytest.mark.parametrize("options", [["--result", WHOLE], ["--rejected", "card_declined"]])
def test_an_answer_in_the_log_is_not_replaced(tmp_path: Path, options: list[str]) -> None:
    url = f"sqlite:///{tmp_path}/payments.db"
    migrate(registry().service("payments"), DatabaseSettings(database_url=url))
    keep(url, logged(type=OpenPayment.type, status="rejected", result=None, error_code="unknown_currency"))
    ran = continue_payment(url, *options)
    assert ran.exit_code == 1
    assert "is rejected in the log of lane payments, and so no answer came later: say --logged" in ran.stderr


def test_a_result_of_a_command_that_this_release_does_not_have_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/payments.db"
    migrate(registry().service("payments"), DatabaseSettings(database_url=url))
    keep(url, logged(type="payments.gone"))
    ran = continue_payment(url, "--result", "{}")
    assert ran.exit_code == 1
    assert "lane payments of this release has no command payments.gone" in ran.stderr


THE_LOG_S = (None, None)
GONE = ("rejected", None, "gone")


def logged(**changes: object) -> LogEntry:
    return LogEntry(
        **{
            "command_id": ID,
            "sequence": 7,
            "epoch": 1,
            "type": "items.quote",
            "fingerprint": "f",
            "status": "applied",
            "result": '{"price":5}',
            "error_code": None,
            "error_message": None,
            "settled_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
        | changes  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("entry", "result", "rejected", "told"),
    [
        (logged(), *THE_LOG_S, ("applied", {"price": 5}, None)),
        (logged(), '{"id": 7}', None, ("applied", {"id": 7}, None)),
        (logged(), None, "declined", ("rejected", None, "declined")),
        (logged(status="rejected", result=None, error_code="gone", error_message="it went"), *THE_LOG_S, GONE),
    ],
)
def test_a_continuation_that_is_sent_again_is_the_one_that_the_lane_sent(
    entry: LogEntry, result: str | None, rejected: str | None, told: tuple[object, ...]
) -> None:
    message = message_of(entry, "users.continue_purchase", outcome_of(entry, result, rejected))
    deferred = Deferred(command_id=ID, type="items.quote", continuation="users.continue_purchase")
    assert message.command_id == continued(deferred, "applied", b"{}", None).command_id
    assert (message.type, message.origin) == ("users.continue_purchase", "system")
    said = msgspec.json.decode(message.arguments)
    assert (said["status"], said["result"], said["error"] and said["error"]["code"]) == told


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ID),
        (("--json",), '"pending"'),
        (("--wait", "1"), "sequence    7"),
        (("--wait", "1", "--json"), '"applied"'),
    ],
)
def test_only_with_wait_a_command_that_is_settled_at_once_is_told_with_its_outcome(
    options: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = Outcome(command_id=ID, type="users.credit", status="applied", sequence=7)
    monkeypatch.setattr(send, "issue", lambda *_: outcome)
    monkeypatch.setattr(send, "_record", lambda *_: None)
    sent = run("send", "users.credit", '{"id": 1, "amount": 1}', "--id", ID, *options)
    assert sent.exit_code == 0, sent.output
    assert expected in sent.output
    assert (sent.output == f"{ID}\n") == (options == ())
