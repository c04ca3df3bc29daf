"""What a process that does not reach its broker says in its metrics: not what was before, nor that all is well."""

import asyncio
import math

import pytest
from prometheus_client import REGISTRY

from coordinator.effects import process
from coordinator.effects.process import _serve
from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.service.service import Service
from coordinator.transports.inbox import Inbox
from coordinator.transports.open import open_transport
from coordinator.transports.queue_gauges import READY
from tests.support.uncalled import Uncalled

NOWHERE = "127.0.0.1:9"


def shown(name: str, **labels: str) -> float:
    found = REGISTRY.get_sample_value(name, labels)
    return 1 if found is None else found


async def test_a_lane_on_redis_does_not_go_on_to_say_how_long_its_queue_was(monkeypatch: pytest.MonkeyPatch) -> None:
    READY.labels("tills").set(7)
    lane = open_transport(BrokerSettings(url=f"redis://{NOWHERE}/0")).lane("tills", Inbox(), LaneSettings(), holder="h")
    lane.start(lambda _: None)
    try:
        async with asyncio.timeout(10):
            while not math.isnan(shown("coordinator_lane_ready_messages", lane="tills")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await asyncio.to_thread(lane.stop, 5)


@pytest.mark.parametrize("scheme", ["amqp://guest:guest@", "redis://"])
async def test_an_effect_worker_that_reaches_no_broker_is_not_ready(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMQP_URL", f"{scheme}{NOWHERE}/")
    stop = asyncio.Event()
    monkeypatch.setattr(process, "stop_at_signals", lambda **_: stop)
    serving = asyncio.create_task(_serve(Service("tills", effects=Uncalled), None))
    try:
        async with asyncio.timeout(10):
            while shown("coordinator_effects_ready", service="tills") != 0:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        # An alert is on its growth.
        assert REGISTRY.get_sample_value("coordinator_effects_dead_total", {"service": "tills"}) == 0
    finally:
        stop.set()
        await serving
