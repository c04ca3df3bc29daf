"""The lines of batches: those that took long, or all of them; without arguments and results."""

import math

import msgspec
import pytest
from structlog.testing import capture_logs

from coordinator.lane.delivery import Settlement, Suspension, TracedCommand
from coordinator.service.outcome import Outcome
from coordinator.service.trace_context import TraceContext
from coordinator.worker.observed import LOGGED_MAX, Observed

TRACE = TraceContext("1" * 32, "2" * 16, "01")


def settlement(first: int, count: int, traced: tuple[TraceContext, ...] = ()) -> Settlement:
    outcomes = [
        Outcome(
            command_id=f"id {number}",
            type="users.create",
            status="applied",
            sequence=number,
            result=msgspec.Raw(b'{"email": "ada@example.org"}'),
        )
        for number in range(first, first + count)
    ]
    return Settlement(outcomes=outcomes, traced=[TracedCommand(outcomes[0], cause, None) for cause in traced])


@pytest.mark.parametrize(("logged_batch_s", "told"), [(0.0, [1, 3, 30]), (0.5, [3]), (1.0, [])])
def test_batches_that_took_so_long_have_a_line(logged_batch_s: float, told: list[int]) -> None:
    observed = Observed("users", {"users.create"}, logged_batch_s)
    with capture_logs() as lines:
        for count, seconds in ((1, 0.001), (3, 0.5), (30, 0.1)):
            observed.decided(seconds)
            observed.settled(settlement(7, count), 0, None)
    batches = [line for line in lines if line["event"] == "batch"]
    assert [line["commands"] for line in batches] == told
    assert all(line["log_level"] == "info" for line in batches)


def test_the_line_has_what_it_takes_to_find_a_command_and_nothing_of_its_content() -> None:
    observed = Observed("users", {"users.create"}, 0.0)
    with capture_logs() as lines:
        observed.decided(0.0123456)
        observed.settled(settlement(7, 30, (TRACE,)), 0, None)
        observed.settled(settlement(37, 1, (TRACE, TraceContext("3" * 32, "2" * 16, "01"))), 0, None)
    first, second = lines
    assert (first["lane"], first["first_sequence"], first["last_sequence"]) == ("users", 7, 36)
    assert first["duration_ms"] == 12.345
    assert first["command_ids"] == [f"id {number}" for number in range(7, 7 + LOGGED_MAX)]
    assert first["trace_id"] == TRACE.trace_id
    # Its commands are of two traces.
    assert "trace_id" not in second
    assert "ada@example.org" not in repr(lines)


def test_a_database_that_is_away_is_named_with_what_to_check() -> None:
    where = (("server.address", "db.internal"), ("server.port", 5432))
    observed = Observed("users", (), math.inf, where)
    with capture_logs() as lines:
        observed.suspended(Suspension(1.0, "PostgreSQL: connection refused"), is_first=True)
        observed.suspended(Suspension(1.0, "paused by an operator", cause="paused"), is_first=True)
        observed.suspended(Suspension(1.0, "PostgreSQL: no", trouble="not_admitted"), is_first=True)
        observed.suspended(Suspension(1.0, "SQLite: full", trouble="disk_full"), is_first=True)
    away, paused, refused, full = lines
    assert "set the new password in USERS_DATABASE_URL, and start this process again" in refused["what_to_do"]
    assert "make room on the disk of the database that USERS_DATABASE_URL names" in full["what_to_do"]
    assert (away["cause"], away["server.address"], away["server.port"]) == ("database", "db.internal", 5432)
    assert "USERS_DATABASE_URL" in away["what_to_do"]
    assert (paused["cause"], "what_to_do" in paused, "server.port" in paused) == ("paused", False, False)
