"""MongoDB without a lane, with PyMongo's asyncio client. Majority writes, journaled, as the lane's are."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pymongo import AsyncMongoClient, ReturnDocument, WriteConcern
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from tests.bench.clients.load import Caller
from tests.bench.clients.spec import Spec
from tests.bench.workloads import Operation

TRIES_MAX = 1000
PAUSE_S_MAX = 0.05
_DURABLE: WriteConcern = WriteConcern(w="majority", j=True)
_TRANSIENT = "TransientTransactionError"
_UNKNOWN_COMMIT = "UnknownTransactionCommitResult"

Method = Callable[[Any, Any, Operation], Awaitable[bool]]


async def transaction_credit(database: Any, session: Any, operation: Operation) -> bool:
    account, amount = operation
    found = await database["accounts"].find_one({"_id": account}, session=session)
    new = {"balance": found["balance"] + amount, "version": found["version"] + 1}
    await database["accounts"].update_one({"_id": account}, {"$set": new}, session=session)
    return True


async def atomic_credit(database: Any, session: Any, operation: Operation) -> bool:
    account, amount = operation
    changed = await database["accounts"].find_one_and_update(
        {"_id": account}, {"$inc": {"balance": amount, "version": 1}}, return_document=ReturnDocument.AFTER
    )
    return changed is not None


async def transaction_transfer(database: Any, session: Any, operation: Operation) -> bool:
    payer, payee, amount = operation
    accounts = database["accounts"]
    taken = await accounts.update_one(
        {"_id": payer, "balance": {"$gte": amount}}, {"$inc": {"balance": -amount, "version": 1}}, session=session
    )
    if not taken.modified_count:
        return False
    await accounts.update_one({"_id": payee}, {"$inc": {"balance": amount, "version": 1}}, session=session)
    return True


async def transaction_create(database: Any, session: Any, operation: Operation) -> bool:
    counter = await database["counters"].find_one_and_update(
        {"_id": "orders"}, {"$inc": {"value": 1}}, return_document=ReturnDocument.AFTER, session=session
    )
    await database["orders"].insert_one({"_id": counter["value"], "reference": operation[0]}, session=session)
    return True


async def transaction_reserve(database: Any, session: Any, operation: Operation) -> bool:
    item, quantity = operation
    found = await database["stock"].find_one({"_id": item}, session=session)
    if found["left_over"] < quantity:
        return False
    await database["stock"].update_one(
        {"_id": item}, {"$set": {"left_over": found["left_over"] - quantity}}, session=session
    )
    return True


async def atomic_reserve(database: Any, session: Any, operation: Operation) -> bool:
    item, quantity = operation
    changed = await database["stock"].update_one(
        {"_id": item, "left_over": {"$gte": quantity}}, {"$inc": {"left_over": -quantity}}
    )
    return bool(changed.modified_count)


METHODS: dict[tuple[str, str], Method] = {
    ("transaction", "hot-row"): transaction_credit,
    ("atomic", "hot-row"): atomic_credit,
    ("transaction", "transfer"): transaction_transfer,
    ("transaction", "create"): transaction_create,
    ("transaction", "reserve"): transaction_reserve,
    ("atomic", "reserve"): atomic_reserve,
}


class MongoClient:
    """One client with a pool; `concurrency` callers, each with a session of its own for transactions."""

    def __init__(self, spec: Spec) -> None:
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            spec.target, maxPoolSize=spec.concurrency, w="majority", journal=True, serverSelectionTimeoutMS=5000
        )
        self._database = self._client.get_default_database()
        self._concurrency = spec.concurrency
        name = spec.method.removeprefix("mongo-")
        self._is_transaction = name == "transaction"
        self._method = METHODS[name, spec.workload.kind]
        self.retries = 0

    async def open(self) -> None:
        await self._database.command("ping")

    def callers(self) -> Sequence[Caller]:
        if not self._is_transaction:
            return [self._call_atomic] * self._concurrency
        return [self._transaction_caller() for _ in range(self._concurrency)]

    async def close(self) -> None:
        await self._client.close()

    async def _call_atomic(self, operation: Operation) -> bool:
        return await self._method(self._database, None, operation)

    def _transaction_caller(self) -> Caller:
        session = self._client.start_session()

        async def call(operation: Operation) -> bool:
            for attempt in range(TRIES_MAX):
                try:
                    async with await session.start_transaction(
                        read_concern=ReadConcern("snapshot"), write_concern=_DURABLE
                    ):
                        return await self._method(self._database, session, operation)
                except PyMongoError as error:
                    # After an unknown commit a repetition would apply it twice: that is an error, not a retry.
                    if not error.has_error_label(_TRANSIENT) or error.has_error_label(_UNKNOWN_COMMIT):
                        raise
                    self.retries += 1
                    await asyncio.sleep(random.uniform(0, min(PAUSE_S_MAX, 0.001 * 2 ** min(attempt, 10))))
            raise RuntimeError(f"gave up after {TRIES_MAX} tries")

        return call
