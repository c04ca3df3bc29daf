"""One coordinator process of a lane: mirrors coordinator/worker/worker.py and the RabbitMQ consumer, step by step.

Its two threads are two actors whose steps are interleaved with everybody else's. The lane's thread is interrupted only
where it calls the database: there others act, for as long as a stall lasts (`World.interlude`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from coordinator.lane.acknowledger import Acknowledger
from coordinator.lane.control import Marker
from coordinator.lane.delivery import Delivery, Deposed, Hold, Reply, Settlement
from coordinator.lane.lane import Lane
from coordinator.protocol.outcomes import encode_outcome, encode_outcomes
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.row_checks import RowChecks
from coordinator.worker.inbox import Inbox
from tests.simulation.broker import Channel, Message, system_message
from tests.simulation.database import Crash, SimulatedStore
from tests.simulation.emitted import SimulatedEmitted
from tests.simulation.publisher import Publisher
from tests.simulation.schedule import DONE, IDLE, NEVER, Act
from tests.simulation.services import SERVICES, TARGETS

if TYPE_CHECKING:
    from datetime import datetime

    from tests.simulation.schedule import Actor
    from tests.simulation.world import World

LOOKS_EVERY_S = 1.0
_CHECKS: dict[str, RowChecks] = {}


class Process:
    """From its start to its end. Each of its threads is an actor, which its successor inherits."""

    def __init__(self, world: World, lane: str, name: str, io_thread: Actor, lane_thread: Actor) -> None:
        self.world = world
        self.lane_name = lane
        self.name = name
        self.is_dead = False
        self.is_stopping = False
        self.frozen_until = 0.0
        self.inbox = Inbox()
        self.store = SimulatedStore(world.databases[lane], self)
        self.lane = Lane(SERVICES[lane], self.store, self._clock, name, world.settings, lambda: world.now, TARGETS)
        # They are made of the models, which are the same in every run, and would take a third of its time.
        self.lane._checks = _CHECKS.setdefault(lane, self.lane._checks)
        self.skew_s = (world.chance() - 0.5) * 0.2
        self.publisher = Publisher(world, name, io_thread)
        self.acknowledger = Acknowledger()
        self.channel: Channel | None = None
        self.generation = 0
        self.connect_at = 0.0
        self.settlements: deque[tuple[int, Settlement]] = deque()
        self.confirmed: list[OutboxEntry] = []
        self.emitted = SimulatedEmitted(self, self._emitted_are_confirmed)
        self.is_active = False
        self.was_active = False
        self.consumes_dead = False
        self.look_at = 0.0
        self.held_reason: str | None = None
        self.received_at: dict[str | None, float] = {}
        self._settling = self._settle_all()
        self._running = self._run()
        self._is_in_lane = False
        self._pause: tuple[int | None, float] = (None, 0.0)
        self.restart_at: float | None = None
        self.waiting = 0
        self.io_thread, self.lane_thread = io_thread, lane_thread
        io_thread.step, io_thread.wake = self.step_io, self.wake_io
        lane_thread.step, lane_thread.wake = self.step_lane, self.wake_lane
        world.wake(lane_thread)

    def __str__(self) -> str:
        return self.name

    def _clock(self) -> datetime:
        return self.world.wall(self.skew_s)

    def crash(self) -> None:
        """Everything in memory is gone; so are the connections."""
        if not self.is_dead:
            self.is_dead = True
            self.publisher.close()
            if self.channel is not None:
                self.world.broker.drop_channel(self.channel)
            self.world.died(self)

    def stop(self) -> None:
        """SIGTERM."""
        self.is_stopping = True
        self._wake()

    def freeze(self, until: float) -> None:
        """Neither thread runs until then."""
        self.frozen_until = until
        self._wake()

    def _wake(self) -> None:
        self.world.wake(self.io_thread)
        self.world.wake(self.lane_thread)

    # The broker's thread.

    def step_io(self) -> Act:  # noqa: C901  # one look at everything that the thread does
        world = self.world
        if world.now < self.frozen_until:
            return IDLE
        channel = self.channel
        publisher = self.publisher
        link = publisher.link
        moved = (link is None or bool(link.inbound) or not link.is_open) and publisher.step()
        if channel is None:
            if world.now >= self.connect_at and world.broker.is_up and not self.is_stopping:
                self.connect()
                moved = True
        elif channel.inbound:
            for _ in range(1 + int(world.chance() * len(channel.inbound))):
                self.on_message(*channel.inbound.popleft())
            world.wake(self.lane_thread)
            moved = True
        elif not channel.is_open and world.now >= channel.notice_at:
            self.channel = None
            self.connect_at = world.now + world.chance() * 0.2
            moved = True
        if not self.consumes_dead and (self.is_active or world.broker.dead[self.lane_name].ready):
            moved = self.look_after_dead_letters() or moved
        if self.settlements:
            moved = next(self._settling) or moved
        # What is done is told after whatever was there to be done.
        emitted = self.emitted
        if (emitted.soon or emitted.timers) and emitted.step():
            moved = True
        if self.is_stopping and not self._is_in_lane and not self.settlements:
            moved = self.finish(channel) or moved
        return DONE if moved else IDLE

    def connect(self) -> None:
        self.generation = self.inbox.begin_generation()
        self.world.wake(self.lane_thread)
        self.channel = self.world.broker.consume(self.lane_name, f"{self.name}/{self.generation}", self.io_thread)
        self.acknowledger = Acknowledger()
        self.is_active = self.consumes_dead = False
        self.look_at = self.world.now + LOOKS_EVERY_S * self.world.chance()

    def look_after_dead_letters(self) -> bool:
        """Consume them once this is the lane's active consumer; until then see to it that somebody is."""
        channel, dead = self.channel, self.world.broker.dead[self.lane_name]
        if channel is None or self.consumes_dead:
            return False
        if self.is_active:
            self.consumes_dead = True
            self.world.broker.consume_dead(self.lane_name, channel)
            return True
        if not dead.ready or self.world.now < self.look_at:
            return False
        self.look_at = self.world.now + LOOKS_EVERY_S
        command_id = self.world.marker()
        self.world.trace("%s finds dead letters: marker %s", self, command_id)
        self.publisher.publish(self.lane_name, system_message(command_id, Marker.type, b"{}"), lambda is_taken: None)
        return True

    def on_message(self, tag: int, message: Message, is_redelivered: bool) -> None:
        if not message.queue.is_dead:
            self.is_active = self.was_active = True
        delivered = message.delivery or message.delivered(self.world.settings)
        delivery = structs.replace(delivered, tag=tag, redelivered=is_redelivered)
        for command in delivery.commands:
            self.received_at.setdefault(command.command_id, self.world.now)
        self.acknowledger.delivered(tag)
        self.inbox.put(self.generation, lambda: delivery)

    def _settle_all(self) -> Iterator[bool]:
        while True:
            generation, settlement = self.settlements[0]
            for reply in settlement.replies:
                self._send_reply(reply)
            if settlement.withdrawn:
                self.emitted.withdraw(settlement.withdrawn)
            if settlement.emitted:
                yield True
                self.publish_emitted(settlement.emitted)
            yield True
            self.acknowledge(generation, settlement.tags)
            self.settlements.popleft()
            yield True

    def acknowledge(self, generation: int, tags: Sequence[int]) -> None:
        channel = self.channel
        if channel is not None and generation == self.generation:
            self.send_acknowledgements(channel, tags)

    def send_acknowledgements(self, channel: Channel, tags: Sequence[int]) -> None:
        for acknowledgement in self.acknowledger.settled(tags):
            if channel.is_open:
                channel.outbound.append(acknowledgement)
                self.world.wake(self.world.broker.actor)

    def _send_reply(self, reply: Reply) -> None:
        if reply.packed:
            self.publisher.send((reply.reply_to, reply.correlation_id, True, encode_outcomes(reply.outcomes)))
            return
        for outcome in reply.outcomes:
            self.publisher.send((reply.reply_to, reply.correlation_id, False, encode_outcome(outcome)))

    def publish_emitted(self, entries: Sequence[OutboxEntry]) -> None:
        self.emitted.publish(entries)
        self.world.wake(self.io_thread)

    def _emitted_are_confirmed(self, entries: Sequence[OutboxEntry]) -> None:
        self.confirmed.extend(entries)
        self.inbox.nudge()
        self.world.wake(self.lane_thread)

    def stand_by(self, generation: int) -> None:
        if generation == self.generation and self.channel is not None:
            self.world.broker.drop_channel(self.channel)

    def finish(self, channel: Channel | None) -> bool:
        """SIGTERM: once the acknowledgements have arrived, the socket is dropped."""
        if channel is not None and channel.is_open and channel.outbound:
            return False
        self.world.trace("%s has stopped in order", self.name)
        self.crash()
        return True

    def wake_io(self) -> float:
        """When the broker's thread has something to do; when a dead process is started anew."""
        if self.is_dead:
            return self.world.now if self.restart_at is None else self.restart_at
        if self.world.now < self.frozen_until:
            return self.frozen_until
        channel = self.channel
        wake_at = self.publisher.wake()
        emitted = self.emitted
        if emitted.soon or emitted.timers:
            wake_at = min(wake_at, emitted.wake())
        if channel is None:
            if not self.is_stopping:
                wake_at = min(wake_at, max(self.connect_at, self.world.broker.up_at))
        elif not channel.is_open:
            wake_at = min(wake_at, channel.notice_at)
        if channel is not None and not self.consumes_dead and self.world.broker.dead[self.lane_name].ready:
            wake_at = min(wake_at, self.look_at)
        return wake_at

    # The lane's thread.

    def step_lane(self) -> Act:
        if self._is_in_lane or self.is_dead or self.world.now < self.frozen_until or not self._is_due():
            return IDLE
        self._is_in_lane = True
        try:
            next(self._running, None)
        except Crash:
            pass
        finally:
            self._is_in_lane = False
        # Others have acted if it stalled, and both threads may have slept for its sake.
        self._wake()
        return DONE

    def _is_due(self) -> bool:
        generation, until = self._pause
        inbox = self.inbox
        if generation is not None:
            return self.world.now >= until or inbox._generation != generation or self.is_stopping
        if self.is_stopping:
            return False
        if inbox._deliveries or inbox._is_nudged:
            return True
        return bool(self.lane._order._held) and self.lane.due_in_s(inbox._generation) == 0

    def wake_lane(self) -> float:
        if self._is_in_lane or self.is_dead:
            return NEVER
        if self.world.now < self.frozen_until:
            return self.frozen_until
        generation, until = self._pause
        if generation is not None:
            return until
        due_s = self.lane.due_in_s(self.inbox._generation) if self.lane._order._held else None
        return NEVER if due_s is None else self.world.now + due_s

    def _run(self) -> Iterator[None]:
        settings = self.world.settings
        while True:
            generation, deliveries = self.inbox.take(settings.batch_commands_max, settings.batch_bytes_max, 0)
            if self.confirmed:
                confirmed, self.confirmed = self.confirmed, []
                self.lane.confirm(confirmed)
            if deliveries or self.lane.due_in_s(generation) == 0:
                yield from self._apply(generation, deliveries)
            else:
                yield from self._sweep(generation)
            yield

    def _apply(self, generation: int, deliveries: list[Delivery]) -> Iterator[None]:
        while True:
            decision = self.decide(deliveries, generation)
            if self.is_dead:
                raise Crash
            if isinstance(decision, Settlement):
                self._settled(generation, decision)
                if not self.lane.has_batch:
                    return
                yield from self._wait_void(generation, 0.0)
            elif isinstance(decision, Deposed):
                yield from self._deposed(generation)
                return
            else:
                yield from self.hold(generation, decision)
                if self.inbox.generation != generation or self.is_stopping:
                    return

    def decide(self, deliveries: list[Delivery], generation: int) -> Settlement | Hold | Deposed:
        gaps = self.lane.gaps
        if not self.lane.has_batch or generation != self.lane._generation:
            # Now, since its channel may be another by the time that the batch is committed.
            self.waiting = self.lane._order.held + sum(len(delivery.commands) for delivery in deliveries)
        decision = self.lane.apply(deliveries, generation)
        if self.lane.gaps > gaps:
            self.world.gave_up(self)
        if self.world.is_tracing:
            ids = [command.command_id for delivery in deliveries for command in delivery.commands]
            self.world.trace("%s applies %s: %s", self.name, ids, _shown(decision))
        return decision

    def _settled(self, generation: int, settlement: Settlement) -> None:
        self.held_reason = None
        self.world.projected(self.lane_name, settlement.saved, settlement.removed)
        self.settlements.append((generation, settlement))

    def hold(self, generation: int, hold: Hold) -> Iterator[None]:
        self.held_reason = hold.reason
        self.world.wake(self.world.chaos.actor)
        yield from self._wait_void(generation, hold.delay_s)

    def _wait_void(self, generation: int, delay_s: float) -> Iterator[None]:
        self._pause = (generation, self.world.now + delay_s)
        yield
        self._pause = (None, 0.0)

    def _deposed(self, generation: int) -> Iterator[None]:
        self.world.trace("%s is deposed", self.name)
        self.stand_by(generation)
        yield from self._wait_void(generation, 60.0)

    def _sweep(self, generation: int) -> Iterator[None]:
        decision = self.lane.sweep()
        if self.is_dead:
            raise Crash
        if isinstance(decision, Settlement):
            self.publish_emitted(decision.emitted)
        elif isinstance(decision, Deposed):
            yield from self._deposed(generation)
        elif isinstance(decision, Hold):
            yield from self.hold(generation, decision)
            if self.inbox.generation == generation:
                self.inbox.nudge()


def _shown(decision: object) -> str:
    if isinstance(decision, Settlement):
        outcomes = [(outcome.command_id, outcome.status, outcome.sequence) for outcome in decision.outcomes]
        return f"settles {decision.tags}: {outcomes}"
    return str(decision)
