"""A connection of an operator to a Redis that carries commands: it tells the lengths of queues, and keeps marks."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import redis
import redis.backoff
import redis.retry

from coordinator.lane.high_water import Mark, decode_mark
from coordinator.operate.queue_depth import EffectsDepth, QueueDepth
from coordinator.runtime.settings import BrokerSettings, broker_setting
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.service.outside_calls import effects_key
from coordinator.transports.redis.driver_arguments import redis_address
from coordinator.transports.redis.effects.scripts import GROUP
from coordinator.transports.redis.keys import (
    commands_key,
    counter_key,
    kept_key,
    later_key,
    lease_key,
    system_stream_key,
    worker_key,
)


class RedisQueues:
    """One connection. Its methods raise BrokerUnavailable if it is lost, or Redis refuses."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client

    def lane_depth(self, lane: str) -> QueueDepth | None:
        """What waits for a lane, as its consumer said a moment ago; None: no coordinator of it has run."""
        if not self._client.exists(counter_key(lane)):
            return None
        entries = sum(self._number("XLEN", commands_key(lane, is_system=is_system)) for is_system in (False, True))
        has_consumer = bool(self._client.exists(lease_key(lane)))
        held = int(self._client.hget(kept_key(lane), "unsettled") or 0) if has_consumer else 0
        return QueueDepth(ready=max(0, entries - held), consumers=int(has_consumer))

    def dead_depth(self, key: str) -> QueueDepth | None:  # noqa: ARG002  # as every broker's
        """Redis dead-letters nothing."""
        return None

    def effects_depth(self, service: str) -> EffectsDepth | None:
        """A service's calls to the outside that wait, also for another attempt; None: it has no queue for them."""
        key = effects_key(service)
        if not self._client.exists(counter_key(key)):
            return None
        waiting = self._number("XLEN", system_stream_key(key)) + self._number("ZCARD", later_key(service))
        try:
            workers, held = self._living_workers(service)
        except redis.exceptions.NoPermissionError:
            # By an account that `broker-accounts` of an earlier release has made.
            workers, held = self._known_workers(service)
        return EffectsDepth(waiting=max(0, waiting - held), consumers=workers)

    def _living_workers(self, service: str) -> tuple[int, int]:
        """How many workers live, and how many effects they have. Redis keeps one that is dead, with what it had, until
        another worker claims that: it waits."""
        found: Any = self._asked_of_workers(self._client.xinfo_consumers, service, GROUP)
        living = [each for each in found if self._client.exists(worker_key(service, each["name"].decode()))]
        return len(living), sum(each["pending"] for each in living)

    def _known_workers(self, service: str) -> tuple[int, int]:
        """The same with the dead ones."""
        found: Any = self._asked_of_workers(self._client.xinfo_groups, service)
        ours = [each for each in found if each["name"] == GROUP.encode()]
        return sum(each["consumers"] for each in ours), sum(each["pending"] for each in ours)

    def _asked_of_workers(self, ask: Callable[..., Any], service: str, *more: str) -> Any:
        try:
            return ask(system_stream_key(effects_key(service)), *more)
        except redis.exceptions.NoPermissionError:
            raise
        except redis.ResponseError:
            # No worker has run yet, nor has an effect been emitted.
            return []

    def mark(self, lane: str) -> Mark | None:
        """How far a lane has come, as its coordinators keep it; None: they have kept none that can be read."""
        found: Any = self._client.hget(kept_key(lane), "mark")
        try:
            return None if found is None else decode_mark(found)
        except ValueError:
            return None

    def _number(self, *words: str) -> int:
        return int(self._client.execute_command(*words))  # type: ignore[no-untyped-call]


class _WholeAnswers:
    """A socket from which nothing is read any more when the answer to what was sent last has had its time. The socket's
    own timeout is for each part of it, and a server may send it byte by byte."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._until_s = monotonic() + timeout_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def sendall(self, sent: Any) -> None:
        self._connection.sendall(sent)
        self._until_s = monotonic() + self._timeout_s

    def recv(self, size: int) -> bytes:
        self._check()
        return self._connection.recv(size)

    def recv_into(self, buffer: Any) -> int:
        self._check()
        return self._connection.recv_into(buffer)

    def _check(self) -> None:
        if monotonic() > self._until_s:
            raise TimeoutError(f"its answer takes longer than {self._timeout_s:g} s")


class _Bounded:
    """What makes the driver's connections so."""

    answer_s: float

    def _connect(self) -> Any:
        return _WholeAnswers(super()._connect(), self.answer_s)  # type: ignore[misc]  # of the driver's class beside it


def _bounded(client: "redis.Redis", answer_s: float) -> "redis.Redis":
    """The client, for each of whose connections an answer takes no longer than that, and as long for its last part."""
    pool: Any = client.connection_pool
    plain = pool.connection_class
    pool.connection_class = type(plain.__name__, (_Bounded, plain), {"answer_s": answer_s})
    return client


@contextmanager
def connected_to_redis(settings: BrokerSettings) -> Iterator[RedisQueues]:
    """Connect. Raises BrokerUnavailable, ConfigurationError."""
    address = redis_address(settings)
    given: dict[str, Any] = {key: value for key, value in address.arguments.items() if value is not None}
    timeouts: dict[str, Any] = {
        "socket_timeout": settings.connect_timeout_s,
        "socket_connect_timeout": settings.connect_timeout_s,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
    }
    try:
        if address.master is None:
            host = address.hosts[0]
            unbounded = redis.Redis(host=host.name, port=host.port or 0, **given, **timeouts)
        else:
            from redis.sentinel import Sentinel  # noqa: PLC0415  # few have them

            of_sentinels = {key: value for key, value in address.sentinel_arguments.items() if value is not None}
            sentinels = [(each.name, each.port) for each in address.hosts]
            kind: Any = Sentinel
            found = kind(sentinels, sentinel_kwargs={**timeouts, **of_sentinels}, **given, **timeouts)
            for sentinel in found.sentinels:
                _bounded(sentinel, settings.connect_timeout_s)
            unbounded = found.master_for(address.master)
        with _bounded(unbounded, settings.connect_timeout_s) as client:
            yield RedisQueues(client)
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise ConfigurationError(
            f"{broker_setting('BROKER_URL')}: Redis at {address} refuses this user: {error}"
        ) from error
    except redis.RedisError as error:
        raise BrokerUnavailable(f"Redis at {address}: {error}") from error
