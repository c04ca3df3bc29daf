"""A Procrastinate worker: the queue is a table in the same PostgreSQL, and `lock=` lets one task run at a time."""

import asyncio
import os

import procrastinate
from psycopg_pool import AsyncConnectionPool

from tests.bench.workers.done import Done

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_DATABASE_URL"]))
_done = Done(os.environ["BENCH_DONE_PATH"])
_pools: list[AsyncConnectionPool] = []


async def credit(account: int, amount: int, at: float) -> None:
    async with _pools[0].connection() as connection:
        await connection.execute(
            "UPDATE accounts SET balance = balance + %s, version = version + 1 WHERE id = %s", (amount, account)
        )
    _done.note(at)


app.task(name="bench.credit", queue="bench")(credit)


async def main() -> None:
    pool = AsyncConnectionPool(
        os.environ["BENCH_DATABASE_URL"], min_size=1, max_size=1, open=False, kwargs={"autocommit": True}
    )
    await pool.open()
    _pools.append(pool)
    async with app.open_async():
        # The client makes the tables, in another process.
        while not await app.check_connection_async():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await app.run_worker_async(queues=["bench"], concurrency=1)


if __name__ == "__main__":
    asyncio.run(main())
