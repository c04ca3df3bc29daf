"""Databases of a test's own on the session's servers."""

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pymongo
from sqlalchemy import text, update
from sqlalchemy.engine import Engine

from coordinator.runtime.addresses import parse_address, scheme_of
from coordinator.stores.kinds import kind_of
from coordinator.stores.lane_tables import metadata
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.sql.kind import SqlKind
from tests.support.servers import Environment

_numbers = itertools.count(1)


class FreshDatabases:
    """Creates databases beside the configured ones, and drops those of SQL in the end."""

    def __init__(self, environment: Environment, administrators: Environment) -> None:
        self._environment = environment
        self._administrators = administrators
        self._drops: list[Callable[[], None]] = []

    def environments(self) -> tuple[Environment, Environment]:
        """The settings with databases of the test's own for every service, and their owners'; not migrated yet."""
        names = {service: self._new_name(service.lower()) for service in ("USERS", "ITEMS", "PAYMENTS")}
        environment, administrators = dict(self._environment), dict(self._administrators)
        _at_once([partial(self._create, administrators[f"{each}_DATABASE_URL"], name) for each, name in names.items()])
        for service, name in names.items():
            for setting in (f"{service}_DATABASE_URL", f"{service}_READER_URL"):
                environment[setting] = _with_name(environment[setting], name)
                administrators[setting] = _with_name(administrators[setting], name)
        return environment, administrators

    def new(self, setting: str) -> str:
        """The owner's address of an empty database on the server of a setting, such as `USERS_DATABASE_URL`."""
        url = self._administrators[setting]
        name = self._new_name("test")
        self._create(url, name)
        return _with_name(url, name)

    def drop(self) -> None:
        _at_once(self._drops)

    def _new_name(self, prefix: str) -> str:
        return f"{prefix}_{os.getpid()}_{next(_numbers)}"

    def _create(self, url: str, name: str) -> None:
        if scheme_of(url) == "mongodb":
            # It makes itself, and is not dropped: with thousands of documents that takes the stand-in for MongoDB
            # seconds. The server is the session's own, and goes with all that is in it.
            return
        _run(url, f"CREATE DATABASE {name}")
        force = " WITH (FORCE)" if scheme_of(url) == "postgresql" else ""
        self._drops.append(partial(_run, url, f"DROP DATABASE {name}{force}"))


def _at_once(steps: Sequence[Callable[[], object]]) -> None:
    """Each server syncs its disk meanwhile. Raises what the first step raises."""
    if steps:
        with ThreadPoolExecutor(len(steps)) as threads:
            for done in [threads.submit(step) for step in steps]:
                done.result()


def sql_engine(url: str, **options: Any) -> Engine:
    """A plain connection for a test's own looks into a database."""
    address = parse_address(url)
    kind = kind_of(address)
    assert isinstance(kind, SqlKind)
    kind.dialect.make(address)
    return kind.dialect.engine(address, isolation_level="AUTOCOMMIT", **options)


def give_to(url: str, lane: str) -> None:
    """Make a lane's database that of another lane, as if its address led there."""
    address = parse_address(url)
    if address.scheme == "mongodb":
        with pymongo.MongoClient[Any](url) as client:
            leases = client.get_default_database()[LEASE_TABLE]
            lease: dict[str, Any] = leases.find_one_and_delete({}) or {}
            leases.insert_one(lease | {"_id": lane})
        return
    engine = sql_engine(url)
    with engine.connect() as connection:
        connection.execute(update(metadata.tables[LEASE_TABLE]).values(lane=lane))
    engine.dispose()


def numbers_to(last: int, *, is_postgresql: bool) -> str:
    """A table `numbers` of 1, 2, … `last`, in column n, as PostgreSQL, or MySQL and MariaDB, can make it."""
    if is_postgresql:
        return f"(SELECT n FROM generate_series(1, {last}) AS n) AS numbers"
    digits = f"(SELECT 0 AS n {' '.join(f'UNION ALL SELECT {n}' for n in range(1, 10))})"
    places = range(len(str(last)))
    number = " + ".join(f"{10**place} * d{place}.n" for place in places)
    tables = ", ".join(f"{digits} AS d{place}" for place in places)
    return f"(SELECT 1 + {number} AS n FROM {tables} WHERE {number} < {last}) AS numbers"


def _with_name(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _run(url: str, statement: str) -> None:
    engine = sql_engine(url)
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
