"""The servers and processes that a service wants on a developer's machine, as declared for `coordinator dev`.

An application names a declaration for each of its services that needs more than the defaults (`App.dev`):

    ORDERS = DevService(database="mysql", cache="redis", gateway_port=8090, metrics_port=9190)
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from aiohttp.web import Application

DatabaseKind: TypeAlias = Literal["postgresql", "mysql", "mongodb"]
"""The scheme of a database's address."""
BrokerKind: TypeAlias = Literal["rabbitmq", "redis"]
"""What carries the commands of all services."""


class Place(Struct, frozen=True, kw_only=True):
    """The surroundings of a helper: its address, its directory, its service's gateway, its environment."""

    port: int
    url: str
    """Its own address, without a path."""
    directory: Path
    """Its own directory for data. The helper creates it."""
    gateway_url: str
    """The gateway of the service that declares it; empty if there is none."""
    given: Mapping[str, str]
    """The environment in which `coordinator dev` was started."""


class Helper(Struct, frozen=True, kw_only=True):
    """What a service needs beside it, such as a stand-in for a system outside: a process that speaks HTTP.

    `port` is the default of the setting DEV_<NAME>_PORT. It is ready when `ready_path` answers 200. From its
    surroundings `command` makes its command line, and `settings` the settings that all processes get from it, or
    raises ConfigurationError, before anything is started, where the environment contradicts them. It is started only if
    `is_wanted` is true of the environment in which `coordinator dev` was started.

    `application` makes the same as an application of aiohttp, for a run in one process: it is called, and served, in a
    thread of its own. Without one the service cannot be run so.
    """

    name: str
    title: str
    port: int
    command: Callable[[Place], Sequence[str]]
    settings: Callable[[Place], Mapping[str, str]]
    is_wanted: Callable[[Mapping[str, str]], bool] = lambda _: True
    application: "Callable[[Place], Application] | None" = None
    ready_path: str = "/readyz"
    shown_path: str = ""
    """The address that the user may open."""


class DevService(Struct, frozen=True, kw_only=True):
    """The wishes of one service. Without a given port it gets the next one that no service has asked for.

    `cache_keys` are patterns of the keys that it has in the cache: the cache's user may touch no others.
    `secrets` are settings whose values are made up at the first run and kept, unless the environment has them.
    """

    database: DatabaseKind = "postgresql"
    cache: Literal["redis"] | None = None
    cache_keys: tuple[str, ...] = ("*",)
    gateway_port: int | None = None
    metrics_port: int | None = None
    effects_port: int | None = None
    helpers: tuple[Helper, ...] = ()
    secrets: tuple[str, ...] = ()
