"""`python -m tests.bench.durable.dbos_application FORM PORT`: a durable workflow a request, with FastAPI.

FORM `step`: a step of the workflow writes. DBOS may repeat a step after a crash, so the workflow's id is kept in the
transaction of the write, and a repetition changes nothing. FORM `transaction`: a transaction of DBOS's data source does
it, which keeps its outcome beside the write; it takes 13 statements in 7 transactions, and about three times as long.
A queue that runs one workflow at a time is slower by far than both: it starts one each time it looks.

Handlers are synchronous, as most of DBOS's documentation has them. With coroutines DBOS still asks its database in
threads, and each request then waits for more of them.
"""

import itertools
import os
import sys
from typing import Any

import sqlalchemy
import uvicorn
from dbos import DBOS, SQLAlchemyDatasource
from fastapi import FastAPI
from psycopg_pool import ConnectionPool
from pydantic import BaseModel

THREADS = 40
"""FastAPI answers so many synchronous requests at once; each has connections, so that none waits for another's."""

ONCE = """
    WITH new AS (INSERT INTO idempotency_keys (key) VALUES (%s) ON CONFLICT DO NOTHING RETURNING key)
    UPDATE accounts SET balance = balance + %s * (SELECT count(*) FROM new),
                        version = version + (SELECT count(*) FROM new)
    WHERE id = %s RETURNING balance, version
"""
PLAIN = """
    UPDATE accounts SET balance = balance + :amount, version = version + 1 WHERE id = :id RETURNING balance, version
"""


class Credit(BaseModel):
    amount: int


def by_step(url: str) -> Any:
    """A workflow whose step writes."""
    pool = ConnectionPool(url, min_size=4, max_size=8, open=True, kwargs={"autocommit": True, "prepare_threshold": 0})

    def credit(key: str | None, account: int, amount: int) -> dict[str, int]:
        with pool.connection() as connection:
            row = connection.execute(ONCE, (key, amount, account)).fetchone()
        assert row is not None
        return {"id": account, "balance": row[0], "version": row[1]}

    step = DBOS.step()(credit)

    def credit_account(account: int, amount: int) -> Any:
        return step(DBOS.workflow_id, account, amount)

    return DBOS.workflow()(credit_account)


def by_transaction(url: str) -> Any:
    """A workflow whose write is a transaction of DBOS's data source."""
    source = SQLAlchemyDatasource.create(url, engine_kwargs={"pool_size": THREADS, "max_overflow": 0})
    statement = sqlalchemy.text(PLAIN)

    def credit(account: int, amount: int) -> dict[str, int]:
        row = source.sql_session().execute(statement, {"id": account, "amount": amount}).one()
        return {"id": account, "balance": row.balance, "version": row.version}

    transaction = source.transaction(isolation_level="READ COMMITTED")(credit)

    def credit_account(account: int, amount: int) -> Any:
        return transaction(account, amount)

    return DBOS.workflow()(credit_account)


def application(credit_account: Any) -> FastAPI:
    """One route for the writes, one that says how many are under way."""
    app = FastAPI()
    begun, ended = itertools.count(), itertools.count()

    def credit(account: int, body: Credit) -> Any:
        next(begun)
        try:
            return credit_account(account, body.amount)
        finally:
            next(ended)

    async def under_way() -> int:
        # Each look counts one in both.
        return next(begun) - next(ended)

    app.post("/accounts/{account}/credit")(credit)
    app.get("/under-way")(under_way)
    return app


def main(form: str, port: str) -> None:
    url = os.environ["BENCH_DATABASE_URL"]
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "sys_db_pool_size": THREADS,
            "application_version": "1",
            "log_level": "ERROR",
        }
    )
    credit_account = {"step": by_step, "transaction": by_transaction}[form](url)
    DBOS.launch()
    try:
        uvicorn.run(application(credit_account), host="127.0.0.1", port=int(port), log_level="error", access_log=False)
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    main(*sys.argv[1:3])
