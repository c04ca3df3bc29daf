"""What a restored lane does with its timers and its publisher sessions, as docs/OPERATING.md says it of backups."""

import json
import subprocess
from typing import Any

import msgspec
import pika
import pytest
from click.testing import CliRunner
from sqlalchemy import make_url, text

from coordinator.cli import cli
from coordinator.service.commands import Command
from coordinator.service.ids import new_command_id
from coordinator.transports.rabbitmq.topology import WRITES_EXCHANGE
from tests.e2e.test_restore import reason
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.system import System, wait_ready, wait_until
from tests.support.timers import SEATS, Hold, Pay

pytestmark = pytest.mark.operators

GAP_S = 2.0
DUE_MS = 4000
"""Long enough for the copy to be made before."""


class Seats:
    """The lane's database, and a publisher of numbered commands."""

    def __init__(self, system: System, owner: str) -> None:
        self._system = system
        self._address = make_url(owner)
        self._plain = self._address.set(drivername="postgresql").render_as_string(hide_password=False)

    def publish(self, number: int, command: Command, command_id: str | None = None) -> str:
        command_id = command_id or new_command_id()
        session: dict[str, Any] = {"publisher": "terminal", "publisher-seq": number}
        properties = pika.BasicProperties(message_id=command_id, type=command.type, headers=session, delivery_mode=2)
        with self._system.broker() as channel:
            channel.confirm_delivery()
            channel.basic_publish(WRITES_EXCHANGE, "seats", msgspec.json.encode(command), properties, mandatory=True)
        return command_id

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        engine = sql_engine(self._plain)
        with engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(text(statement)).all()]
        engine.dispose()
        return rows

    def status(self, command_id: str) -> tuple[Any, ...] | None:
        found = self.query(f"SELECT status, error_code FROM command_log WHERE command_id = '{command_id}'")
        return found[0] if found else None

    def wait_for(self, sequence: int) -> None:
        wait_until(lambda: self.query("SELECT sequence FROM lane_lease") == [(sequence,)], f"{sequence} are settled")

    def copied(self) -> bytes:
        return subprocess.run(["pg_dump", self._plain], capture_output=True, timeout=60, check=True).stdout

    def restore(self, copy: bytes) -> None:
        name = self._address.database
        engine = sql_engine(self._address.set(database="postgres").render_as_string(hide_password=False))
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        subprocess.run(["psql", "--quiet", self._plain], input=copy, capture_output=True, timeout=60, check=True)


@pytest.mark.timeout(120)
def test_timers_of_the_copy_fire_and_a_session_goes_on(system: System, databases: FreshDatabases) -> None:
    owner = databases.new("USERS_DATABASE_URL")
    system.prepare_other("tests.support.timers:SEATS", SEATS, owner)
    seats = Seats(system, owner)
    coordinator, ready_at = system.launch_coordinator("seats", {"LANE_GAP_TIMEOUT_S": str(GAP_S)})
    wait_ready(ready_at, coordinator)
    for number in (1, 2):
        seats.publish(number, Hold(id=number, after_ms=DUE_MS))
    seats.wait_for(2)
    # The process that has the lane goes on: the copy has its epoch.
    copy = seats.copied()
    paid = seats.publish(3, Pay(id=1))
    seats.wait_for(3)
    seats.restore(copy)
    wait_until(lambda: "ends at sequence 2, and 3 was acknowledged" in reason(ready_at), "it says what is lost")

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli, arguments, env=system.environment)
        assert done.exit_code == 0, done.output
        return done.stdout

    listed = {row["command_id"] for row in json.loads(run("timers", "list", "seats", "--json"))}
    first, second = (timer for (timer,) in seats.query("SELECT timer FROM seats ORDER BY id"))
    assert listed == {first, second}, "that of the seat that was paid for, too"
    run("cancel", second, "--lane", "seats", "--reason", "the seat is paid for")
    wait_until(lambda: seats.query("SELECT now() > max(due_at) FROM lane_timers") == [(True,)], "both are due")
    run("accept-loss", "seats", "--at", "2", "--up-to", "3")
    wait_until(lambda: seats.status(second) is not None, "they have fired", coordinator)
    assert (seats.status(first), seats.status(second)) == (("applied", None), ("rejected", "cancelled"))

    # A session that goes on waits for what was lost of it, once.
    later = seats.publish(4, Hold(id=4))
    wait_until(lambda: seats.status(later) == ("applied", None), "it is applied", coordinator)
    assert seats.query("SELECT sequence, gaps FROM publishers") == [(4, "[[3,3]]")]
    # What was lost is taken when it is repeated, however late.
    seats.publish(3, Pay(id=1), paid)
    wait_until(lambda: seats.status(paid) is not None, "it is applied", coordinator)
    assert seats.status(paid) == ("rejected", "too_late"), "the timer came before"
    assert seats.query("SELECT sequence, gaps FROM publishers") == [(4, "[]")]
