"""Which loss of commits an operator may accept, and what `coordinator accept-loss` says of it."""

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cli import cli
from coordinator.lane.accepted_loss import (
    BEHIND_MAX,
    ON_WORD_MAX,
    SEQUENCE_MAX,
    why_not_accepted,
    why_word_is_not_enough,
)
from coordinator.lane.high_water import HighWater, LastCommand, Mark
from coordinator.migrations.migrate import migrate
from coordinator.operate import losses
from coordinator.operate.output import as_user
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.errors import BrokerUnavailable
from coordinator.service.ids import new_command_id
from coordinator.service.service import Service
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.port import Changes, Lease
from coordinator.stores.sqlite.store import create_schema
from coordinator.transports.inprocess.journal import FileJournal, journal_beside
from coordinator.transports.inprocess.operators_socket import operators_socket, socket_beside
from coordinator.worker.inprocess import InProcessWrites
from coordinator.writing import open_store
from tests.support.store_contract import entry

WITHIN_S = 20.0
SEQUENCES = st.one_of(st.integers(0, 20), st.integers(0, INTEGER_MAX))


@given(SEQUENCES, SEQUENCES, st.none() | st.builds(Mark, sequence=SEQUENCES))
def test_whoever_knows_the_mark_goes_on_after_what_is_accepted_and_has_room_above_it(
    ends_at: int, up_to: int, mark: Mark | None
) -> None:
    if why_not_accepted("ledger", ends_at, up_to, mark) is not None:
        return
    assert mark is not None
    assert ends_at < mark.sequence <= up_to <= mark.sequence + BEHIND_MAX
    assert up_to < INTEGER_MAX // 2
    high_water = HighWater("ledger")
    high_water.learn(mark)
    high_water.check(Lease(1, ends_at, loss_accepted=up_to))


@given(SEQUENCES, SEQUENCES)
def test_a_word_is_enough_for_a_bounded_loss(ends_at: int, up_to: int) -> None:
    if why_word_is_not_enough("ledger", ends_at, up_to) is None:
        assert up_to <= SEQUENCE_MAX
        assert up_to - ends_at <= ON_WORD_MAX


@pytest.mark.parametrize(
    ("up_to", "mark", "said"),
    [
        (12, None, "nothing shows that users has lost anything: its database ends at sequence 2, and there is no mark"),
        (12, Mark(sequence=2), "its mark in RabbitMQ is at 2. If you know it otherwise, stop its coordinators, purge"),
        (11, Mark(sequence=12), "12 was acknowledged, by the mark of users in RabbitMQ, and not 11"),
        (
            INTEGER_MAX,
            Mark(sequence=12),
            f"12 was acknowledged, by the mark of users in RabbitMQ, and not {INTEGER_MAX}",
        ),
        (INTEGER_MAX, Mark(sequence=INTEGER_MAX), "no lane comes that far"),
    ],
)
def test_a_loss_that_the_mark_does_not_show_is_refused(up_to: int, mark: Mark | None, said: str) -> None:
    assert said in str(why_not_accepted("users", 2, up_to, mark))


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/users.db"
    migrate(registry().service("users"), DatabaseSettings(database_url=url))
    return url


def accept(database: str, up_to: int, *options: str) -> Result:
    arguments = ["accept-loss", "users", "--at", "0", "--up-to", str(up_to), *options]
    return CliRunner().invoke(cli, arguments, env={"USERS_DATABASE_URL": database, "AMQP_URL": "amqp://127.0.0.1"})


def lose_lease(database: str) -> None:
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DELETE FROM lane_lease")


def keep(monkeypatch: pytest.MonkeyPatch, mark: Mark | Exception | None, of: str = "users") -> None:
    async def read(lane: str) -> Mark | None:
        assert lane == of
        if isinstance(mark, Exception):
            raise mark
        return mark

    monkeypatch.setattr(losses, "_read_mark", read)


def test_what_the_mark_shows_is_accepted(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, Mark(sequence=9))
    for wrong in ("8", "9007199254740991"):
        refused = accept(database, int(wrong))
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr.endswith(
            f"9 was acknowledged, by the mark of users in RabbitMQ, and not {wrong}: nothing was accepted\n"
        )
    accepted = accept(database, 9)
    assert (accepted.exit_code, accepted.stderr) == (0, "")
    assert accepted.stdout == "users may go on, though the sequences 1 to 9 are lost\n"


