"""A Redis that syncs later than it answers (`appendfsync everysec`, from 7.2 on): each confirm waits for WAITAOF."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.runtime.settings import BrokerSettings
from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.keys import commands_key
from tests.integration.test_redis_effects import RedisEffecting
from tests.support.effect_contract import EffectContract
from tests.support.redis_transport import RedisTransporting
from tests.support.transport_contract import WITHIN_S, TransportContract, command

SINCE = (7, 2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisBroker]:
    server = RedisBroker(tmp_path_factory.mktemp("redis-everysec"), options={"appendfsync": "everysec"})
    server.start()
    try:
        if tuple(map(int, server.version.split(".")[:2])) < SINCE:
            pytest.skip(f"Redis {server.version} has no WAITAOF: `make test-current` runs this on a newer one")
        yield server
    finally:
        server.stop()


class TestRedisThatSyncsLater(TransportContract):
    @pytest.fixture
    async def transporting(self, server: RedisBroker) -> AsyncIterator[RedisTransporting]:
        async with AsyncExitStack() as stack:
            yield RedisTransporting(server, stack)

    async def test_no_confirm_comes_before_the_disk_has_it(
        self, server: RedisBroker, transporting: RedisTransporting
    ) -> None:
        """Redis has the entry, and the confirm waits for all of its file to be synced."""
        async with asyncio.timeout(WITHIN_S):
            connection = await RedisConnection.open(transporting.broker, "test")
            assert connection.waits_for_sync
            confirmed_at_once = []
            for number in range(1, 4):
                publishing = asyncio.ensure_future(transporting.publish(command(number)))
                stream = commands_key(transporting.lane, is_system=False)
                while await connection.call("XLEN", stream) < number:  # noqa: ASYNC110  # Redis offers no event
                    await asyncio.sleep(0.001)
                confirmed_at_once.append(publishing.done())
                await publishing
            await connection.close()
        # Redis syncs once a second, and one of them may come just before.
        assert confirmed_at_once.count(True) <= 1


class TestEffectsOnARedisThatSyncsLater(EffectContract):
    within_s = 100.0  # each of many confirms may take a second

    @pytest.fixture
    async def effecting(self, server: RedisBroker) -> AsyncIterator[RedisEffecting]:
        async with AsyncExitStack() as stack:
            effecting = RedisEffecting(BrokerSettings(url=server.url), stack)
            await effecting.open()
            yield effecting
