"""The lane without a queue, and what one connection can do at most: whole batches, back to back, in this process."""

import json
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice

import psycopg

from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.runtime.clock import utc_now
from coordinator.runtime.settings import LaneSettings
from coordinator.service.ids import new_command_id
from coordinator.stores.open import open_store
from tests.bench.clients.lane_writes import command_maker
from tests.bench.clients.spec import Spec, Window
from tests.bench.measurement import ClientResult
from tests.bench.service import LANE_EMPTY_LOG, service_named
from tests.bench.workloads import operations

_LOG_COLUMNS = "command_id, sequence, epoch, type, fingerprint, status, result, settled_at"
_LOG_TYPES = (
    ("command_id", "text"),
    ("sequence", "bigint"),
    ("epoch", "bigint"),
    ("type", "text"),
    ("fingerprint", "text"),
    ("status", "text"),
    ("result", "text"),
    ("settled_at", "timestamptz"),
)
_INSERTS = {
    "json": f"INSERT INTO command_log ({_LOG_COLUMNS}) SELECT {_LOG_COLUMNS} FROM json_to_recordset(%s::json) AS given"
    " (" + ", ".join(f"{name} {kind}" for name, kind in _LOG_TYPES) + ")",
    "unnest": f"INSERT INTO command_log ({_LOG_COLUMNS}) SELECT * FROM unnest("
    + ", ".join(f"%s::{kind}[]" for _, kind in _LOG_TYPES)
    + ")",
}


def run_lane(spec: Spec, go: Callable[[], Window]) -> ClientResult:
    """`Lane.apply` with full batches, as the coordinator's lane thread calls it; no broker, no other thread."""
    service = service_named(LANE_EMPTY_LOG)
    store = open_store(spec.target, service)
    store.check(service.models)
    settings = LaneSettings(batch_commands_max=spec.batch)
    lane = Lane(service, store, utc_now, "benchmark", settings, time.monotonic)
    stream = map(command_maker(service.name, spec.workload.kind), operations(spec.workload, spec.seed, spec.run))
    window = go()
    channel_number = time.monotonic_ns()
    tags = iter(range(1, 1 << 62))

    def apply() -> int:
        deliveries = [Delivery(tag=next(tags), commands=(message,)) for message in islice(stream, spec.batch)]
        settled = 0
        while True:
            decision = lane.apply(deliveries, channel_number)
            if not isinstance(decision, Settlement):
                raise RuntimeError(f"the lane is not applying: {decision}")  # noqa: TRY004 - not a type's fault
            settled += sum(outcome.status == "applied" for outcome in decision.outcomes)
            if not lane.has_batch:
                return settled
            deliveries = []

    try:
        return _timed(apply, window)
    finally:
        store.close()


def run_ceiling(spec: Spec, go: Callable[[], Window]) -> ClientResult:
    """One transaction: one UPDATE of the account and one INSERT of as many log rows as a batch has commands."""
    way = spec.method.partition(":")[2]
    insert = _INSERTS[way]
    with psycopg.connect(spec.target, autocommit=True, prepare_threshold=0) as connection:
        last = connection.execute("SELECT coalesce(max(sequence), 0) FROM command_log").fetchone()
        numbers: Iterator[int] = iter(range((last[0] if last else 0) + 1, 1 << 62))
        now = datetime.now(UTC)
        add = "UPDATE accounts SET balance = balance + %s, version = version + %s WHERE id = 1"

        def apply() -> int:
            rows = [
                (new_command_id(), number, 1, "bench.credit", "f" * 32, "applied", '{"balance":1}', now)
                for number in islice(numbers, spec.batch)
            ]
            connection.execute("BEGIN")
            connection.execute(add, (spec.batch, spec.batch))
            connection.execute(insert, _parameters(way, rows))
            connection.execute("COMMIT")
            return spec.batch

        return _timed(apply, go())


def _parameters(way: str, rows: Sequence[tuple[object, ...]]) -> list[object]:
    if way == "unnest":
        return [list(column) for column in zip(*rows, strict=True)]
    names = [name for name, _ in _LOG_TYPES]
    return [json.dumps([dict(zip(names, row, strict=True)) for row in rows], default=str)]


def _timed(apply: Callable[[], int], window: Window) -> ClientResult:
    """A command's latency is that of its batch."""
    result = ClientResult(latencies_s=array("d"), applied=0)
    time.sleep(max(0.0, window.start - time.monotonic()))
    while (began := time.monotonic()) < window.end:
        settled = apply()
        ended = time.monotonic()
        result.applied_total += settled
        if window.begin <= ended < window.end:
            result.applied = (result.applied or 0) + settled
            result.latencies_s.append(ended - began)
    result.offered = result.applied or 0
    return result
