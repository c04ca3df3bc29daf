"""A cache whose entries cannot be written costs the writes under way one lease, and says what is refused."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from structlog.testing import capture_logs

from coordinator.cache.connections import AsyncRedisScripts, RedisScripts
from coordinator.cache.projection import CacheProjection
from coordinator.cache.reader import RowCache
from coordinator.cache.redis_breaker import PAUSE_S_MAX
from coordinator.cache.rights import acl_rules, reader_acl_rules
from coordinator.runtime.cache_settings import CacheSettings
from shared.items.model import Item
from tests.support.cache_world import item
from tests.support.servers import Environment

USER = "entry_rights"
LEASE_KEY = "rights:lease"
LEASE_S = 2.0
RULES = ["reset", "on", f">{USER}", *acl_rules([LEASE_KEY, "right:*"]).split()]


class Lane:
    """Implements `LeaseProof`, for a lane whose time passes as it is told to wait."""

    epoch = 1

    def __init__(self, settings: CacheSettings) -> None:
        self.now_s = self.proved_at_s = 100.0
        self.sequence = 0
        self.projection = CacheProjection(
            RedisScripts(settings), Item, key, LEASE_KEY, lease_s=LEASE_S, ttl_s=60, elapsed_s=lambda: self.now_s
        )

    def prove(self) -> bool:
        self.proved_at_s = self.now_s
        return True

    def write(self) -> float:
        """How long the outcome waits."""
        self.sequence += 1
        began_at_s = self.proved_at_s = self.now_s
        while (wait_s := self.projection.committed(self, [item(1, self.sequence)], [])) > 0:
            self.now_s += wait_s
        return self.now_s - began_at_s

    def idle(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += self.projection.beat_s
            self.projection.beat(self)


def key(item_id: int | str) -> str:
    return f"right:{item_id}"


def allow(administrator: Any, rules: Sequence[str]) -> None:
    administrator.execute_command("ACL", "SETUSER", USER, *rules)


@pytest.fixture
def administrator(administrators: Environment) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(administrators["REDIS_URL"]) as client:
        client.delete(key(1), LEASE_KEY)
        allow(client, RULES)
        yield client
        client.acl_deluser(USER)
        client.delete(key(1), LEASE_KEY)


@pytest.fixture
def settings(administrators: Environment, administrator: redis.Redis) -> CacheSettings:
    del administrator
    parts = urlsplit(administrators["REDIS_URL"])
    url = urlunsplit(parts._replace(netloc=f"{USER}:{USER}@{parts.hostname}:{parts.port}"))
    # A machine that is busy is no outage.
    return CacheSettings(url=url, timeout_s=LEASE_S)


@pytest.fixture
def lane(settings: CacheSettings) -> Iterator[Lane]:
    lane = Lane(settings)
    yield lane
    lane.projection.close()


@pytest.fixture
async def reader(settings: CacheSettings) -> AsyncIterator[RowCache[Item]]:
    reader = RowCache(AsyncRedisScripts(settings), Item, key, LEASE_KEY, ttl_s=60)
    yield reader
    await reader.close()


@pytest.mark.parametrize(
    ("right", "named"),
    [("~right:*", "the key right:1"), ("+del", "del"), ("+hset", "hset"), ("+expire", "expire"), ("+hmget", "hmget")],
)
def test_a_right_that_is_missing_costs_one_lease_and_is_named(
    administrator: redis.Redis, lane: Lane, right: str, named: str
) -> None:
    assert lane.write() == 0
    allow(administrator, [rule for rule in RULES if rule != right])
    waits_s = []
    with capture_logs() as lines:
        for _ in range(8):
            waits_s.append(lane.write())
            lane.idle(1.0)
        lane.idle(60.0)
    assert 0 < sum(waits_s) <= LEASE_S
    assert any(named in line["error"] for line in lines if line["event"] == "cache_unavailable")
    assert [line for line in lines if line["event"] == "cache_lease_claimed"] == []
    allow(administrator, RULES)
    lane.idle(PAUSE_S_MAX)
    assert lane.write() == 0
    assert administrator.hget(key(1), "version") == str(lane.sequence).encode()


def test_a_strangers_key_in_the_place_of_an_entry_is_replaced(administrator: redis.Redis, lane: Lane) -> None:
    administrator.set(key(1), "a stranger's")
    assert lane.write() == 0
    assert administrator.hget(key(1), "version") == b"1"


async def test_a_reader_says_what_it_is_refused(administrator: redis.Redis, reader: RowCache[Item], lane: Lane) -> None:
    lane.write()
    assert await reader.get(1) is not None
    assert await reader.problem() is None
    for right, named in (("+del", "del"), ("~right:*", "key right:1")):
        allow(administrator, [rule for rule in RULES if rule != right])
        assert named in str(await reader.problem())


async def test_a_gateway_s_user_reads_the_lease_and_cannot_write_it(
    administrator: redis.Redis, settings: CacheSettings, reader: RowCache[Item], lane: Lane
) -> None:
    """Whoever has a gateway's password makes no lane wait for a lease, and has no reader believe what is old."""
    lane.write()
    administrator.delete(key(1))
    allow(administrator, ["reset", "on", f">{USER}", *reader_acl_rules([LEASE_KEY, "right:*"]).split()])
    found = await reader.get(1)
    assert found is not None
    assert found.ticket is not None
    assert await reader.fill(item(1, 1), found.ticket)
    assert await reader.shows(1)
    assert await reader.problem() is None
    kept = administrator.hgetall(LEASE_KEY)
    given: Any = redis.Redis.from_url(settings.url)
    with given as client:
        script = client.script_load(f"return redis.call('HSET', '{LEASE_KEY}', 'until', '0')")
        attempts: list[Callable[[], object]] = [
            lambda: client.hset(LEASE_KEY, "until", "0"),
            lambda: client.delete(LEASE_KEY),
            lambda: client.expire(LEASE_KEY, 0),
            lambda: client.evalsha(script, 0),
            lambda: client.evalsha(script, 1, LEASE_KEY),
        ]
        for attempt in attempts:
            with pytest.raises(redis.ResponseError):
                attempt()
    assert administrator.hgetall(LEASE_KEY) == kept


async def test_a_reader_replaces_a_strangers_key(
    administrator: redis.Redis, reader: RowCache[Item], lane: Lane
) -> None:
    lane.write()
    administrator.delete(key(1))
    administrator.set(key(1), "a stranger's")
    found = await reader.get(1)
    assert found is not None
    assert found.ticket is not None
    assert await reader.fill(item(1, 1), found.ticket)
