"""MariaDB without a lane, with aiomysql. Every caller has a connection."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiomysql
import pymysql

from tests.bench.clients.load import Caller
from tests.bench.clients.spec import Spec
from tests.bench.workloads import Operation

TRIES_MAX = 1000
PAUSE_S_MAX = 0.05
_DEADLOCK, _LOCK_TIMEOUT, _CHANGED_SINCE_READ = 1213, 1205, 1020
_CHECK_VIOLATED = 4025

Cursor = Any
Method = Callable[[Any, Cursor, Operation], Awaitable[bool]]

_ADD = "UPDATE accounts SET balance = balance + %s, version = version + 1 WHERE id = %s"


async def transaction_credit(connection: Any, cursor: Cursor, operation: Operation) -> bool:
    account, amount = operation
    await connection.begin()
    await cursor.execute("SELECT balance, version FROM accounts WHERE id = %s FOR UPDATE", (account,))
    balance, version = await cursor.fetchone()
    await cursor.execute(
        "UPDATE accounts SET balance = %s, version = %s WHERE id = %s", (balance + amount, version + 1, account)
    )
    await connection.commit()
    return True


async def atomic_credit(connection: Any, cursor: Cursor, operation: Operation) -> bool:
    account, amount = operation
    await cursor.execute(_ADD, (amount, account))
    return bool(cursor.rowcount)


async def transaction_transfer(connection: Any, cursor: Cursor, operation: Operation) -> bool:
    payer, payee, amount = operation
    await connection.begin()
    await cursor.execute("SELECT id, balance FROM accounts WHERE id IN (%s, %s) ORDER BY id FOR UPDATE", (payer, payee))
    balances = dict(await cursor.fetchall())
    if balances[payer] < amount:
        await connection.rollback()
        return False
    await cursor.execute(_ADD, (-amount, payer))
    await cursor.execute(_ADD, (amount, payee))
    await connection.commit()
    return True


async def atomic_transfer(connection: Any, cursor: Cursor, operation: Operation) -> bool:
    """One statement; InnoDB locks in the order in which it finds the rows, that of the primary key."""
    payer, payee, amount = operation
    await cursor.execute(
        "UPDATE accounts SET version = version + 1, balance = balance + CASE id WHEN %s THEN %s ELSE %s END "
        "WHERE id IN (%s, %s)",
        (payer, -amount, amount, payer, payee),
    )
    return bool(cursor.rowcount == 2)


async def transaction_create(connection: Any, cursor: Cursor, operation: Operation) -> bool:
    await connection.begin()
    # LAST_INSERT_ID(…) hands the new value back with the UPDATE's own answer.
    await cursor.execute("UPDATE counters SET value = LAST_INSERT_ID(value + 1) WHERE name = 'orders'")
    await cursor.execute("INSERT INTO orders (number, reference) VALUES (%s, %s)", (cursor.lastrowid, operation[0]))
    await connection.commit()
    return True


async def transaction_reserve(connection: Any, cursor: Cursor, operation: Operation) -> bool:
    item, quantity = operation
    await connection.begin()
    await cursor.execute("SELECT left_over FROM stock WHERE id = %s FOR UPDATE", (item,))
    (left_over,) = await cursor.fetchone()
    if left_over < quantity:
        await connection.rollback()
        return False
    await cursor.execute("UPDATE stock SET left_over = %s WHERE id = %s", (left_over - quantity, item))
    await connection.commit()
    return True


async def atomic_reserve(connection: Any, cursor: Cursor, operation: Operation) -> bool:
    item, quantity = operation
    await cursor.execute(
        "UPDATE stock SET left_over = left_over - %s WHERE id = %s AND left_over >= %s", (quantity, item, quantity)
    )
    return bool(cursor.rowcount)


METHODS: dict[tuple[str, str], Method] = {
    ("transaction", "hot-row"): transaction_credit,
    ("atomic", "hot-row"): atomic_credit,
    ("transaction", "transfer"): transaction_transfer,
    ("atomic", "transfer"): atomic_transfer,
    ("transaction", "create"): transaction_create,
    ("transaction", "reserve"): transaction_reserve,
    ("atomic", "reserve"): atomic_reserve,
}


class MariadbClient:
    """`concurrency` connections, one operation at a time on each."""

    def __init__(self, spec: Spec) -> None:
        self._url = urlsplit(spec.target)
        self._concurrency = spec.concurrency
        self._method = METHODS[spec.method.removeprefix("my-"), spec.workload.kind]
        self._connections: list[Any] = []
        self.retries = 0

    async def open(self) -> None:
        for _ in range(self._concurrency):
            self._connections.append(
                await aiomysql.connect(
                    host=self._url.hostname,
                    port=self._url.port,
                    user=self._url.username,
                    password=self._url.password,
                    db=self._url.path.lstrip("/"),
                    autocommit=True,
                )
            )

    def callers(self) -> Sequence[Caller]:
        return [self._caller(connection) for connection in self._connections]

    async def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _caller(self, connection: Any) -> Caller:
        method = self._method

        async def call(operation: Operation) -> bool:
            for attempt in range(TRIES_MAX):
                try:
                    async with connection.cursor() as cursor:
                        return await method(connection, cursor, operation)
                except pymysql.err.MySQLError as error:
                    code = error.args[0] if error.args else None
                    await connection.rollback()
                    if code == _CHECK_VIOLATED:
                        return False
                    if code not in (_DEADLOCK, _LOCK_TIMEOUT, _CHANGED_SINCE_READ):
                        raise
                    self.retries += 1
                    await asyncio.sleep(random.uniform(0, min(PAUSE_S_MAX, 0.001 * 2 ** min(attempt, 10))))
            raise RuntimeError(f"gave up after {TRIES_MAX} tries")

        return call
