"""A consumer that applies one message after the other: a statement, a COMMIT and an acknowledgement for each."""

import os

import aio_pika
import psycopg
import uvloop

from tests.bench.workers.done import Done

PREFETCH = 100


async def main() -> None:
    done = Done(os.environ["BENCH_DONE_PATH"])
    database = await psycopg.AsyncConnection.connect(
        os.environ["BENCH_DATABASE_URL"], autocommit=True, prepare_threshold=0
    )
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.declare_queue("bench.one-by-one", durable=True, arguments={"x-queue-type": "quorum"})
    async with queue.iterator() as messages:
        async for message in messages:
            credited = await database.execute(
                "UPDATE accounts SET balance = balance + 1, version = version + 1 WHERE id = 1 RETURNING balance"
            )
            await credited.fetchone()
            done.note(float(message.body))
            await message.ack()


if __name__ == "__main__":
    uvloop.run(main())
