"""A gateway in a test: with its lane, in the test's own process, on an SQLite file."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from coordinator.access.authenticator import BEARER, NotAuthentic
from coordinator.client.database import close_database, open_database
from coordinator.http.app import Gateway, create_app
from coordinator.migrations.migrate import migrate
from coordinator.runtime.settings import DatabaseSettings, GatewaySettings
from coordinator.service.commands import Command
from coordinator.service.effect_defects import opened_effects
from coordinator.service.outside_calls import Call, Effect, EffectHandler, EffectRetry
from coordinator.service.principal import Principal
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.open import open_store
from coordinator.testing.lane import LaneUnderTest
from coordinator.worker.inprocess import InProcessWrites


@asynccontextmanager
async def served(
    gateway: Gateway,
    service: Service,
    folder: Path,
    *,
    given: Sequence[Row] = (),
    actors: Mapping[str, Principal] | None = None,
) -> AsyncIterator[web.Application]:
    """The application of a gateway, for aiohttp's `TestClient(TestServer(app))`, and a lane that applies its commands.

    The database is a new file in this folder, such as pytest's `tmp_path`, and has the rows that are `given`. With
    `actors` the gateway asks who asks, and these are its credentials: `Authorization: Bearer ada` is the principal
    under the name `ada`. Without them it lets everybody in, and knows nobody. Calls to the outside are not made.

    Raises ConfigurationError for a service or a gateway that is declared wrongly, and FileExistsError where the folder
    has such a file already.
    """
    silent = service if service.effects is None else service.replace(effects=lambda: _Silent(service))
    path = folder / f"{service.lane}.db"
    if path.exists():
        raise FileExistsError(f"{path} is there already: give each test a folder of its own, such as tmp_path")
    url = f"sqlite:///{path}"
    migrate(service, DatabaseSettings(database_url=url))
    if given:
        with closing(open_store(url, silent)) as store:
            LaneUnderTest(silent, store).given(*given)
    database = open_database(url)
    try:
        async with InProcessWrites({service.lane: open_store(url, silent)}, [silent]) as writes:
            yield create_app(
                gateway,
                transport=writes,
                database=database,
                command_log=gateway.open_log(database),
                settings=GatewaySettings(),
                authenticator=None if actors is None else _ByName(actors),
                services=[service],
            )
    finally:
        await close_database(database)


class _ByName:
    """Implements `Authenticator`: a credential is the name of a principal."""

    knows_anybody = True

    def __init__(self, actors: Mapping[str, Principal]) -> None:
        self._actors = actors

    def known(self, authorization: str, /) -> Principal | None:
        return self._actors.get(authorization.removeprefix(BEARER))

    async def principal_of(self, credential: str) -> Principal:  # noqa: ARG002
        raise NotAuthentic(f"no actor of this test is named so: there are {', '.join(self._actors) or 'none'}")

    async def problem(self) -> str | None:
        return None

    async def start(self) -> None:
        """Nothing to fetch."""

    async def close(self) -> None:
        """Nothing to stop."""


class _Silent:
    """Implements `Effects`: knows the effects of a service, and makes none of its calls."""

    def __init__(self, service: Service) -> None:
        self._theirs = opened_effects(service)
        silent: list[EffectHandler[Any]] = [
            msgspec.structs.replace(each, perform=_call_nobody) for each in self._theirs.handlers
        ]
        self.handlers = tuple(silent)

    async def close(self) -> None:
        await self._theirs.close()


async def _call_nobody(effect: Effect, call: Call) -> Command:  # noqa: ARG001
    raise EffectRetry("a test makes no calls to the outside")
