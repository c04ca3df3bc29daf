"""Effects: two workers of the ledger's effects, and the provider that they call.

Real: the worker, its attempts and its breaker, and what makes deliveries of messages. Simulated: their transport, with
copies of an effect, acknowledgements that get lost, effects that are put back, and workers that die at any point; and
the provider, which charges once for each key, is away, answers late or never, or loses its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from coordinator.effects import attempts as attempts_module
from coordinator.effects import worker as worker_module
from coordinator.effects.attempts import Attempts
from coordinator.effects.worker import EffectWorker
from coordinator.lane.control import DeadEffect
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import EffectSettings
from coordinator.service.commands import Command
from coordinator.service.outside_calls import Call, EffectHandler, EffectRetry, GivenUp, effects_key
from coordinator.service.principal import Principal
from coordinator.service.trace_context import TraceContext
from coordinator.transports import dead_effects as dead_module
from coordinator.transports import effect_bringing as records_module
from coordinator.transports.dead_effects import dead_effect_id
from coordinator.transports.port import EffectDelivery
from coordinator.transports.rabbitmq.effects.bringing import _carrying
from coordinator.transports.rabbitmq.effects.reading import effect_of, emitted_at_s, known_of
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE
from tests.simulation.broker import Message, _Method, system_message
from tests.simulation.event_loop import SimulatedLoop, WorldClock
from tests.simulation.publisher import Publisher
from tests.simulation.schedule import DONE, IDLE, NEVER, PASSED, Act
from tests.simulation.services import Charge, Charged, NotCharged

if TYPE_CHECKING:
    from tests.simulation.limits import Limits
    from tests.simulation.model import Model
    from tests.simulation.world import World

WORKERS = 2
AT_ONCE_MAX = 4
AWAY_S_MAX = 2.5
LANE = "ledger"
TARGET = effects_key(LANE)
SETTINGS = EffectSettings(
    concurrency=2,
    read_ahead_max=AT_ONCE_MAX - 2,
    call_timeout_s=0.3,
    give_up_after_s=1.2,
    retry_delay_s=0.05,
    retry_delay_s_max=0.4,
    breaker_failures=4,
    breaker_pause_s_max=0.5,
)
OF_WORKERS = frozenset({Charged.type, NotCharged.type, DeadEffect.type})
"""What workers bring: another copy of the effect may bring it again at any time."""


class _Silent:
    """Nobody reads what the product would log."""

    def warning(self, _: str, **fields: object) -> None:
        pass

    info = error = exception = warning


class Provider:
    """Charges once for each key, whatever becomes of its answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.charged: dict[str, str] = {}
        look_up = self._look_up if world.rates["effects"] and world.chance() < 0.5 else None
        self.handlers = (EffectHandler(Charge, self._charge, self._give_up, look_up),)
        self.away_until = 0.0

    async def close(self) -> None:
        """Nothing is open."""

    async def _charge(self, effect: Charge, call: Call) -> Command:
        world, rate = self.world, self._rate
        await asyncio.sleep(world.chance() * 0.02)
        if world.chance() < rate / 5:
            self.away_until = world.now + world.chance() * AWAY_S_MAX
            world.trace("the provider is away until %.3f", self.away_until)
        if not world.is_calm and world.now < self.away_until:
            raise EffectRetry("the provider is away")
        if world.chance() < rate / 2:
            await asyncio.sleep(1.0)
        if call.key not in self.charged:
            self.charged[call.key] = f"charge-{len(self.charged) + 1}"
            world.trace("the provider charges %s for %s: %s", effect.amount, call.key, self.charged[call.key])
        if world.chance() < rate / 2:
            await asyncio.sleep(1.0)
        if world.chance() < rate:
            raise EffectRetry("the provider's answer was lost", may_have_happened=True)
        return Charged(buyer=effect.buyer, reference=self.charged[call.key])

    async def _look_up(self, effect: Charge, call: Call) -> Command | None:
        await asyncio.sleep(self.world.chance() * 0.02)
        if self.world.chance() < self._rate:
            raise EffectRetry("the provider is away")
        reference = self.charged.get(call.key)
        return None if reference is None else Charged(buyer=effect.buyer, reference=reference)

    def _give_up(self, effect: Charge, given_up: GivenUp) -> Command:
        self.world.trace("a charge is given up: %s", given_up)
        return NotCharged(buyer=effect.buyer, may_have_happened=given_up.may_have_happened)

    @property
    def _rate(self) -> float:
        return 0.0 if self.world.is_calm else self.world.rates["effects"] * 1.5


