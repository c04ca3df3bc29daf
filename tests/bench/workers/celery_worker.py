"""One Celery worker with one slot, so that tasks run one after the other; acknowledged once they are done."""

import os
from typing import Any

import celery
import psycopg

from tests.bench.workers.done import Done

app = celery.Celery("bench", broker=os.environ["AMQP_URL"])
app.conf.update(
    task_default_queue="bench-celery",
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=16,
    worker_hijack_root_logger=False,
)
_connected: list[psycopg.Connection[Any]] = []
_done = Done(os.environ["BENCH_DONE_PATH"])


@app.task(name="bench.credit")  # type: ignore[untyped-decorator]
def credit(account: int, amount: int, at: float) -> None:
    """Read, add, write: nobody else does."""
    if not _connected:
        _connected.append(psycopg.connect(os.environ["BENCH_DATABASE_URL"], autocommit=True, prepare_threshold=0))
    connection = _connected[0]
    connection.execute(
        "UPDATE accounts SET balance = balance + %s, version = version + 1 WHERE id = %s RETURNING balance",
        (amount, account),
    ).fetchone()
    _done.note(at)