def test_what_was_accepted_before_stays_so(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, Mark(sequence=9))
    for up_to, kept in ((9, 9), (20, 20), (9, 20), (30, 30)):
        accepted = accept(database, up_to)
        assert (accepted.exit_code, bool(accepted.stderr)) == (0, kept > 9), "it tells which ids the mark lacks"
        assert accepted.stdout == f"users may go on, though the sequences 1 to {kept} are lost\n"
        with closing(open_store(database, registry().service("users"))) as store:
            lease = store.current()
        assert lease is not None
        assert lease.lost_up_to == kept


def test_who_accepts_again_after_the_lane_went_on_is_told_that_it_was_accepted(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(monkeypatch, Mark(sequence=9))
    assert accept(database, 9).exit_code == 0
    with closing(open_store(database, registry().service("users"))) as store:
        lease = store.take_over("holder", datetime.now(UTC))
        store.begin().commit(lease, 10, Changes([], [], []))
    again = accept(database, 9)
    assert (again.exit_code, again.stdout) == (1, "")
    gone_on = (
        "coordinator: users has gone on to sequence 10: its loss of the sequences after 0 up to 9 was accepted at "
    )
    assert again.stderr.startswith(gone_on)
    assert again.stderr.endswith(f" by {as_user()}, and nothing more is now\n")


def test_another_database_is_accepted_though_it_has_come_further(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = registry().service("users")
    with closing(open_store(database, service)) as store:
        store.take_over("holder", datetime.now(UTC), 0, "own")
    keep(monkeypatch, Mark(sequence=9, lineage="own"))
    assert "and not 8: nothing was accepted" in accept(database, 8).stderr
    assert accept(database, 9).exit_code == 0
    with closing(open_store(database, service)) as store:
        begun = store.current()
        assert begun is not None
        assert begun.lineage not in (None, "own")
        assert begun.supersedes == "own +9"
        transaction = store.begin()
        transaction.commit(begun, 12, Changes([], [], []))
    keep(monkeypatch, Mark(sequence=9, lineage="own"))
    nothing = ("accept-loss", "users", "--at", "12", "--up-to", "9")
    environment = {"USERS_DATABASE_URL": database, "AMQP_URL": "amqp://127.0.0.1"}
    refused = CliRunner().invoke(cli, nothing, env=environment)
    assert refused.exit_code == 1
    assert "nothing is lost of a lane that had come to sequence 9 if its database ends at 12" in refused.stderr
    keep(monkeypatch, Mark(sequence=9, lineage="other"))
    for options in (["--without-mark"], []):
        answered = CliRunner().invoke(cli, [*nothing, *options], env=environment)
    assert (answered.exit_code, answered.stderr) == (0, "")
    assert answered.stdout == "users may go on in this database: what only the other one has is given up\n"
    # The database had come to 12 then: `own` is given up to there, too, and not to 13.
    with closing(open_store(database, service)) as store:
        begun = store.current()
        assert begun is not None
        transaction = store.begin()
        transaction.commit(begun, 15, Changes([], [], []))
    for sequence, exit_code in ((12, 1), (13, 0)):
        keep(monkeypatch, Mark(sequence=sequence, lineage="own"))
        more = ("accept-loss", "users", "--at", "15", "--up-to", str(sequence))
        assert CliRunner().invoke(cli, more, env=environment).exit_code == exit_code


def gone_on(database: str, service: Service, count: int) -> list[LogEntry]:
    """The database has come so far, in lineage `own`."""
    rows = [entry(number) for number in range(1, count + 1)]
    with closing(open_store(database, service)) as store:
        lease = store.take_over("holder", datetime.now(UTC), 0, "own")
        store.begin().commit(lease, count, Changes([], [], [rows]))
    return rows


def test_a_copy_that_has_gone_on_by_itself_is_accepted_like_another_database(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = registry().service("users")
    rows = gone_on(database, service, 12)
    arguments = ("accept-loss", "users", "--at", "12", "--up-to", "9")
    environment = {"USERS_DATABASE_URL": database, "AMQP_URL": "amqp://127.0.0.1"}
    nothing_lost = [
        Mark(sequence=9, lineage="own", last=LastCommand(9, rows[8].command_id)),
        Mark(sequence=9, lineage="own", last=LastCommand(13, "elsewhere")),
        Mark(sequence=9, last=LastCommand(9, "elsewhere")),
    ]
    for mark in nothing_lost:
        keep(monkeypatch, mark)
        refused = CliRunner().invoke(cli, arguments, env=environment)
        assert "nothing is lost of a lane that had come to sequence 9" in refused.stderr
    keep(monkeypatch, Mark(sequence=9, lineage="own", last=LastCommand(9, "elsewhere")))
    on_word = CliRunner().invoke(cli, [*arguments, "--without-mark"], env=environment)
    assert "leave --without-mark out" in on_word.stderr
    accepted = CliRunner().invoke(cli, arguments, env=environment)
    assert (accepted.exit_code, accepted.stderr) == (0, "")
    assert accepted.stdout == "users may go on in this database: what only the other one has is given up\n"
    with closing(open_store(database, service)) as store:
        begun = store.current()
    assert begun is not None
    assert (begun.lineage == "own", begun.supersedes) == (False, "own +12")


def test_a_healthy_lane_has_nothing_to_accept(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, Mark())
    refused = accept(database, 1)
    assert refused.exit_code == 1
    assert "nothing shows that users has lost anything" in refused.stderr


def test_without_a_mark_it_is_the_operators_word(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, BrokerUnavailable("RabbitMQ at localhost:5672 cannot be reached"))
    refused = accept(database, 9)
    assert refused.exit_code == 1
    assert "cannot be reached. It keeps the mark of users, which shows the loss; --without-mark" in refused.stderr
    assert accept(database, ON_WORD_MAX + 1, "--without-mark").exit_code == 1
    accepted = accept(database, 9, "--without-mark")
    assert accepted.exit_code == 0
    unknown = "and whether it has a mark is not known (RabbitMQ at localhost:5672 cannot be reached). "
    assert accepted.stderr.startswith(f"coordinator: that anything is lost of users is your word alone, {unknown}")
    keep(monkeypatch, None)
    word = accept(database, 9, "--without-mark").stderr
    assert word.startswith("coordinator: that anything is lost of users is your word alone. ")
    assert "If none knows which ids were given out, they are given out again, unless you raise them" in word


def test_ids_above_the_mark_are_not_said_to_be_safe(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, Mark(sequence=3))
    assert accept(database, 3).stderr == ""
    beyond = accept(database, 9)
    assert beyond.exit_code == 0
    assert "knows only the ids that were given out up to the sequence 3. " in beyond.stderr
    assert "those after that are given out again, unless you raise them" in beyond.stderr


def test_no_sequence_of_the_log_is_accepted_as_lost_where_the_lease_is(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_store(database, registry().service("users"))) as store:
        lease = store.take_over("holder", datetime.now(UTC))
        store.begin().commit(lease, 2, Changes([], [], [[entry(1), entry(2)]]))
    lose_lease(database)
    keep(monkeypatch, None)
    refused = accept(database, 1, "--without-mark")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "its log has the sequence 2, and not 1: nothing was accepted" in refused.stderr
    assert accept(database, 2, "--without-mark").exit_code == 0


def test_no_word_is_taken_against_a_mark(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for sequence, said in (
        (9, "at sequence 9, and its database ends at 0: leave --without-mark out: nothing was accepted"),
        (0, "at sequence 0, and its database ends at 0: if you know it otherwise, stop its coordinators, purge"),
    ):
        keep(monkeypatch, Mark(sequence=sequence))
        refused = accept(database, 9, "--without-mark")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert f"users has a mark in RabbitMQ, {said}" in refused.stderr


async def accept_in_process(database: Path, *options: str, broker: str | None = None) -> Result:
    """In a thread: it runs an event loop of its own."""
    arguments = ["accept-loss", "items", "--at", "0", "--up-to", "9", *options]
    environment = {"ITEMS_DATABASE_URL": f"sqlite:///{database}", "AMQP_URL": broker}
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=environment)


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """A database that is new, and beside it the mark of a lane that had come to 9."""
    path = tmp_path / "items.sqlite"
    create_schema(str(path), registry().service("items"))
    with closing(FileJournal(journal_beside(path))) as journal:
        journal.keep(Mark(sequence=9))
    return path


async def test_in_process_the_mark_beside_the_database_counts(lost: Path) -> None:
    refused = await accept_in_process(lost, "--without-mark")
    assert refused.exit_code == 1
    file = journal_beside(lost)
    assert f"items has a mark in {file}, at sequence 9, and its database ends at 0: leave" in refused.stderr
    accepted = await accept_in_process(lost)
    assert (accepted.exit_code, accepted.stderr) == (0, "")
    file.unlink()
    assert "there is no mark of it. If you know it otherwise, --without-mark" in (await accept_in_process(lost)).stderr
    assert (await accept_in_process(lost, "--without-mark")).exit_code == 0
    assert not file.exists()


async def test_a_process_that_runs_a_lane_is_asked_for_its_mark(lost: Path) -> None:
    items = registry().service("items")
    writes = InProcessWrites({"items": open_store(f"sqlite:///{lost}", items)}, [items])
    path = socket_beside(lost)
    async with asyncio.timeout(WITHIN_S), writes:
        # Nobody can ask it, and it has the file.
        refused = await accept_in_process(lost, "--without-mark")
        assert refused.exit_code == 1
        assert "another process has it" in refused.stderr
        async with operators_socket(path, writes):
            refused = await accept_in_process(lost, "--without-mark")
            assert refused.exit_code == 1
            assert f"items has a mark in {journal_beside(lost)}, at sequence 9" in refused.stderr
            accepted = await accept_in_process(lost)
            assert accepted.exit_code == 0
            arguments = b'{"name":"Pen","price":100,"currency":"EUR","stock":5}'
            message = CommandMessage(new_command_id(), "items.create", arguments, origin="system")
            outcome = await writes.issue("items", message, None)
            assert outcome.sequence == 10


async def test_a_process_is_asked_for_the_last_command_of_its_mark(lost: Path) -> None:
    items = registry().service("items")
    gone_on(f"sqlite:///{lost}", items, 12)
    with closing(FileJournal(journal_beside(lost))) as journal:
        journal.keep(Mark(sequence=9, lineage="own", last=LastCommand(9, "elsewhere")))
    arguments = ["accept-loss", "items", "--at", "12", "--up-to", "9"]
    environment = {"ITEMS_DATABASE_URL": f"sqlite:///{lost}", "AMQP_URL": ""}
    writes = InProcessWrites({"items": open_store(f"sqlite:///{lost}", items)}, [items])
    async with asyncio.timeout(WITHIN_S), writes, operators_socket(socket_beside(lost), writes):
        accepted = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=environment)
        assert (accepted.exit_code, accepted.stderr) == (0, "")


@pytest.mark.parametrize("kept", [None, Mark(sequence=9, lineage="before")], ids=["no mark", "an older mark"])
async def test_a_process_beside_a_broker_is_asked_before_the_broker(
    lost: Path, monkeypatch: pytest.MonkeyPatch, kept: Mark | None
) -> None:
    """It is blocked by what it knows: a loss that is accepted by another mark would keep it so."""
    service = registry().service("items")
    with closing(FileJournal(journal_beside(lost))) as journal:
        journal.keep(Mark(sequence=9, lineage="lost"))
    with closing(open_store(f"sqlite:///{lost}", service)) as store:
        store.take_over("holder", datetime.now(UTC), 0, "before")
    keep(monkeypatch, kept, "items")
    writes = InProcessWrites({"items": open_store(f"sqlite:///{lost}", service)}, [service])
    async with asyncio.timeout(WITHIN_S), writes, operators_socket(socket_beside(lost), writes):
        refused = await accept_in_process(lost, "--without-mark", broker="amqp://127.0.0.1")
        assert f"items has a mark in {journal_beside(lost)}, at sequence 9" in refused.stderr
        accepted = await accept_in_process(lost, broker="amqp://127.0.0.1")
        assert (accepted.exit_code, accepted.stderr) == (0, "")
        arguments = b'{"name":"Pen","price":100,"currency":"EUR","stock":5}'
        outcome = await writes.issue(
            "items", CommandMessage(new_command_id(), "items.create", arguments, origin="system"), None
        )
        assert outcome.sequence == 10


async def test_of_a_process_beside_a_broker_that_has_ended_the_broker_tells_the_mark(
    lost: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinators may run the lane by now, and what is beside the file is of before."""
    keep(monkeypatch, Mark(sequence=12), "items")
    refused = await accept_in_process(lost, broker="amqp://127.0.0.1")
    assert "12 was acknowledged, by the mark of items in RabbitMQ, and not 9" in refused.stderr


def test_a_lane_that_is_paused_is_not_said_to_go_on(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, None)
    CliRunner().invoke(cli, ["pause", "users", "--reason", "disk"], env={"USERS_DATABASE_URL": database})
    accepted = accept(database, 9, "--without-mark")
    assert "once `coordinator resume users` ends its pause (disk)" in accepted.stdout
    said = {"lane": "users", "sequence": 0, "up_to": 9, "without_mark": True, "paused": "disk"}
    assert json.loads(accept(database, 9, "--without-mark", "--json").stdout) == said
