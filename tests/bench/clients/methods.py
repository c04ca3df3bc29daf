"""Methods by their names. Each is imported when it is used: some need packages that only the benchmark installs."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from tests.bench.clients.load import Client
from tests.bench.clients.spec import Spec, Window
from tests.bench.measurement import ClientResult

_CLIENTS = {
    "lane": "lane_writes:LaneClient",
    "pg-redis-lock": "redis_lock:RedisLockClient",
    "pg-batching": "batching:BatchingClient",
    "pg-": "postgresql:PostgresClient",
    "my-": "mariadb:MariadbClient",
    "mongo-": "mongodb:MongoClient",
}
_BLOCKING = {
    "pgbench": "pgbench:run",
    "http": "http:run",
    "queue": "queued:run",
    "lane-alone": "ceiling:run_lane",
    "ceiling": "ceiling:run_ceiling",
}

Blocking = Callable[[Spec, Callable[[], Window]], ClientResult]
"""Runs by itself; the function given says that it is ready, and returns when it may start."""


def client_of(spec: Spec) -> Client:
    """The client for a method with asyncio callers."""
    name = next(prefix for prefix in _CLIENTS if spec.method.startswith(prefix))
    client: Client = _imported(_CLIENTS[name])(spec)
    return client


def blocking(method: str) -> Blocking | None:
    """The function of a method that brings its own loop; None for the others."""
    name = next((name for name in _BLOCKING if method == name or method.startswith(f"{name}:")), None)
    found: Blocking | None = None if name is None else _imported(_BLOCKING[name])
    return found


def _imported(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"tests.bench.clients.{module}"), name)
    return found
