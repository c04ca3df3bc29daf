"""A gateway that is opened: its databases, its connections to the broker, who may ask it, and its application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final, NoReturn

import structlog
from aiohttp import web
from msgspec import Struct

from coordinator.access.opening import asks_who_asks, open_authenticator, tables_for
from coordinator.access.settings import AccessSettings
from coordinator.client.api_keys import ApiKeysReader
from coordinator.client.database import close_database, is_replica, open_database, reading_problem
from coordinator.http.app import Gateway, ServedGateway, create_joint_app
from coordinator.http.database_part import CONNECTIONS
from coordinator.http.own_machine import ASKED_AS, asked_as
from coordinator.runtime.addresses import WITHOUT_SERVER, address_of, parse_address
from coordinator.runtime.settings import BrokerSettings, GatewaySettings, ReaderSettings, load
from coordinator.service.errors import BrokerUnavailable, ConfigurationError, DatabaseUnavailable
from coordinator.service.lane_names import settings_prefix, tenant_of
from coordinator.service.service import Service
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import ApiKey
from coordinator.transports.open import open_transport

FIRST_CONNECTION_WAIT_S: Final = 3.0
"""How long a gateway waits for the broker before it listens: a client that finds the port open finds writes taken, too.

It listens then in any case. What it can say of a broker that is away, and what it can read meanwhile, is of use.
"""

log = structlog.get_logger("gateway")


class OfProcess(Struct, frozen=True, kw_only=True):
    """What all gateways of a process have in common. `settings` are those of each; `host` is where it listens.

    `name` is the process's, and what it is called at the broker: an account has a right to the queues of this name.
    """

    name: str
    settings: GatewaySettings
    broker: BrokerSettings
    access: AccessSettings
    host: str
    shows_metrics: bool


class OpenGateway:
    """One gateway with its databases and its broker. It connects when its application starts."""

    def __init__(self, process: OfProcess, gateway: Gateway, services: Sequence[Service]) -> None:
        """`services` are those whose commands it takes. Raises ConfigurationError."""
        self.name = gateway.name
        self._gateway = gateway
        self._access = access = process.access
        settings = process.settings
        self._reader = reader = load(ReaderSettings, prefix=settings_prefix(gateway.name))
        self._served = served = _open(gateway, reader, settings)
        self._transport = open_transport(process.broker).commands(
            f"gateway.{process.name}",
            confirm_timeout_s=settings.confirm_timeout_s,
            wait_s=settings.wait_s,
            in_flight_max=settings.in_flight_max,
            # An outcome that was lost on its way is there at once.
            log=served.primary_log,
            is_system=gateway.is_system,
        )
        self.app = create_joint_app(
            gateway.name,
            [served],
            transport=self._transport,
            settings=settings,
            authenticator=open_authenticator(
                access, process.host, served.database, _keys_reader(gateway, reader, access), tenant_of(gateway.name)
            ),
            access_tables=tables_for(access),
            services=services,
            shows_metrics=process.shows_metrics,
        )
        if (asked := asked_as(access, process.host)) is not None:
            self.app[ASKED_AS] = asked
        self.app.cleanup_ctx.append(self._connected)

    async def check(self) -> None:
        """Raises ConfigurationError where a database answers, and refuses its reads or is another lane's."""
        tables, served = tables_for(self._access), self._served
        with address_of(self._reader.setting(self.name)):
            await _check_reads(served.asked, self._gateway, tables)
        if served.own_primary is not None:
            # Secrets and keys of another lane would count here.
            with address_of(f"{settings_prefix(self.name)}PRIMARY_URL"):
                await _check_reads(served.own_primary, self._gateway, tables)
        elif asks_who_asks(self._access):
            await _warn_of_replica(served.asked, self._reader.url(self.name), self.name)

    async def failed(self) -> NoReturn:
        """Raise what ends its connection to the broker for good."""
        await self._transport.failed()

    async def close(self) -> None:
        """Close its databases, once its application has ended."""
        for each in self._served.databases:
            await close_database(each)

    async def _connected(self, _app: web.Application) -> AsyncIterator[None]:
        await self._transport.start()
        try:
            with contextlib.suppress(BrokerUnavailable):
                await self._transport.wait_connected(FIRST_CONNECTION_WAIT_S)
            yield
        finally:
            await self._transport.close()


def _open(gateway: Gateway, reader: ReaderSettings, settings: GatewaySettings) -> ServedGateway:
    """A gateway with the databases that it reads. Raises ConfigurationError."""
    url, primary, own_primary = reader.url(gateway.name), None, None
    with address_of(reader.setting(gateway.name)):
        if reader.reader_url is None and parse_address(url).scheme not in WITHOUT_SERVER:
            warn_of_writing_role(gateway.name)
        database = open_database(url, settings.read_pool_max, lane=gateway.name)
        own_database = open_database(url, CONNECTIONS)
    if reader.primary_url is not None:
        with address_of(f"{settings_prefix(gateway.name)}PRIMARY_URL"):
            primary = open_database(reader.primary_url, settings.read_pool_max, must_lead=True, lane=gateway.name)
            own_primary = open_database(reader.primary_url, CONNECTIONS, must_lead=True)
    return ServedGateway(
        gateway=gateway,
        database=database,
        command_log=gateway.open_log(database),
        own_database=own_database,
        primary=primary,
        own_primary=own_primary,
    )


def _keys_reader(gateway: Gateway, reader: ReaderSettings, access: AccessSettings) -> ApiKeysReader | None:
    if ApiKey.table not in tables_for(access):
        return None
    url, leads = reader.primary_url or reader.url(gateway.name), reader.primary_url is not None
    return ApiKeysReader(url, must_lead=leads, lane=gateway.name)


def warn_of_writing_role(name: str) -> None:
    """Log that a gateway reads by the lane's address: as a role that may write."""
    log.warning(
        "reads_as_the_lane",
        service=name,
        setting=f"{settings_prefix(name)}READER_URL",
        what_to_do="set it to a role that cannot write: a gateway needs no more, and whoever takes it over has no more",
    )


async def _warn_of_replica(database: Database, url: str, lane: str) -> None:
    try:
        async with asyncio.timeout(FIRST_CONNECTION_WAIT_S):
            lags = await is_replica(database, url)
    except (TimeoutError, DatabaseUnavailable):
        return
    if lags:
        # A revoked key counts for as long as the replica lags.
        log.warning("secrets_read_from_replica", lane=lane, setting=f"{settings_prefix(lane)}PRIMARY_URL")


async def _check_reads(database: Database, gateway: Gateway, others: Sequence[str]) -> None:
    """Raises ConfigurationError that names what the server refuses; one that is away is waited for by readiness."""
    try:
        async with asyncio.timeout(FIRST_CONNECTION_WAIT_S):
            problem = await reading_problem(database, gateway.name, (*gateway.tables, *others))
    except (TimeoutError, DatabaseUnavailable):
        return
    if problem is not None:
        raise ConfigurationError(problem)
