"""Closed and open load: who begins an operation when, and what is noted of it."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import monotonic
from typing import Protocol

from tests.bench.clients.spec import Spec, Window
from tests.bench.measurement import ClientResult
from tests.bench.workloads import Operation

WAITING_MAX = 10_000
"""Arrivals of an open load that have not begun; more are turned away, as a server's own limit would."""
ANSWER_TIMEOUT_S = 15.0
"""How long after the end an operation under way may take."""
ERRORS_MAX = 50
"""A client that fails so often stops: there is nothing to measure."""

Caller = Callable[[Operation], Awaitable[bool]]
"""Carries out one operation; False: the state did not allow it. Raises when it failed for good."""


class Unknown(Exception):
    """The operation has no answer: it may have happened."""


class Client(Protocol):
    """One way to write."""

    retries: int

    async def open(self) -> None:
        """Connect."""

    def callers(self) -> Sequence[Caller]:
        """One for each operation that may be under way at the same time."""

    async def close(self) -> None:
        """Disconnect."""


async def run_load(client: Client, stream: Iterator[Operation], spec: Spec, window: Window) -> ClientResult:
    """Load the client until the window's end, or until the stream is; operations under way then are waited for."""
    result = ClientResult()
    callers = client.callers()
    await asyncio.sleep(window.start - monotonic())
    if spec.rate is None:
        tasks = [asyncio.create_task(_closed(caller, stream, result, window)) for caller in callers]
    else:
        arrivals: asyncio.Queue[float] = asyncio.Queue()
        tasks = [asyncio.create_task(_open(caller, arrivals, stream, result, window)) for caller in callers]
        await _arrive(arrivals, spec.rate, spec.seed, result, window)
        for _ in callers:
            arrivals.put_nowait(0.0)
    _, late = await asyncio.wait(tasks, timeout=window.end + ANSWER_TIMEOUT_S - monotonic())
    for task in late:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, asyncio.CancelledError):
            result.unknown_total += 1
        elif isinstance(ended, BaseException):
            raise ended
    result.retries = client.retries
    return result


async def _closed(caller: Caller, stream: Iterator[Operation], result: ClientResult, window: Window) -> None:
    begin, end = window.begin, window.end
    for operation in stream:
        began = monotonic()
        if began >= end or result.errors >= ERRORS_MAX:
            return
        if began >= begin:
            result.offered += 1
        await _carry_out(caller, operation, began, result, window)


async def _open(
    caller: Caller, arrivals: "asyncio.Queue[float]", stream: Iterator[Operation], result: ClientResult, window: Window
) -> None:
    while (arrived := await arrivals.get()) and result.errors < ERRORS_MAX:
        await _carry_out(caller, next(stream), arrived, result, window)


async def _carry_out(caller: Caller, operation: Operation, began: float, result: ClientResult, window: Window) -> None:
    try:
        is_applied = await caller(operation)
    except Unknown as error:
        result.unknown_total += 1
        result.error_texts.append(str(error)[:200])
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a row of the report
        result.errors += 1
        result.unknown_total += 1
        result.error_texts.append(f"{type(error).__name__}: {error}"[:200])
        return
    ended = monotonic()
    is_inside = window.begin <= ended < window.end
    if is_applied:
        result.applied_total += 1
        if is_inside:
            result.latencies_s.append(ended - began)
    elif is_inside:
        result.rejected += 1


async def _arrive(
    arrivals: "asyncio.Queue[float]", rate: float, seed: int, result: ClientResult, window: Window
) -> None:
    """Poisson arrivals; the time of an operation counts from here, however long it waits for a caller."""
    chance = random.Random(seed)
    due = window.start
    while due < window.end:
        pause_s = due - monotonic()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        now = monotonic()
        while due <= now and due < window.end:
            is_measured = due >= window.begin
            result.offered += is_measured
            if arrivals.qsize() < WAITING_MAX:
                arrivals.put_nowait(due)
            else:
                result.rejected += is_measured
            due += chance.expovariate(rate)