class Worker:
    """One worker's process. An actor, and the transport of the worker in it (`EffectTransport`)."""

    unready_reason = late = None

    def __init__(self, world: World, provider: Provider, number: int) -> None:
        self.world = world
        self.name = f"worker-{number}"
        self.provider = provider
        self.queue = world.broker.queues[TARGET]
        self.actor = world.schedule.add()
        self.actor.step, self.actor.wake = self.step, self.wake
        self._begin()

    def _begin(self) -> None:
        world = self.world
        self.publisher = Publisher(world, self.name, self.actor)
        self.loop = SimulatedLoop(world)
        self.held: dict[int, Message] = {}
        self.tag = 0
        self.worker = EffectWorker(LANE, self.provider, self, SETTINGS, world.chance)
        self.worker._attempts = Attempts(LANE, SETTINGS, world.chance, world.wall_s, lambda: world.now)

    def step(self) -> Act:
        world = self.world
        link = self.publisher.link
        if (link is None or link.inbound or not link.is_open) and self.publisher.step():
            return DONE
        if self.queue.ready and len(self.held) < AT_ONCE_MAX and TARGET not in world.broker.is_missing:
            if world.chance() < 0.5:
                return PASSED
            self._take(self.queue.ready.popleft())
            return DONE
        if self.loop.due_at() > world.now:
            return IDLE
        if self.held and not world.is_calm and world.chance() < world.rates["effects"] * 0.15:
            self._fail()
        elif self.loop.turn():
            for text in self.loop.failed:
                world.violation(f"{self.name}: {text}")
            self.loop.failed.clear()
        return DONE

    def wake(self) -> float:
        if self.queue.ready and len(self.held) < AT_ONCE_MAX and TARGET not in self.world.broker.is_missing:
            return self.world.now
        return min(self.publisher.wake(), self.loop.due_at())

    def _take(self, message: Message) -> None:
        self.tag += 1
        self.held[self.tag] = message
        method = _Method(message.exchange)
        attempted, copy = known_of(message.properties, is_again=message.is_redelivered)
        effect = effect_of(method, message.properties, message.body)
        self.world.trace("%s takes %s%s", self.name, effect.command_id, " again" if message.is_redelivered else "")
        delivery = EffectDelivery(effect, attempted, copy, emitted_at_s(message.properties), (self.loop, self.tag))
        self.loop.call_soon(self.worker.take, delivery)

    def _fail(self) -> None:
        """It dies, or it loses its connection and goes on: what it holds is delivered again, to anybody."""
        world = self.world
        self.queue.requeue(list(self.held.values()))
        if world.chance() < 0.5:
            world.trace("%s crashes", self.name)
            self.end()
            self._begin()
        else:
            world.trace("%s loses its deliveries", self.name)
            self.held.clear()
        world.wake_workers()

    def end(self) -> None:
        """Nothing of it goes on."""
        self.loop.end(self.worker._under_way)
        self.publisher.close()

    # The transport.

    def start(self, take: Any, on_defect: Any) -> Sequence[asyncio.Future[Any]]:
        raise NotImplementedError

    async def bring(
        self,
        command: Command,
        command_id: str,
        lane: str,
        actor: Principal | None,
        trace: TraceContext | None = None,
        result_of: str | None = None,
    ) -> None:
        body = command.arguments()
        message = CommandMessage(command_id=command_id, type=command.type, arguments=body, origin="system")
        known = self.world.commands.setdefault(command_id, message)
        if (known.type, known.arguments) != (message.type, body):
            self.world.violation(f"{self.name} brings {message}, and its id is that of {known}")
        await self._publish(lane, system_message(command_id, command.type, body))

    async def bury(
        self, dead: DeadEffect, copy: str, actor: Principal | None, trace: TraceContext | None = None
    ) -> None:
        await self.bring(dead, dead_effect_id(LANE, dead, copy), LANE, actor, trace)

    async def put_back(self, delivery: EffectDelivery, delay_s: float) -> bool:
        world = self.world
        properties = _carrying(delivery.message, delivery.attempted, delivery.emitted_at_s)
        ids = (delivery.message.command_id,)
        # Whoever brings it again may die before it says so, and then it comes twice.
        for _ in range(2 if world.happens("effects") else 1):
            message = Message(SYSTEM_EXCHANGE, properties, delivery.message.arguments, ids)
            world.returning.put(world.now + delay_s * world.chance(), message)
        world.trace("%s puts %s back", self.name, delivery.message.command_id)
        return True

    def has(self, delivery: EffectDelivery) -> bool:
        loop, tag = delivery.receipt
        return loop is self.loop and tag in self.held

    def acknowledge(self, deliveries: Sequence[EffectDelivery]) -> None:
        for delivery in deliveries:
            loop, tag = delivery.receipt
            if loop is self.loop:
                self.held.pop(tag, None)

    def stop(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def _publish(self, target: str, message: Message) -> None:
        while True:
            done = self.loop.create_future()
            self.publisher.publish(target, message, done.set_result)
            if await done:
                return
            await asyncio.sleep(0.1)


class Returning:
    """Effects that were put back, until they are due."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.actor = world.schedule.add()
        self.actor.step, self.actor.wake = self.step, self.wake
        self.waiting: list[tuple[float, Message]] = []

    def put(self, due_at: float, message: Message) -> None:
        self.waiting.append((due_at, message))
        self.world.wake(self.actor)

    def step(self) -> Act:
        now = self.world.now
        for each in self.waiting:
            if each[0] <= now:
                self.waiting.remove(each)
                self.world.broker.queues[TARGET].append(each[1])
                self.world.wake_workers()
                return DONE
        return IDLE

    def wake(self) -> float:
        return min((due_at for due_at, _ in self.waiting), default=NEVER)


def in_place(world: World) -> Limits:
    """What of the product's modules is another within a run with workers."""
    clock = WorldClock(world.wall_s)
    silent = [(module, "log", _Silent()) for module in (attempts_module, worker_module, dead_module)]
    return [*silent, (records_module, "time", clock), (worker_module, "time", clock)]


def violations(world: World, ledger: Model) -> list[str]:
    """What the lane was told of each charge must be so, and it must have been told of each.

    A copy may deny what another copy did: then the lane has the doubt of that one, or its fact.
    """
    from tests.simulation.verdict import sent

    found: list[str] = []
    database, charged = world.databases[LANE], world.provider.charged
    told: dict[str, list[Charged | NotCharged]] = {}
    for _, entry in database.history():
        kind = {Charged.type: Charged, NotCharged.type: NotCharged}.get(entry.type)
        message = sent(world, world.commands, entry)
        if kind is not None and message is not None and message.origin == "system" and entry.status == "applied":
            result: Charged | NotCharged = msgspec.json.decode(message.arguments, type=kind)
            told.setdefault(result.buyer, []).append(result)
    asked = {
        command_id: msgspec.json.decode(child.arguments)["buyer"]
        for command_id, (_, target, child) in ledger.emitted.items()
        if target == TARGET and child.type == Charge.type
    }
    found += [f"{key} was charged, and nobody has asked for it" for key in charged.keys() - asked.keys()]
    for key, buyer in asked.items():
        results = told.get(buyer, [])
        if not results and key not in database.withdrawn and TARGET not in world.broker.is_missing:
            found.append(f"nobody was told what became of charge {key}")
        if sum(isinstance(result, Charged) for result in results) > 1:
            found.append(f"charge {key} was told more than once: {results}")
        for result in results:
            if isinstance(result, Charged) and result.reference != charged.get(key):
                found.append(f"charge {key} is told as {result.reference}, and is {charged.get(key)}")
            is_denied = isinstance(result, NotCharged) and not result.may_have_happened
            if is_denied and key in charged and not any(map(_tells_of_it, results)):
                found.append(f"charge {key} was made, and is told not to have been")
    return found


def _tells_of_it(result: Charged | NotCharged) -> bool:
    return isinstance(result, Charged) or result.may_have_happened
