"""compose.redis.yaml: the system on Redis streams, and what the broker has confirmed outlives its process."""

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest

from tests.compose.composed import Composed
from tests.compose.conftest import headers_of, running
from tests.compose.user import User
from tests.support.compose_overlays import REDIS_FILE

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

STOCK = 10


@pytest.fixture(scope="module")
def on_redis() -> Iterator[Composed]:
    """Up and healthy, by itself."""
    on_redis = Composed(REDIS_FILE)
    on_redis.project = "write-coordinator-tests-redis"
    with running(on_redis):
        yield on_redis


async def test_purchases_go_on_after_the_broker_was_killed(on_redis: Composed) -> None:
    headers = await asyncio.to_thread(headers_of, on_redis)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), headers=headers) as session:
        user = User(on_redis, session)
        await user.register("redis@example.org")
        item_id = await user.offer("7A", STOCK)
        assert (await user.buy(item_id, "before"))["status"] == "completed"
        buying = asyncio.create_task(user.buy(item_id, "meanwhile"))
        await asyncio.to_thread(on_redis.compose, "kill", "broker")
        await asyncio.to_thread(on_redis.up)
        assert (await buying)["status"] == "completed"
        active = await asyncio.to_thread(on_redis.active, "users")
        await asyncio.to_thread(on_redis.kill, active)
        assert (await user.buy(item_id, "after"))["status"] == "completed"
        assert await user.stock(item_id) == STOCK - 3
