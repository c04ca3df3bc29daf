"""wrk, a load generator in C: what the gateways are asked costs the two cores next to nothing.

It keeps every connection busy, one request at a time on each, and corrects its percentiles for coordinated omission:
an answer that took long stands for those that could not be asked for meanwhile.
"""

import signal
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import require
from tests.bench.clients.spec import Spec, Window
from tests.bench.measurement import PERCENTILES, ClientResult

ANSWER_TIMEOUT_S: Final = 30
"""Longer than a gateway waits for an outcome: none is cut off."""
STOP_TIMEOUT_S: Final = 5.0
# wrk looks every 0.1 s whether it is to stop.
_STOP_LEAD_S: Final = 0.15
_RUN_MAX_S: Final = 3600

_MARK: Final = "report: "

_SCRIPT: Final = """\
wrk.method = "POST"
wrk.path = "/accounts/1/credit"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"amount":1}'

local gateways = {<gateways>}
local threads = {}
statuses = {}

function setup(thread)
    threads[#threads + 1] = thread
    local gateway = gateways[(#threads - 1) % #gateways + 1]
    thread.addr = wrk.lookup(gateway[1], gateway[2])[1]
end

function response(status)
    statuses[status] = (statuses[status] or 0) + 1
end

local function object(values)
    local fields = {}
    for name, value in pairs(values) do
        fields[#fields + 1] = string.format('"%s":%d', name, value)
    end
    return "{" .. table.concat(fields, ",") .. "}"
end

function done(summary, latency)
    local counts = {}
    for _, thread in ipairs(threads) do
        for status, count in pairs(thread:get("statuses")) do
            counts[status] = (counts[status] or 0) + count
        end
    end
    local percentiles = {}
    for _, percent in ipairs({<percents>}) do
        percentiles[percent] = latency:percentile(percent)
    end
    io.write(string.format('<mark>{"ran_us":%d,"requests":%d,"statuses":%s,"percentiles_us":%s,"errors":%s}\\n',
        summary.duration, summary.requests, object(counts), object(percentiles), object(summary.errors)))
end
"""


# In every row: a request that is the same each time wrk would send without asking for it, which costs it less.
_REQUESTS: Final = """\
local requests = {}
local last = 0

function init()
    <requests>
end

function request()
    last = last % #requests + 1
    return requests[last]
end
"""
_ONE: Final = "requests[1] = wrk.format()"
_OF_EACH_TOKEN: Final = """\
for token in io.lines("<tokens>") do
        wrk.headers["Authorization"] = "Bearer " .. token
        requests[#requests + 1] = wrk.format()
    end"""


class Report(Struct, frozen=True):
    """What wrk has counted. `errors` are of sockets (connect, read, write, timeout) and of statuses from 400 on."""

    ran_us: int
    requests: int
    statuses: dict[str, int]
    percentiles_us: dict[str, int]
    errors: dict[str, int]


def script_of(addresses: Sequence[str], tokens: str | None = None) -> str:
    """The Lua script with which wrk credits an account through these gateways, each a thread's.

    `tokens` is a file: each request shows the next of them.
    """
    places = (address.split(":") for address in addresses)
    gateways = ", ".join(f'{{"{host}", "{port}"}}' for host, port in places)
    percents = ", ".join(f"{100 * share:g}" for share in PERCENTILES.values())
    requests = _ONE if tokens is None else _OF_EACH_TOKEN.replace("<tokens>", tokens)
    return _SCRIPT.replace("<gateways>", gateways).replace("<percents>", percents).replace(
        "<mark>", _MARK
    ) + _REQUESTS.replace("<requests>", requests)


def report_of(output: str) -> Report:
    """What wrk's output says. Raises RuntimeError, with the end of the output, where there is no report in it."""
    line = next((line for line in output.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        raise RuntimeError(f"wrk ended without a report: {output[-500:].strip()}")
    return msgspec.json.decode(line.removeprefix(_MARK), type=Report)


def result_of(report: Report, connections: int, window_s: float) -> ClientResult:
    """What a run of wrk says of a window of this length.

    When wrk stops, a request is under way on every connection, or none: those may be carried out, and nobody is told.
    """
    applied = rejected = unknown = errors = 0
    texts = []
    for status, count in report.statuses.items():
        if status in ("200", "201"):
            applied += count
        elif status in ("409", "503"):
            # 503: it was not taken; but whether a command was, the gateway may not know.
            rejected += count
            unknown += count * (status == "503")
        else:
            # 202: accepted, and not settled in time.
            unknown += count
            errors += count * (status != "202")
            texts.append(f"{count} answers of HTTP {status}")
    lost = {name: count for name, count in report.errors.items() if name != "status" and count}
    errors += sum(lost.values())
    texts += [f"{count} errors of kind {name!r}" for name, count in lost.items()]
    share = window_s * 1e6 / report.ran_us
    return ClientResult(
        offered=round(report.requests * share),
        applied=round(applied * share),
        rejected=round(rejected * share),
        errors=errors,
        applied_total=applied,
        unknown_total=unknown + connections + sum(lost.values()),
        percentiles_s={name: report.percentiles_us[f"{100 * share:g}"] / 1e6 for name, share in PERCENTILES.items()},
        latencies_s=array("d"),
        error_texts=texts,
    )


def run(spec: Spec, go: Callable[[], Window]) -> ClientResult:
    """Load the gateways, each with an equal share of the connections: once to warm up, and then for the window.

    What was under way at its end may still be when this returns.
    """
    addresses = spec.target.split(",")
    directory = Path(spec.directory)
    script = directory / "script.lua"
    script.write_text(script_of(addresses, spec.tokens))
    argv: list[str | Path] = [
        require("wrk"), f"--threads={len(addresses)}", f"--connections={spec.concurrency}", f"--script={script}",
        f"--timeout={ANSWER_TIMEOUT_S}s", f"--duration={_RUN_MAX_S}s", f"http://{addresses[0]}",
    ]  # fmt: skip
    window = go()
    _sleep_until(window.start)
    warm = _run_until(window.begin - _STOP_LEAD_S, argv, directory / "warm-up.log")
    _sleep_until(window.begin)
    report = _run_until(window.end, argv, directory / "wrk.log")
    result = result_of(report, spec.concurrency, window.duration_s)
    before = result_of(warm, spec.concurrency, window.duration_s)
    result.applied_total += before.applied_total
    result.unknown_total += before.unknown_total
    return result


def _run_until(moment: float, argv: Sequence[str | Path], log_path: Path) -> Report:
    process = Process(argv, log_path=log_path)
    _sleep_until(moment)
    # It takes whole seconds only; interrupted, it reports what it has seen so far.
    process.stop(signal.SIGINT, STOP_TIMEOUT_S)
    return report_of(log_path.read_text())


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
