"""The process that hands on what outside accounts publish: any number of them may run, and each account's queue has one
of them at a time."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import structlog
from prometheus_client import Gauge

from coordinator.registry import registry
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.health import HealthEndpoint, Readiness
from coordinator.runtime.loading import check_all
from coordinator.runtime.settings import BrokerSettings, IngressSettings, TelemetrySettings, broker_setting, load
from coordinator.runtime.stopping import stop_at_signals
from coordinator.service.errors import ConfigurationError
from coordinator.transports.rabbitmq.driver_arguments import user_of
from coordinator.transports.rabbitmq.ingress.account import IngressAccount

log = structlog.get_logger("ingress")

READY = Gauge(
    "coordinator_ingress_ready", "1 while the account's messages can go on; 0: /readyz says why not.", ["account"]
)


def run(metrics_port: int | None) -> int:
    """Hand on the commands of INGRESS_ACCOUNTS until SIGTERM, SIGINT or SIGHUP; return the exit status.

    Raises ConfigurationError.
    """
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(metrics_port))


async def _serve(metrics_port: int | None) -> int:
    check_all((IngressSettings, None), (BrokerSettings, None), (TelemetrySettings, None))
    settings, broker = load(IngressSettings), load(BrokerSettings)
    _check(settings, broker)
    stop = stop_at_signals(accounts=" ".join(settings.named))
    accounts = [IngressAccount(name, registry().names, broker, settings) for name in settings.named]
    for each in accounts:
        READY.labels(each.account).set_function(partial(_is_ready, each))
    endpoint = HealthEndpoint(
        ("ingress", settings.named), partial(_readiness, accounts), load(TelemetrySettings), metrics_port
    )
    stopping = asyncio.create_task(stop.wait())
    try:
        await endpoint.start()
        lasting: list[asyncio.Future[Any]] = [task for each in accounts for task in each.start()]
        await asyncio.wait([stopping, *lasting], return_when=asyncio.FIRST_COMPLETED)
        for ended in lasting:
            if ended.done():
                ended.result()
    finally:
        await asyncio.gather(*(each.stop(settings.stop_timeout_s) for each in accounts))
        await end_tasks(stopping)
        await endpoint.stop()
    log.info("stopped", accounts=" ".join(settings.named))
    return 0


def _check(settings: IngressSettings, broker: BrokerSettings) -> None:
    if not broker.is_rabbitmq:
        raise ConfigurationError(
            f"{broker_setting()}: it is a Redis's, and an ingress is for accounts of RabbitMQ: on Redis others write "
            "over HTTP"
        )
    if not settings.named:
        raise ConfigurationError("INGRESS_ACCOUNTS: it names no account whose commands could be handed on")
    own = user_of(broker)
    if own in settings.named:
        raise ConfigurationError(
            f"INGRESS_ACCOUNTS: {own} is the account of this process itself ({broker_setting()}), which lanes believe: "
            "give each outside publisher an account of his own"
        )


def _is_ready(account: IngressAccount) -> float:
    return float(account.unready_reason is None)


def _readiness(accounts: Sequence[IngressAccount]) -> Readiness:
    """An account whose lane takes nothing is ready, and says so: its owner must not decide whether others are."""
    parts = {}
    for each in accounts:
        unready = each.unready_reason
        parts[each.account] = Readiness(unready is None, each.trouble if unready is None else unready)
    reasons = [f"{name}: {part.reason}" for name, part in parts.items() if part.reason is not None]
    return Readiness(all(part.is_ready for part in parts.values()), "; ".join(reasons) or None, parts)
