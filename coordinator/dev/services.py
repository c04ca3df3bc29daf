"""What a service wants of a developer's machine: what its application declares for `coordinator dev`.

An application names a declaration for each of its services that wants other than the defaults (`App.dev`):

    ORDERS = DevService(database="mysql", cache="redis", gateway_port=8090, metrics_port=9190)
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from msgspec import Struct

DatabaseKind: TypeAlias = Literal["postgresql", "mysql", "mongodb"]
"""The scheme of a database's address."""


class Place(Struct, frozen=True, kw_only=True):
    """Where a helper runs, and beside what."""

    port: int
    url: str
    """Its own address, without a path."""
    directory: Path
    """Its own, to keep data in. It makes it."""
    gateway_url: str
    """Of the service that declares it; empty if that has no gateway."""
    given: Mapping[str, str]
    """The environment in which `coordinator dev` was started."""


class Helper(Struct, frozen=True, kw_only=True):
    """A process that a service needs beside it, such as a stand-in for a system outside. It speaks HTTP.

    `port` is its default; DEV_<NAME>_PORT is the setting. It is ready when `ready_path` answers 200. `command` is its
    command line, and `settings` what all processes get from it; both are for where it runs. It is not started where
    `is_wanted` says so of the environment in which `coordinator dev` was started.
    """

    name: str
    title: str
    port: int
    command: Callable[[Place], Sequence[str]]
    settings: Callable[[Place], Mapping[str, str]]
    is_wanted: Callable[[Mapping[str, str]], bool] = lambda _: True
    ready_path: str = "/readyz"
    shown_path: str = ""
    """What a person may look at."""


class DevService(Struct, frozen=True, kw_only=True):
    """One service's wishes. A port that is not given is the next one that no service has asked for.

    `secrets` are settings whose values are made up at the first run and kept, unless the environment has them.
    """

    database: DatabaseKind = "postgresql"
    cache: Literal["redis"] | None = None
    gateway_port: int | None = None
    metrics_port: int | None = None
    effects_port: int | None = None
    helpers: tuple[Helper, ...] = ()
    secrets: tuple[str, ...] = ()
