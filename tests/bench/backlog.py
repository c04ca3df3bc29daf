"""The backlog: how fast a lane that was away works off what has gathered, and how much memory that takes."""

from time import monotonic, sleep
from typing import TYPE_CHECKING

from tests.bench.cpu import CpuMeter, resident_peak_bytes
from tests.bench.databases import BenchDatabase
from tests.bench.invariants import verify
from tests.bench.measurement import ClientResult, Measurement, measured
from tests.bench.rows import Row, RunFailed
from tests.bench.session import Session

if TYPE_CHECKING:
    from tests.bench.run import Runner

SHARE_FROM, SHARE_TO = 0.1, 0.9
"""The rate is taken between these shares of the backlog: the start of a process and the last commands are not it."""
POLL_S = 0.05
STALLED_S = 60.0


def run_backlog(runner: "Runner", session: Session, row: Row, repeat: int) -> Measurement:
    """Fill the queue while nobody consumes, then start the lane. Raises RunFailed when the lane gets nowhere."""
    assert row.lane is not None
    session.lane(row.lane, row.database, row.lane_settings)  # it declares the queue
    session.stop_lane(row.lane)
    database = session.database(row.database, row.lane)
    database.tidy()
    before = database.state()
    issued = runner.fill(row, repeat)
    began = monotonic()
    process = session.lane(row.lane, row.database, row.lane_settings)
    groups = {
        "coordinator": [process.pid],
        "broker": session.servers.rabbitmq.pids,
        "database": session.server_of(row.database).pids,
    }
    meter = CpuMeter(groups)
    progress = _drained(database, before.sequence or 0, issued.applied_total)
    if progress is None:
        raise RunFailed(f"the lane has not got on for {STALLED_S:g} s")
    duration_s, applied = progress
    cpu_s = meter.used_s()
    peak_bytes = resident_peak_bytes(process.pid)
    after = database.state()
    verdict = verify(row.workload.kind, before, after, applied=issued.applied_total, unknown=issued.unknown_total)
    drained = ClientResult(
        offered=issued.applied_total, applied=applied, applied_total=issued.applied_total, errors=issued.errors
    )
    extra = {"coordinator_peak_bytes": float(peak_bytes), "drain_s": monotonic() - began}
    # All CPU time for all commands, and not for those between the two shares.
    everything = {group: value * applied / issued.applied_total for group, value in cpu_s.items()}
    return measured([drained], duration_s, everything, verdict.as_tuple(), extra)


def _drained(database: BenchDatabase, first: int, total: int) -> tuple[float, int] | None:
    """How long the middle part took, and how many commands it had; None when nothing moves."""
    from_at = from_done = 0.0
    last_done, last_moved = 0, monotonic()
    while True:
        done, now = database.sequence() - first, monotonic()
        if done > last_done:
            last_done, last_moved = done, now
        if not from_at and done >= total * SHARE_FROM:
            from_at, from_done = now, done
        if done >= total * SHARE_TO and now > from_at:
            to_at, to_done = now, done
            break
        if now - last_moved > STALLED_S:
            return None
        sleep(POLL_S)
    while database.sequence() - first < total:
        if monotonic() - to_at > STALLED_S:
            return None
        sleep(POLL_S)
    return to_at - from_at, int(to_done - from_done)
