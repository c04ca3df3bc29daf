"""pgbench, PostgreSQL's own benchmark in C: what the alternatives do when their client costs next to nothing."""

import math
import subprocess
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from coordinator.dev.servers.programs import require
from tests.bench.clients.spec import Spec, Window
from tests.bench.measurement import ClientResult
from tests.bench.service import ACCOUNTS

SKEW_MIN = 1.001
"""random_zipfian() takes a parameter above 1 only."""

TIMEOUT_S = 30.0

_HOT_FOR_UPDATE = """
BEGIN;
SELECT balance AS found, version AS seen FROM accounts WHERE id = 1 FOR UPDATE \\gset
UPDATE accounts SET balance = :found + 1, version = :seen + 1 WHERE id = 1;
COMMIT;
"""
_HOT_ATOMIC = """
UPDATE accounts SET balance = balance + 1, version = version + 1 WHERE id = 1 RETURNING balance, version;
"""
# As workloads.transfer_between() has it.
_DRAW = """
\\set first {draw_all}
\\set second {draw_others}
\\set second :second + (CASE WHEN :second >= :first THEN 1 ELSE 0 END)
\\set low least(:first, :second)
\\set high greatest(:first, :second)
"""
_TRANSFER_FOR_UPDATE = (
    _DRAW
    + """
BEGIN;
SELECT id, balance FROM accounts WHERE id = ANY(ARRAY[:low::bigint, :high::bigint]) ORDER BY id FOR UPDATE;
UPDATE accounts SET balance = balance - 1, version = version + 1 WHERE id = :first;
UPDATE accounts SET balance = balance + 1, version = version + 1 WHERE id = :second;
COMMIT;
"""
)
_TRANSFER_ATOMIC = (
    _DRAW
    + """
WITH locked AS (
    SELECT id FROM accounts WHERE id = ANY(ARRAY[:low::bigint, :high::bigint]) ORDER BY id FOR UPDATE
)
UPDATE accounts SET version = version + 1, balance = balance + CASE accounts.id WHEN :first THEN -1 ELSE 1 END
FROM locked WHERE accounts.id = locked.id RETURNING balance;
"""
)
SCRIPTS = {
    ("for-update", "hot-row"): _HOT_FOR_UPDATE,
    ("atomic", "hot-row"): _HOT_ATOMIC,
    ("for-update", "transfer"): _TRANSFER_FOR_UPDATE,
    ("atomic", "transfer"): _TRANSFER_ATOMIC,
}


def script_of(name: str, kind: str, skew: float) -> str:
    """The script of a method and a workload."""
    zipfian = max(skew, SKEW_MIN)
    draws = [
        f"random_zipfian(1, {count}, {zipfian:g})" if skew else f"random(1, {count})"
        for count in (ACCOUNTS, ACCOUNTS - 1)
    ]
    # str.format would take the braces of others for its own; there are none here but ours.
    return SCRIPTS[name, kind].replace("{draw_all}", draws[0]).replace("{draw_others}", draws[1])


def run(spec: Spec, go: Callable[[], Window]) -> ClientResult:
    """Run pgbench for the whole time; its log of transactions tells what fell into the window."""
    directory = Path(spec.directory)
    script = directory / "script.sql"
    script.write_text(script_of(spec.method.partition(":")[2], spec.workload.kind, spec.workload.skew))
    address = urlsplit(spec.target)
    pgbench = _program()
    window = go()
    run_s = math.ceil(window.end - time.monotonic())
    # pgbench logs wall time. It runs for whole seconds, counted from when it is connected.
    offset_s = time.time() - time.monotonic()
    ended = subprocess.run(
        [
            pgbench, "--no-vacuum", "--protocol=prepared", f"--client={spec.concurrency}", "--jobs=1",
            f"--time={run_s}", f"--file={script}", "--log", f"--log-prefix={directory}/log",
            f"--random-seed={spec.seed}", "--max-tries=100", f"--host={address.hostname}", f"--port={address.port}",
            f"--username={address.username}", address.path.lstrip("/"),
        ],
        cwd=directory,
        env={"PGPASSWORD": address.password or "", "PATH": spec.environment["PATH"]},
        capture_output=True,
        text=True,
        timeout=run_s + TIMEOUT_S,
        check=False,
    )  # fmt: skip
    if ended.returncode != 0:
        raise RuntimeError(f"pgbench ended with status {ended.returncode}: {ended.stderr[-500:]}")
    return _read_logs(directory, window, offset_s)


def _read_logs(directory: Path, window: Window, offset_s: float) -> ClientResult:
    begin, end = window.begin + offset_s, window.end + offset_s
    result = ClientResult(latencies_s=array("d"))
    for path in directory.glob("log.*"):
        for line in path.read_text().splitlines():
            # client, transaction, latency in µs, script, and when it ended: seconds, µs
            fields = line.split()
            if len(fields) < 6 or not fields[5].isdigit():
                continue
            ended = int(fields[4]) + int(fields[5]) / 1e6
            if fields[2] in ("failed", "skipped"):
                result.errors += 1
                continue
            result.applied_total += 1
            if begin <= ended < end:
                result.latencies_s.append(int(fields[2]) / 1e6)
    result.offered = len(result.latencies_s)
    return result


def _program() -> str:
    # Beside the server's, where Debian keeps it off PATH.
    postgres = require("postgres").resolve()
    beside = postgres.with_name("pgbench")
    return str(beside if beside.exists() else require("pgbench"))
