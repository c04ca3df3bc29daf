"""The alternatives with a queue of their own and one worker: this side puts tasks in, so that some are always waiting.

The worker notes in a file when a task was put in and when it was done, which costs it next to nothing. The client is
told nothing of outcomes: getting them back would cost these alternatives more than it costs the lane.
"""

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from tests.bench.clients.spec import Spec, Window
from tests.bench.measurement import ClientResult
from tests.bench.workers.done import SIZE, read_done

POLL_S = 0.002
READY_TIMEOUT_S = 30.0
DRAIN_TIMEOUT_S = 15.0

Put = Callable[[float], Awaitable[None]]
"""Puts one task in, with the time of it."""


@asynccontextmanager
async def _aio_pika(spec: Spec) -> AsyncIterator[Put]:
    import aio_pika

    connection = await aio_pika.connect(spec.environment["AMQP_URL"])
    channel = await connection.channel(publisher_confirms=True)
    queue = await channel.declare_queue("bench.one-by-one", durable=True, arguments={"x-queue-type": "quorum"})

    async def put(at: float) -> None:
        message = aio_pika.Message(repr(at).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue.name)

    yield put
    await connection.close()


@asynccontextmanager
async def _celery(spec: Spec) -> AsyncIterator[Put]:
    import celery

    app = celery.Celery("bench", broker=spec.environment["AMQP_URL"])
    app.conf.broker_pool_limit = 1
    app.conf.broker_transport_options = {"confirm_publish": True}
    connection = app.connection_for_write()
    producer = app.amqp.Producer(connection)

    async def put(at: float) -> None:
        app.send_task("bench.credit", (1, 1, at), queue="bench-celery", producer=producer, ignore_result=True)

    yield put
    connection.close()


@asynccontextmanager
async def _procrastinate(spec: Spec) -> AsyncIterator[Put]:
    import procrastinate

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=spec.target))
    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        deferrer = app.configure_task("bench.credit", queue="bench", lock="account 1")

        async def put(at: float) -> None:
            await deferrer.defer_async(account=1, amount=1, at=at)

        yield put


_WAYS = {"aio-pika": _aio_pika, "celery": _celery, "procrastinate": _procrastinate}


def run(spec: Spec, go: Callable[[], Window]) -> ClientResult:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(spec, go))


async def _run(spec: Spec, go: Callable[[], Window]) -> ClientResult:
    done = Path(spec.directory) / "done"
    result = ClientResult(latencies_s=array("d"))
    async with _WAYS[spec.method.partition(":")[2]](spec) as put:
        # One task before all others: once it is done the worker is there.
        await put(time.monotonic())
        await _await_done(done, 1, READY_TIMEOUT_S)
        window = await asyncio.to_thread(go)
        await asyncio.sleep(window.start - time.monotonic())
        sent = 1
        while (now := time.monotonic()) < window.end:
            if sent - _count(done) >= spec.concurrency:
                await asyncio.sleep(POLL_S)
                continue
            await put(now)
            sent += 1
            result.offered += now >= window.begin
        is_drained = await _await_done(done, sent, DRAIN_TIMEOUT_S, must=False)
    records = read_done(done)
    result.applied_total = len(records)
    result.unknown_total = 0 if is_drained else sent - len(records)
    for put_at, done_at in records:
        if window.begin <= done_at < window.end:
            result.latencies_s.append(done_at - put_at)
    return result


def _count(done: Path) -> int:
    return done.stat().st_size // SIZE if done.exists() else 0


async def _await_done(done: Path, count: int, timeout_s: float, *, must: bool = True) -> bool:
    deadline = time.monotonic() + timeout_s
    while _count(done) < count:
        if time.monotonic() > deadline:
            if must:
                raise TimeoutError("the worker has done nothing yet")
            return False
        await asyncio.sleep(POLL_S)
    return True
