"""A process of effect workers of one service: any number of them may run."""

import asyncio
import os
from functools import partial

import structlog
from prometheus_client import Gauge

from coordinator.effects.worker import EffectWorker
from coordinator.registry import registry
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.health import HealthEndpoint, Readiness
from coordinator.runtime.late_answers import LateAnswers
from coordinator.runtime.loading import check_all
from coordinator.runtime.settings import BrokerSettings, EffectSettings, TelemetrySettings, load
from coordinator.runtime.stopping import stop_at_signals
from coordinator.service.effect_defects import opened_effects
from coordinator.service.service import Service
from coordinator.transports.open import open_transport
from coordinator.transports.port import EffectTransport

log = structlog.get_logger("effects")

READY = Gauge("coordinator_effects_ready", "1 while this worker can work; 0: /readyz says why not.", ["service"])


def run(service: Service, metrics_port: int | None) -> int:
    """Carry out a service's effects until SIGTERM, SIGINT or SIGHUP; return the exit status.

    Raises ConfigurationError.
    """
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(service, metrics_port))


async def _serve(service: Service, metrics_port: int | None) -> int:
    check_all((EffectSettings, None), (BrokerSettings, None), (TelemetrySettings, None))
    settings = load(EffectSettings)
    stop = stop_at_signals(service=service.lane)
    effects = opened_effects(service)
    transport = open_transport(load(BrokerSettings)).effects(service.lane, settings.held_max)
    upgrades, lanes = service.declared_upgrades, registry().names
    worker = EffectWorker(service.lane, effects, transport, settings, upgrades=upgrades, lanes=lanes)
    READY.labels(service.lane).set_function(lambda: float(_readiness(worker, transport).is_ready))
    endpoint = HealthEndpoint(
        ("effects", service.lane),
        partial(_readiness, worker, transport),
        load(TelemetrySettings),
        metrics_port,
    )
    late = LateAnswers(("effects", service.lane), [transport, worker])
    telling = asyncio.create_task(late.run(), name=f"late answers of the effects of {service.lane}")
    try:
        await endpoint.start()
        is_finished = await worker.run(stop)
    finally:
        await end_tasks(telling)
        await endpoint.stop()
        await effects.close()
    if not is_finished:
        # Nothing is lost: unacknowledged effects are delivered again, and their calls made again with the same key.
        log.error("stopped_hard", service=service.lane, after_s=settings.stop_timeout_s)
        os._exit(1)
    log.info("stopped", service=service.lane)
    return 0


def _readiness(worker: EffectWorker, transport: EffectTransport) -> Readiness:
    """A worker whose provider says nothing is ready, and says so: another one would be no better off."""
    unready = transport.unready_reason
    return Readiness(unready is None, worker.trouble if unready is None else unready)
