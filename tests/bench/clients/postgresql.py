"""PostgreSQL without a lane: what a good engineer writes, with psycopg's asyncio connections, prepared and binary.

Every caller has a connection. All of them return what the lane returns: the new balance, number, or stock. Transfers
lock in the order of ids, so that they do not deadlock; what may fail for a passing reason is repeated after a random
pause.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection, IsolationLevel, errors

from tests.bench.clients.load import Caller
from tests.bench.clients.spec import Spec
from tests.bench.workloads import Operation

Connection = AsyncConnection[Any]
Method = Callable[[Connection, Operation], Awaitable[bool]]

TRIES_MAX = 1000
PAUSE_S_MAX = 0.05

_READ = "SELECT balance, version FROM accounts WHERE id = %s"
_READ_LOCKED = _READ + " FOR UPDATE"
_WRITE = "UPDATE accounts SET balance = %s, version = %s WHERE id = %s"
_ADD = "UPDATE accounts SET balance = balance + %s, version = version + 1 WHERE id = %s RETURNING balance, version"
_READ_BOTH_LOCKED = (
    "SELECT id, balance FROM accounts WHERE id = ANY(ARRAY[%s::bigint, %s::bigint]) ORDER BY id FOR UPDATE"
)
# One round trip, and the locks in order of ids.
_MOVE = """
    WITH locked AS (
        SELECT id FROM accounts WHERE id = ANY(ARRAY[%(payer)s::bigint, %(payee)s::bigint]) ORDER BY id FOR UPDATE
    )
    UPDATE accounts SET version = version + 1,
        balance = balance + CASE accounts.id WHEN %(payer)s THEN - %(amount)s ELSE %(amount)s END
    FROM locked WHERE accounts.id = locked.id RETURNING balance
"""
_TAKE = "UPDATE stock SET left_over = left_over - %s WHERE id = %s AND left_over >= %s RETURNING left_over"
_NEXT = "UPDATE counters SET value = value + 1 WHERE name = 'orders' RETURNING value"
_ORDER = "INSERT INTO orders (number, reference) VALUES (%s, %s)"


class Refused(Exception):
    """Rolls back; the operation is rejected."""


async def one(connection: Connection, query: str, parameters: Sequence[object] | None = None) -> Any:
    """The row that there is."""
    return await (await connection.execute(query, parameters)).fetchone()


async def naive_credit(connection: Connection, operation: Operation) -> bool:
    """Read, add, write, as it is first written: two transactions at once lose an update."""
    account, amount = operation
    async with connection.transaction():
        row = await one(connection, _READ, (account,))
        await connection.execute(_WRITE, (row[0] + amount, row[1] + 1, account))
    return True


async def for_update_credit(connection: Connection, operation: Operation) -> bool:
    account, amount = operation
    async with connection.transaction():
        row = await one(connection, _READ_LOCKED, (account,))
        if row[0] + amount < 0:
            raise Refused
        await connection.execute(_WRITE, (row[0] + amount, row[1] + 1, account))
    return True


async def for_update_keyed_credit(connection: Connection, operation: Operation) -> bool:
    """With an idempotency key in the same transaction: as safe to repeat as the lane's commands are."""
    account, amount = operation
    key = f"{random.getrandbits(128):032x}"
    async with connection.transaction():
        row = await one(connection, _READ_LOCKED, (account,))
        await connection.execute(
            "INSERT INTO idempotency_keys (key, result) VALUES (%s, %s)", (key, str(row[0] + amount))
        )
        await connection.execute(_WRITE, (row[0] + amount, row[1] + 1, account))
    return True


async def for_update_pipelined_credit(connection: Connection, operation: Operation) -> bool:
    """BEGIN travels with the SELECT, and COMMIT with the UPDATE: two round trips in place of four."""
    account, amount = operation
    async with connection.pipeline():
        await connection.execute("BEGIN")
        row = await one(connection, _READ_LOCKED, (account,))
        await connection.execute(_WRITE, (row[0] + amount, row[1] + 1, account))
        await connection.execute("COMMIT")
    return True


async def atomic_credit(connection: Connection, operation: Operation) -> bool:
    account, amount = operation
    return await (await connection.execute(_ADD, (amount, account))).fetchone() is not None


async def optimistic_credit(connection: Connection, operation: Operation) -> bool:
    """Write only to the version that was read."""
    account, amount = operation
    row = await one(connection, _READ, (account,))
    written = await connection.execute(_WRITE + " AND version = %s", (row[0] + amount, row[1] + 1, account, row[1]))
    if written.rowcount == 0:
        raise errors.SerializationFailure("another version")
    return True


async def for_update_transfer(connection: Connection, operation: Operation) -> bool:
    payer, payee, amount = operation
    async with connection.transaction():
        rows = dict(await (await connection.execute(_READ_BOTH_LOCKED, (payer, payee))).fetchall())
        if rows[payer] < amount:
            raise Refused
        add = "UPDATE accounts SET balance = balance + %s, version = version + 1 WHERE id = %s"
        await connection.execute(add, (-amount, payer))
        await connection.execute(add, (amount, payee))
    return True


