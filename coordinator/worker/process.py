"""The coordinator process: one lane of one database, as its active consumer or as a standby.

Three threads do the work: this one, with signals and the health endpoint; the transport's I/O
(coordinator/transports); and the lane. Others wait: for the lane to end, and for the databases of the tasks beside it.
Several lanes in one process are in `lanes_together.py`.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import structlog

from coordinator.client.publish_spans import messaging
from coordinator.lane.lane import Lane
from coordinator.registry import registry
from coordinator.runtime.addresses import WITHOUT_SERVER, address_of, parse_address
from coordinator.runtime.awaited import Awaited
from coordinator.runtime.cache_settings import check_cache_is_shared
from coordinator.runtime.clock import utc_now
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.fit import check_fit
from coordinator.runtime.garbage import spare_the_long_lived
from coordinator.runtime.health import HealthEndpoint, Readiness
from coordinator.runtime.late_answers import LateAnswers
from coordinator.runtime.loading import check_all
from coordinator.runtime.misspelt import warn_of_unknown
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.runtime.settings import BrokerSettings, DatabaseSettings, LaneSettings, TelemetrySettings, load
from coordinator.runtime.stopping import stop_at_signals
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.lane_names import settings_prefix
from coordinator.service.service import Service
from coordinator.stores.open import open_admin, open_store
from coordinator.stores.port import Store, StoreError, StoreUnavailable, trouble_of
from coordinator.stores.sqlite.file import check_lasts, file_of
from coordinator.stores.watched import CALLS, WatchedStore
from coordinator.transports.inbox import Inbox
from coordinator.transports.open import open_transport
from coordinator.worker.accepted_check import check_nothing_waits
from coordinator.worker.database_check import MoveUnfinished, check_database
from coordinator.worker.database_watch import DatabaseWatch
from coordinator.worker.declaration_check import warn_of_mistakes, warn_of_unbelieved_gateways
from coordinator.worker.holder import holder_name
from coordinator.worker.lane_spans import awaited_of_lane, database_attributes
from coordinator.worker.lane_thread import LaneThread
from coordinator.worker.last_place import last_place
from coordinator.worker.lock_watch import LockWatch
from coordinator.worker.observed import what_to_check
from coordinator.worker.outbox_watch import OutboxWatch
from coordinator.worker.retention import Retention

log = structlog.get_logger("coordinator")


class CoordinatorProcess:
    """One lane with all that runs beside it, wired together."""

    def __init__(
        self, service: Service, *, is_watched: bool, stop_hard: Callable[[], object] = lambda: os._exit(1)
    ) -> None:
        """`is_watched`: somebody reads its metrics. Raises ConfigurationError.

        `stop_hard` is called where its threads do not end in time; nothing is lost by that.
        """
        own = settings_prefix(service.lane)
        check_all((DatabaseSettings, own), (BrokerSettings, None), (LaneSettings, None), (TelemetrySettings, None))
        database = load(DatabaseSettings, prefix=own)
        self._broker = load(BrokerSettings)
        self._settings = load(LaneSettings)
        check_fit(self._broker, self._settings)
        check_cache_is_shared()
        warn_of_mistakes(service)
        if self._broker.is_rabbitmq:
            warn_of_unbelieved_gateways(service, self._settings.accounts)
        self._service = service
        self._stop_hard = stop_hard
        awaited, watch_awaited = awaited_of_lane(), Awaited()
        with address_of(f"{settings_prefix(service.lane)}DATABASE_URL"):
            address = parse_address(database.database_url)
            self._file: Path | None = None
            if address.scheme in WITHOUT_SERVER:
                check_lasts(address.database)
                self._file = Path(file_of(address.database))
            self._where = dict(database_attributes(address))
            self._place = ", ".join(map(str, address.hosts))
            needs_standby = self._settings.require_sync_standby
            opened = partial(open_store, database.database_url, service, needs_standby=needs_standby)
            store = opened()
        self._store: Store = WatchedStore(store, awaited)
        self._lock_watch = LockWatch(service.lane, store, awaited)
        self._projection = service.projection() if service.projection is not None else None
        self._inbox = Inbox()
        self._open_admin = partial(open_admin, database.database_url, service.lane)
        holder = holder_name("coordinator", service.lane)
        lane = Lane(service, self._store, utc_now, holder, self._settings, time.monotonic, registry().targets(service))
        self._transport = open_transport(self._broker).lane(
            service.lane,
            self._inbox,
            self._settings,
            holder=holder,
            has_effects=service.effects is not None,
            last_place=lambda: last_place(self._open_admin),
        )
        about = dict.fromkeys(CALLS, self._where | {"what_to_do": what_to_check(service.lane)})
        self._late = LateAnswers(("lane", service.lane), [awaited, watch_awaited, self._transport], about)
        self._watch = OutboxWatch(
            service.lane,
            WatchedStore(opened(), watch_awaited),
            self._transport.wake,
            self._settings.outbox_watch_s,
        )
        self._retention = Retention(
            service.lane,
            self._open_admin,
            lambda: lane.lease,
            self._settings,
        )
        # Nobody counts for a process that nobody asks.
        self._database_watch = DatabaseWatch(service.lane, self._open_admin, counts=is_watched)
        self._lane_thread = LaneThread(
            service.lane,
            lane,
            self._inbox,
            self._transport,
            self._projection,
            self._settings,
            awaited,
            database=database_attributes(address),
            messaging=messaging(is_rabbitmq=self._broker.is_rabbitmq),
        )
        self._thread = threading.Thread(target=self._run_lane, name=f"lane {service.lane}", daemon=True)
        self.is_stuck = False
        """It has ended, and threads of it have not."""
        self._failure: Exception | None = None
        self._database_reason: str | None = None

    async def serve(self, stop: asyncio.Event) -> int:
        """Run until `stop` is set, or the lane ends by itself; return the exit status. Raises ConfigurationError."""
        telling = asyncio.create_task(self._late.run(), name=f"late answers of {self._service.lane}")
        asking = asyncio.create_task(self._lock_watch.run(), name=f"lock watch of {self._service.lane}")
        try:
            if await self._wait_for_database(stop):
                self._transport.start(self._lane_thread.confirm_emitted)
                spare_the_long_lived()
                self._thread.start()
                ended = asyncio.create_task(asyncio.to_thread(self._thread.join))
                stopping = asyncio.create_task(stop.wait())
                watching = asyncio.create_task(self._watch.run(), name=f"outbox watch of {self._service.lane}")
                retaining = asyncio.create_task(self._retention.run(), name=f"retention of {self._service.lane}")
                looking = asyncio.create_task(
                    self._database_watch.run(), name=f"database watch of {self._service.lane}"
                )
                await asyncio.wait({ended, stopping, watching, retaining}, return_when=asyncio.FIRST_COMPLETED)
                await end_tasks(stopping, watching, retaining, looking)
                self._note_end("outbox_watch_failed", watching)
                self._note_end("retention_failed", retaining)
                if not stop.is_set():
                    reason = self._failure or self._transport.failure
                    log.error("stopping", lane=self._service.lane, reason=f"{type(reason).__name__}: {reason}")
                return await self._shut_down(expected=stop.is_set())
            return 0
        finally:
            await end_tasks(telling, asking)
            if not self._thread.is_alive() and not self.is_stuck:
                self._store.close()

    def _note_end(self, event: str, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._failed(event, error)

    def _run_lane(self) -> None:
        structlog.contextvars.bind_contextvars(lane=self._service.lane)
        try:
            self._lane_thread.run()
        except Exception as error:  # noqa: BLE001  # it ends the process
            self._failed("lane_failed", error)

    def _failed(self, event: str, error: Exception) -> None:
        """A task ended that must run for ever: end the process, which logs a wrong configuration in one line."""
        if not isinstance(error, ConfigurationError):
            log.error(event, lane=self._service.lane, exc_info=error)
        self._failure = self._failure or error

    async def _wait_for_database(self, stop: asyncio.Event) -> bool:
        """Check the schema once the database answers. False: stopped before it did.

        Raises ConfigurationError, also where the database answers that it does not know this user, password or name.
        """
        delay_s, line = self._settings.retry_delay_s, RepeatedLine()
        while not stop.is_set():
            try:
                if not await self._is_checked(stop):
                    return False
            except StoreError as error:
                if isinstance(error, MoveUnfinished):
                    # The lane waits for nobody else then.
                    delay_s = self._settings.retry_delay_s
                self._database_reason = str(error)
                if line.is_due(self._database_reason, time.monotonic()):
                    self._say_away(error, {"reason": str(error), "retry_s": delay_s})
            else:
                self._database_reason = None
                return True
            try:
                async with asyncio.timeout(delay_s):
                    await stop.wait()
            except TimeoutError:
                delay_s = min(delay_s * 2, self._settings.retry_delay_s_max)
        return False

    async def _is_checked(self, stop: asyncio.Event) -> bool:
        """Check the database; False: stopped meanwhile, and it does not answer. Raises StoreError and
        ConfigurationError."""
        checking, stopping = asyncio.create_task(self._check_database()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({checking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not checking.done():
                await asyncio.wait({checking}, timeout=self._settings.stop_timeout_s)
            if checking.done():
                await checking
                return True
        finally:
            await end_tasks(checking, stopping)
        # The call is in a thread, for which Python would wait.
        self._end_hard()
        return False

    async def _check_database(self) -> None:
        await check_database(self._store, self._service, self._settings)
        if self._file is not None:
            await asyncio.to_thread(self._check_nothing_waits, self._file)

    def _check_nothing_waits(self, file: Path) -> None:
        """Raises StoreError and ConfigurationError."""
        try:
            with closing(self._open_admin()) as admin:
                check_nothing_waits(file, admin)
        except Unavailable as error:
            raise StoreUnavailable(str(error)) from error

    def _say_away(self, error: StoreError, about: dict[str, object]) -> None:
        about |= self._where | {"lane": self._service.lane}
        if isinstance(error, MoveUnfinished):
            # As it is wanted, where it was started before the switch.
            log.warning("lane_awaits_move", **about)
        else:
            advice = what_to_check(self._service.lane, trouble_of(error))
            log.error("database_unavailable", what_to_do=advice, **about)

    async def _shut_down(self, *, expected: bool) -> int:
        """Finish the batch in flight, carry out its settlement, and drop the connections."""
        timeout_s = self._settings.stop_timeout_s
        self._inbox.close()
        await asyncio.to_thread(self._thread.join, timeout_s)
        is_drained = await asyncio.to_thread(self._transport.stop, timeout_s)
        if self._projection is not None:
            self._projection.close()
        failure = self._failure or self._transport.failure
        self.is_stuck = self._thread.is_alive() or not is_drained
        if isinstance(failure, ConfigurationError):
            raise failure
        if self.is_stuck:
            self._end_hard()
            return 1
        log.info("stopped", lane=self._service.lane)
        return 0 if expected and failure is None else 1

    def _end_hard(self) -> None:
        """Threads of it have not ended.

        Nothing is lost: unacknowledged commands are delivered again, and committed ones are in the log.
        """
        self.is_stuck = True
        log.error("stopped_hard", lane=self._service.lane, after_s=self._settings.stop_timeout_s)
        self._stop_hard()

    def readiness(self) -> Readiness:
        """Ready: consuming (or standing by), able to publish, not suspended because of the database, and not stuck."""
        late = self._late.late
        reason = (
            self._database_reason or self._lane_thread.suspended_reason or self._transport.unready_reason
            if late is None
            else str(late)
        )
        is_of_database = (
            late.what in CALLS if late is not None else self._database_reason or self._lane_thread.awaits_database
        )
        if reason is not None and is_of_database and self._place:
            # Drivers do not all say where.
            setting = f"{settings_prefix(self._service.lane)}DATABASE_URL"
            reason = f"{reason} (the database at {self._place}, by {setting})"
        said = "; ".join(filter(None, (self._lane_thread.said, self._database_watch.said)))
        return Readiness(reason is None, reason or said or None)


def run(service: Service, metrics_port: int | None) -> int:
    """Run a coordinator for one service until SIGTERM, SIGINT or SIGHUP; return the exit status.

    Raises ConfigurationError.
    """
    lane = CoordinatorProcess(service, is_watched=metrics_port is not None)
    warn_of_unknown(load(BrokerSettings), load(LaneSettings))
    return asyncio.run(_serve(service.lane, lane, metrics_port))


async def _serve(name: str, lane: CoordinatorProcess, metrics_port: int | None) -> int:
    stop = stop_at_signals(lane=name)
    endpoint = HealthEndpoint(("lane", name), lane.readiness, load(TelemetrySettings), metrics_port)
    try:
        await endpoint.start()
        return await lane.serve(stop)
    finally:
        await endpoint.stop()
