"""The log says by which signal a process stops, and it stops whatever it waits for."""

import asyncio
import os
import signal
import threading

import pytest
from structlog.testing import capture_logs

from coordinator.registry import registry
from coordinator.runtime.stopping import stop_at_signals
from coordinator.worker import process

WITHIN_S = 10.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_the_signal_that_stops_a_process_is_logged_once(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests that were started by `nohup` ignore SIGHUP.
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)
    with capture_logs() as lines:
        stop = stop_at_signals(lane="ledger")
        os.kill(os.getpid(), number)
        async with asyncio.timeout(WITHIN_S):
            await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
    assert lines == [{"event": "stopping", "log_level": "info", "signal": number.name, "lane": "ledger"}]


async def test_a_hangup_that_nohup_has_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = stop_at_signals(lane="ledger")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_lane_whose_database_does_not_answer_at_its_start_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMENTS_DATABASE_URL", "mysql://nobody:secret@127.0.0.1:9/payments")
    monkeypatch.setenv("LANE_STOP_TIMEOUT_S", "0.1")
    stop, answered, ended = asyncio.Event(), threading.Event(), list[str]()

    async def check(*_: object) -> None:
        stop.set()
        await asyncio.to_thread(answered.wait)

    monkeypatch.setattr(process, "check_database", check)
    lane = process.CoordinatorProcess(
        registry().service("payments"), is_watched=False, stop_hard=lambda: ended.append("hard")
    )
    try:
        async with asyncio.timeout(5):
            await lane.serve(stop)
    finally:
        answered.set()
    assert (ended, lane.is_stuck) == (["hard"], True)