async def for_update_pipelined_transfer(connection: Connection, operation: Operation) -> bool:
    payer, payee, amount = operation
    add = "UPDATE accounts SET balance = balance + %s, version = version + 1 WHERE id = %s"
    async with connection.pipeline():
        await connection.execute("BEGIN")
        rows = dict(await (await connection.execute(_READ_BOTH_LOCKED, (payer, payee))).fetchall())
        if rows[payer] < amount:
            await connection.execute("ROLLBACK")
            return False
        await connection.execute(add, (-amount, payer))
        await connection.execute(add, (amount, payee))
        await connection.execute("COMMIT")
    return True


async def atomic_transfer(connection: Connection, operation: Operation) -> bool:
    payer, payee, amount = operation
    moved = await connection.execute(_MOVE, {"payer": payer, "payee": payee, "amount": amount})
    return moved.rowcount == 2


async def optimistic_transfer(connection: Connection, operation: Operation) -> bool:
    """Both rows only in the versions that were read."""
    payer, payee, amount = operation
    read = "SELECT id, balance, version FROM accounts WHERE id = ANY(ARRAY[%s::bigint, %s::bigint])"
    rows = {row[0]: row for row in await (await connection.execute(read, (payer, payee))).fetchall()}
    if rows[payer][1] < amount:
        raise Refused
    changes = {payer: -amount, payee: amount}
    async with connection.transaction():
        for account in sorted(changes):
            _, balance, version = rows[account]
            written = await connection.execute(
                _WRITE + " AND version = %s", (balance + changes[account], version + 1, account, version)
            )
            if written.rowcount == 0:
                raise errors.SerializationFailure("another version")
    return True


async def for_update_create(connection: Connection, operation: Operation) -> bool:
    """The counter's row is the lock: a sequence would leave gaps."""
    async with connection.transaction():
        row = await one(connection, _NEXT)
        await connection.execute(_ORDER, (row[0], operation[0]))
    return True


async def for_update_reserve(connection: Connection, operation: Operation) -> bool:
    item, quantity = operation
    async with connection.transaction():
        row = await one(connection, "SELECT left_over FROM stock WHERE id = %s FOR UPDATE", (item,))
        if row[0] < quantity:
            raise Refused
        await connection.execute("UPDATE stock SET left_over = %s WHERE id = %s", (row[0] - quantity, item))
    return True


async def atomic_reserve(connection: Connection, operation: Operation) -> bool:
    item, quantity = operation
    return (await connection.execute(_TAKE, (quantity, item, quantity))).rowcount == 1


METHODS: dict[tuple[str, str], Method] = {
    ("naive", "credit"): naive_credit,
    ("for-update", "credit"): for_update_credit,
    ("for-update-pipelined", "credit"): for_update_pipelined_credit,
    ("for-update-keyed", "credit"): for_update_keyed_credit,
    ("atomic", "credit"): atomic_credit,
    ("optimistic", "credit"): optimistic_credit,
    ("serializable", "credit"): naive_credit,
    ("for-update", "transfer"): for_update_transfer,
    ("for-update-pipelined", "transfer"): for_update_pipelined_transfer,
    ("atomic", "transfer"): atomic_transfer,
    ("optimistic", "transfer"): optimistic_transfer,
    ("serializable", "transfer"): for_update_transfer,
    ("for-update", "create"): for_update_create,
    ("for-update", "reserve"): for_update_reserve,
    ("atomic", "reserve"): atomic_reserve,
}


async def connect(url: str) -> Connection:
    """A connection as its user would set it up: everything prepared at its first use, results in binary."""
    connection = await AsyncConnection.connect(url, autocommit=True, prepare_threshold=0)
    connection.cursor_factory = _BinaryCursor
    return connection


class _BinaryCursor(psycopg.AsyncCursor[Any]):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.format = psycopg.pq.Format.BINARY


class PostgresClient:
    """`concurrency` connections, one operation at a time on each."""

    def __init__(self, spec: Spec) -> None:
        self._url = spec.target
        self._concurrency = spec.concurrency
        kind = {"hot-row": "credit", "spread": "credit"}.get(spec.workload.kind, spec.workload.kind)
        self._method = METHODS[spec.method.removeprefix("pg-"), kind]
        self._is_serializable = spec.method == "pg-serializable"
        self._connections: list[Connection] = []
        self.retries = 0

    async def open(self) -> None:
        for _ in range(self._concurrency):
            connection = await connect(self._url)
            if self._is_serializable:
                await connection.set_isolation_level(IsolationLevel.SERIALIZABLE)
            self._connections.append(connection)

    def callers(self) -> Sequence[Caller]:
        return [self._caller(connection) for connection in self._connections]

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()

    def _caller(self, connection: Connection) -> Caller:
        method = self._method

        async def call(operation: Operation) -> bool:
            for attempt in range(TRIES_MAX):
                try:
                    return await method(connection, operation)
                except (errors.SerializationFailure, errors.DeadlockDetected):
                    self.retries += 1
                    # Full jitter: those that collided must not meet again.
                    await asyncio.sleep(random.uniform(0, min(PAUSE_S_MAX, 0.001 * 2 ** min(attempt, 10))))
                except (Refused, errors.CheckViolation):
                    return False
            raise RuntimeError(f"gave up after {TRIES_MAX} tries")

        return call
