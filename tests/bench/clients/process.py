"""A client's process: it connects, says so, is told when to start, and returns what it saw."""

import ctypes
import signal
from multiprocessing.connection import Connection
from typing import Any

from tests.bench.clients.spec import Spec, Window
from tests.bench.measurement import ClientResult

STAY_S = 60.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(spec: Spec, pipe: "Connection[Any, Any]") -> None:
    """Send None when ready; receive a Window; send a ClientResult, or the text of an error; be told to go."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Ctrl-C reaches everyone of the terminal; the parent ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pipe.send(_run(spec, pipe))
    except Exception as error:  # noqa: BLE001 - the parent shows it
        pipe.send(f"{type(error).__name__}: {error}")
    # Our CPU time can be read for as long as we are there.
    if pipe.poll(STAY_S):
        pipe.recv()


def _run(spec: Spec, pipe: "Connection[Any, Any]") -> ClientResult:
    # Here and not above: each method has libraries of its own, which need not all be installed.
    import logging

    import structlog

    from tests.bench.clients.methods import blocking, client_of

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    run_blocking = blocking(spec.method)
    if run_blocking is not None:
        return run_blocking(spec, lambda: _go(pipe))
    import asyncio
    from itertools import islice

    import uvloop

    from tests.bench.clients.load import run_load
    from tests.bench.workloads import operations

    async def run() -> ClientResult:
        client = client_of(spec)
        try:
            async with asyncio.timeout(60):
                await client.open()
            # Before we say that we are ready: drawing takes a moment.
            stream = islice(operations(spec.workload, spec.seed, spec.run), spec.total)
            window = await asyncio.to_thread(_go, pipe)
            return await run_load(client, stream, spec, window)
        finally:
            await client.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _go(pipe: "Connection[Any, Any]") -> Window:
    pipe.send(None)
    if not pipe.poll(120):
        raise TimeoutError("was not told to start")
    window = pipe.recv()
    assert isinstance(window, Window)
    return window
