"""Batching in the client, without a queue: callers hand in operations, a few connections apply what has gathered.

The nearest relative of the lane: set-wise statements and one COMMIT for many. It has no order among connections, no
record of what was applied (a command that is repeated is applied again; `-keyed` adds one), and what waits in memory is
lost with the process. It also serves the callers of one process only.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence

from tests.bench.clients.load import Caller
from tests.bench.clients.postgresql import Connection, connect
from tests.bench.clients.spec import Spec
from tests.bench.workloads import Operation

CONNECTIONS = 4
_LOCK = "SELECT id, balance FROM accounts WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
_WRITE = """
    UPDATE accounts SET balance = given.balance, version = version + given.changes
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS given (id, balance, changes)
    WHERE accounts.id = given.id
"""
_KEYS = "INSERT INTO idempotency_keys (key, result) SELECT * FROM unnest(%s::text[], %s::text[])"


class BatchingClient:
    """Many callers, few connections."""

    def __init__(self, spec: Spec) -> None:
        self._url = spec.target
        self._concurrency = spec.concurrency
        self._batch_max = spec.batch
        self._is_keyed = spec.method.endswith("-keyed")
        self._is_transfer = spec.workload.kind == "transfer"
        self._waiting: deque[tuple[Operation, asyncio.Future[bool]]] = deque()
        self._arrived = asyncio.Event()
        self._connections: list[Connection] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.retries = 0

    async def open(self) -> None:
        self._connections = [await connect(self._url) for _ in range(CONNECTIONS)]
        self._tasks = [asyncio.create_task(self._keep_applying(connection)) for connection in self._connections]

    def callers(self) -> Sequence[Caller]:
        return [self._hand_in] * self._concurrency

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._connections:
            await connection.close()

    async def _hand_in(self, operation: Operation) -> bool:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, done))
        self._arrived.set()
        return await done

    async def _keep_applying(self, connection: Connection) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch_max))]
            try:
                answers = await self._apply(connection, [operation for operation, _ in batch])
            except Exception as error:  # noqa: BLE001 - those who wait must learn of it
                for _, done in batch:
                    done.set_exception(error)
                continue
            for (_, done), answer in zip(batch, answers, strict=True):
                done.set_result(answer)

    async def _apply(self, connection: Connection, batch: list[Operation]) -> list[bool]:
        changes = [_changes(operation, is_transfer=self._is_transfer) for operation in batch]
        named = sorted({account for change in changes for account, _ in change})
        async with connection.transaction():
            balances = dict(await (await connection.execute(_LOCK, (named,))).fetchall())
            counts = dict.fromkeys(named, 0)
            answers = []
            for change in changes:
                is_allowed = all(balances[account] + amount >= 0 for account, amount in change)
                answers.append(is_allowed)
                for account, amount in change if is_allowed else ():
                    balances[account] += amount
                    counts[account] += 1
            await connection.execute(
                _WRITE, (named, [balances[account] for account in named], [counts[account] for account in named])
            )
            if self._is_keyed:
                # All that the lane's log has of use to a client: the id and the answer.
                keys = [f"{random.getrandbits(128):032x}" for _ in batch]
                await connection.execute(_KEYS, (keys, ["applied" if answer else "rejected" for answer in answers]))
        return answers


def _changes(operation: Operation, *, is_transfer: bool) -> tuple[tuple[int, int], ...]:
    if is_transfer:
        payer, payee, amount = operation
        return (payer, -amount), (payee, amount)
    account, amount = operation
    return ((account, amount),)
