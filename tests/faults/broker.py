"""What is done to the broker as a whole: killed, alarmed, stalled, and its filesystem filled and frozen."""

import asyncio
import random
from time import monotonic

from coordinator.dev.servers.server import Server
from tests.faults.disk import SmallDisk
from tests.faults.fleet import Fleet
from tests.faults.plan import Fault, Kind

PAUSE_MAX_S = 3.0
PULSE_S = (0.02, 0.6)
LEFT_FREE_BYTES = 30_000_000
"""Below the broker's limit of 50 MB, and more than the clients here can fill until the broker looks: it does every
10 seconds at the latest. Never less: of a disk that is full RabbitMQ 3.10 loses what it has confirmed.
"""
ALARM_TIMEOUT_S = 15.0
_ALARM_IS_SET = b"disk resource limit alarm set on node"


async def strike_broker(fleet: Fleet, fault: Fault) -> bool:
    """Whether it has struck; what it broke is mended. For one at a time."""
    broker = fleet.broker_server
    match fault.kind:
        case Kind.KILL_BROKER:
            await asyncio.to_thread(fleet.kill_broker)
            await asyncio.sleep(fault.lasts_s / 2)
            await asyncio.to_thread(fleet.start_broker)
        case Kind.ALARM | Kind.DISK_ALARM:
            set_alarm = fleet.set_memory_alarm if fault.kind is Kind.ALARM else fleet.set_disk_alarm
            await asyncio.to_thread(set_alarm, on=True)
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(set_alarm, on=False)
        case Kind.FILL_DISK:
            return await _fill(_disk(fleet), broker, fault.lasts_s)
        case Kind.FREEZE_DISK:
            disk = _disk(fleet)
            try:
                await asyncio.to_thread(disk.freeze)
                await asyncio.sleep(min(fault.lasts_s, PAUSE_MAX_S))
            finally:
                await asyncio.to_thread(disk.thaw)
        case _:
            await _pulse(broker, fault)
    return True


async def paused(server: Server, lasts_s: float) -> None:
    """A server that does not move: its clients see a disk, or a machine, that does not answer."""
    try:
        await asyncio.to_thread(server.pause)
        await asyncio.sleep(min(lasts_s, PAUSE_MAX_S))
    finally:
        await asyncio.to_thread(server.resume)


async def _pulse(broker: Server, fault: Fault) -> None:
    chance = random.Random(fault.pick)
    until = monotonic() + fault.lasts_s
    while monotonic() < until:
        await paused(broker, chance.uniform(*PULSE_S))
        await asyncio.sleep(chance.uniform(*PULSE_S) / 4)


async def _fill(disk: SmallDisk, broker: Server, lasts_s: float) -> bool:
    """Until the broker has seen it, and for a while longer."""
    seen = broker.log_path.stat().st_size
    try:
        await asyncio.to_thread(disk.fill, LEFT_FREE_BYTES)
        until = monotonic() + ALARM_TIMEOUT_S
        while _ALARM_IS_SET not in _log_from(broker, seen):
            if monotonic() > until:
                return False
            await asyncio.sleep(0.1)
        await asyncio.sleep(lasts_s)
    finally:
        await asyncio.to_thread(disk.empty)
    return True


def _log_from(server: Server, offset: int) -> bytes:
    with server.log_path.open("rb") as log:
        log.seek(offset)
        return log.read()


def _disk(fleet: Fleet) -> SmallDisk:
    assert fleet.disk is not None
    return fleet.disk
