"""One coordinator process of a lane: the lane's loop as it is, between an inbox and a consumer that are simulated.

Its two threads are two actors whose steps are interleaved with everybody else's. The lane's thread drives the product's
own loop, and is interrupted where that waits, and where it calls the database: there others act, for as long as a stall
lasts (`World.interlude`). The broker's thread mirrors the RabbitMQ consumer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from coordinator.lane.acknowledger import Acknowledger
from coordinator.lane.control import Marker
from coordinator.lane.delivery import Decision, Delivery, Deposed, Reply, Settlement, Suspension
from coordinator.lane.high_water import Mark
from coordinator.lane.lane import Lane
from coordinator.protocol.outcomes import encode_outcome, encode_outcomes
from coordinator.service.rows import Ref, Row
from coordinator.service.service import LeaseProof
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.stores.port import Lease
from coordinator.stores.row_checks import RowChecks
from coordinator.transports.inbox import Inbox
from coordinator.worker.lease_proof import LaneLeaseProof
from coordinator.worker.loop import LaneLoop, Pause, Paused, Take, Taken
from tests.simulation import astray
from tests.simulation.broker import Channel, Message, system_message
from tests.simulation.emitted import SimulatedEmitted
from tests.simulation.failover import Seen
from tests.simulation.marks import KeptMark
from tests.simulation.publisher import Publisher
from tests.simulation.schedule import DONE, IDLE, NEVER, Act
from tests.simulation.services import TARGETS
from tests.simulation.standby import store_of
from tests.simulation.store import Crash

if TYPE_CHECKING:
    from datetime import datetime

    from tests.simulation.schedule import Actor
    from tests.simulation.world import World

LOOKS_EVERY_S = 1.0
TURNS_MAX = 2000
"""How often a lane may be called without a wait: for each piece of a batch that it looks for culprits in."""
_CHECKS: dict[str, RowChecks] = {}


class Process:
    """From its start to its end. Each of its threads is an actor, which its successor inherits."""

    kept_astray: tuple[int, int] = (0, 0)
    """A channel, and how often it has kept the lane on it though it has another database."""

    def __init__(self, world: World, lane: str, name: str, io_thread: Actor, lane_thread: Actor) -> None:
        self.world = world
        self.lane_name = lane
        self.name = name
        self.place = name.partition("#")[0]
        self.is_dead = False
        self.is_stopping = False
        self.frozen_until = 0.0
        self.inbox = Inbox()
        self.store = store_of(self)
        self.lane = TracedLane(
            world.releases.service(lane), self.store, self._clock, name, world.settings, lambda: world.now, TARGETS
        )
        self.lane.process = self
        # They are made of the models, which are the same in every run, and would take a third of its time.
        knowledge = self.lane._knowledge
        knowledge.checks = _CHECKS.setdefault(lane, knowledge.checks)
        self.skew_s = (world.chance() - 0.5) * 0.2
        self.publisher = Publisher(world, name, io_thread)
        self.acknowledger = Acknowledger()
        self.channel: Channel | None = None
        self.channel_number = 0
        self.connect_at = 0.0
        self.settlements: deque[tuple[int, Settlement]] = deque()
        self.confirmed: list[OutboxEntry] = []
        self.emitted = SimulatedEmitted(self, self._emitted_are_confirmed)
        self.mark = KeptMark(self)
        self.is_active = False
        self.was_active = False
        self.consumes_dead = False
        self.look_at = 0.0
        self.received_at: dict[str | None, float] = {}
        self.numbers_received_at: dict[tuple[str, int], float] = {}
        """When a number of a publisher session first came."""
        self.seen = Seen()
        self._settling = self._settle_all()
        proof = LaneLeaseProof(self.lane, lambda: world.now)
        self._following = Following(self)
        self._loop = LaneLoop(self.lane, self, self._following, proof, Watching(self), world.settings.retry_delay_s)
        self._running = self._loop.run()
        self._wanted: Take | Pause | None = None
        self._until = NEVER
        self._is_in_lane = False
        self._taken_from = 0
        self.has_ended = False
        self.restart_at: float | None = None
        self.waiting = 0
        self.turns = 0
        self.io_thread, self.lane_thread = io_thread, lane_thread
        io_thread.step, io_thread.wake = self.step_io, self.wake_io
        lane_thread.step, lane_thread.wake = self.step_lane, self.wake_lane
        world.wake(lane_thread)

    def __str__(self) -> str:
        return self.name

    @property
    def is_astray(self) -> bool:
        """Whether its address leads to another database than that of its lane."""
        return self.place in self.world.databases[self.lane_name].astray

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
        self.inbox.close()
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
            if world.now >= self.connect_at and not self.is_stopping and world.now >= world.broker.open_at(self.place):
                self.connect()
                moved = True
        elif channel.inbound:
            for _ in range(1 + int(world.chance() * len(channel.inbound))):
                self.on_message(*channel.inbound.popleft())
            world.wake(self.lane_thread)
            moved = True
        elif not channel.is_open and world.now >= channel.notice_at:
            self.channel = None
            self.emitted.stop()
            self.connect_at = world.now + world.chance() * 0.2
            moved = True
        if not self.consumes_dead and (self.is_active or world.broker.dead[self.lane_name].ready):
            moved = self.look_after_dead_letters() or moved
        if self.settlements:
            moved = next(self._settling) or moved
        moved = self.mark.step() or moved
        # What is done is told after whatever was there to be done.
        emitted = self.emitted
        if (emitted.soon or emitted.timers) and emitted.step():
            moved = True
        if self.is_stopping and self.has_ended and not self.settlements:
            moved = self.finish(channel) or moved
        return DONE if moved else IDLE

    def connect(self) -> None:
        self.mark.connects()
        self.channel_number = self.inbox.begin_channel()
        self.world.wake(self.lane_thread)
        name = f"{self.name}/{self.channel_number}"
        self.channel = self.world.broker.consume(self.lane_name, name, self.place, self.io_thread)
        self.acknowledger = Acknowledger()
        self.emitted = SimulatedEmitted(self, self._emitted_are_confirmed)
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
            if not self.is_active:
                self.inbox.learn(self.mark.find())
            self.is_active = self.was_active = True
        delivered = message.delivery or message.delivered(self.world.settings)
        delivery = structs.replace(delivered, tag=tag, redelivered=is_redelivered)
        for command in delivery.commands:
            self.received_at.setdefault(command.command_id, self.world.now)
            if command.publisher is not None and command.publisher_seq is not None:
                self.numbers_received_at.setdefault((command.publisher, command.publisher_seq), self.world.now)
        self.acknowledger.delivered(tag)
        self.inbox.put(self.channel_number, lambda: delivery)

    def _settle_all(self) -> Iterator[bool]:
        while True:
            channel_number, settlement = self.settlements[0]
            for reply in settlement.replies:
                self._send_reply(reply)
            if settlement.withdrawn and self._has(channel_number):
                self.emitted.withdraw(settlement.withdrawn)
            if settlement.emitted:
                yield True
                if self._has(channel_number):
                    self.emit(settlement.emitted)
            yield True
            if settlement.tags:
                self.acknowledge(channel_number, settlement.tags)
            self.settlements.popleft()
            yield True

    def _has(self, channel_number: int) -> bool:
        return self.channel is not None and channel_number == self.channel_number

    def acknowledge(self, channel_number: int, tags: Sequence[int]) -> None:
        channel = self.channel
        if channel is not None and channel_number == self.channel_number:
            self.send_acknowledgements(channel, tags)

    def send_acknowledgements(self, channel: Channel, tags: Sequence[int]) -> None:
        for acknowledgement in self.acknowledger.acknowledge(tags):
            if channel.is_open:
                channel.outbound.append(acknowledgement)
                self.world.wake(self.world.broker.actor)

    def lapse(self, point: str) -> None:
        """Its lane's thread waits for somebody: others act meanwhile, and it may be dead by then."""
        if not self.is_dead and self.world.happens("stall"):
            self.world.trace("%s stalls at %s", self, point)
            self.world.interlude()
        if self.is_dead:
            raise Crash

    def _send_reply(self, reply: Reply) -> None:
        cache = self.world.cache
        if cache is not None and self.lane_name == "ledger":
            for outcome in reply.outcomes:
                cache.told(outcome)
        if reply.packed:
            self.publisher.send((reply.reply_to, reply.correlation_id, True, encode_outcomes(reply.outcomes)))
            return
        for outcome in reply.outcomes:
            self.publisher.send((reply.reply_to, reply.correlation_id, False, encode_outcome(outcome)))

    def settle(self, channel: int, settlement: Settlement) -> None:
        self.settlements.append((channel, settlement))
        self.world.wake(self.io_thread)

    def emit(self, entries: Sequence[OutboxEntry]) -> None:
        """Called by the broker's thread."""
        self.emitted.publish(entries)
        self.world.wake(self.io_thread)

    def keep(self, channel: int, mark: Mark) -> None:
        if lacking := self.seen.lacking_in(mark):
            self.world.violation(f"{self} keeps a mark without the last {lacking}")
        if channel == self.channel_number:
            self.mark.keep(mark)

    def _emitted_are_confirmed(self, entries: Sequence[OutboxEntry]) -> None:
        self.confirmed.extend(entries)
        self.inbox.nudge()
        self.world.wake(self.lane_thread)

    def stand_by(self, channel_number: int) -> None:
        if channel_number == self.channel_number and self.channel is not None:
            self.world.broker.drop_channel(self.channel)

    def begin_again(self, channel_number: int) -> bool:
        self.stand_by(channel_number)
        return True

    def hand_over(self, channel_number: int) -> bool:
        return self.begin_again(channel_number)

    def finish(self, channel: Channel | None) -> bool:
        """SIGTERM: once the acknowledgements have arrived, the socket is dropped."""
        if channel is not None and channel.is_open and channel.outbound:
            return False
        self.world.trace("%s has stopped in order", self.name)
        self.crash()
        return True

    def wake_io(self) -> float:
        """When the broker's thread has something to do; when a dead process is started again."""
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
                wake_at = min(wake_at, max(self.connect_at, self.world.broker.open_at(self.place)))
        elif not channel.is_open:
            wake_at = min(wake_at, channel.notice_at)
        if channel is not None and not self.consumes_dead and self.world.broker.dead[self.lane_name].ready:
            wake_at = min(wake_at, self.look_at)
        return min(wake_at, self.mark.wake())

    # The lane's thread.

    def step_lane(self) -> Act:
        if self._is_in_lane or self.is_dead or self.world.now < self.frozen_until or not self._is_due():
            return IDLE
        self._is_in_lane = True
        self.turns = 0
        try:
            self._wanted = self._running.send(self._answer())
            delay_s = self._wanted.timeout_s if isinstance(self._wanted, Take) else self._wanted.delay_s
            # Once all is healed, a lane that only looks at its database or keeps its cache has nothing to do.
            # So has one that can apply nothing, and stands by.
            is_idle = isinstance(self._wanted, Take) and (self._wanted.is_idle or self.is_astray)
            is_over = self.world.is_calm and is_idle
            self._until = NEVER if is_over else self.world.now + delay_s
        except StopIteration:
            self.has_ended = True
        except Crash:
            pass
        finally:
            self._is_in_lane = False
        # Others have acted if it stalled, and both threads may have slept for its sake.
        self._wake()
        return DONE

    def _is_due(self) -> bool:
        """Whether what the loop waits for is there."""
        wanted, inbox = self._wanted, self.inbox
        if self.has_ended:
            return False
        if wanted is None or inbox.is_closed or self.world.now >= self._until:
            return True
        if isinstance(wanted, Take):
            return bool(inbox._deliveries or inbox._is_nudged)
        return inbox.channel_number != wanted.channel

    def _answer(self) -> Taken | Paused | None:
        wanted, inbox = self._wanted, self.inbox
        if isinstance(wanted, Pause):
            confirmed, self.confirmed = self.confirmed, []
            return Paused(inbox.is_closed or inbox.channel_number != wanted.channel, confirmed)
        if wanted is None:
            return None
        settings = self.world.settings
        self._taken_from, deliveries = inbox.take(settings.batch_commands_max, settings.batch_bytes_max, 0)
        confirmed, self.confirmed = self.confirmed, []
        mark = inbox.take_mark()
        if mark is not None:
            self.seen.learned(mark, self.mark.named_there, self.store.database.lease())
        return Taken(self._taken_from, deliveries, confirmed, inbox.is_closed, mark)

    def wake_lane(self) -> float:
        if self._is_in_lane or self.is_dead or self.has_ended:
            return NEVER
        return self.frozen_until if self.world.now < self.frozen_until else self._until

    @property
    def holds_void(self) -> bool:
        """Whether it may yet apply what the broker has taken back, even after a takeover: it has not noticed that, or
        its lane's thread has been in a stall since before."""
        is_noticed = self.channel is not None and self.channel.is_open
        return not is_noticed or (self._is_in_lane and self._taken_from != self.channel_number)

    @property
    def is_heard(self) -> bool:
        """Whether it is suspended as the lane's active consumer, so that the broker takes its mark."""
        wanted, channel = self._wanted, self.channel
        is_open = channel is not None and channel.is_open and self.is_active
        if isinstance(wanted, Take):
            return is_open and self.suspended_reason is not None and self.lane.has_lane(self.channel_number)
        return is_open and wanted is not None and wanted.channel == self.channel_number

    @property
    def suspended_reason(self) -> str | None:
        return self._loop.suspended_reason


class TracedLane(Lane):
    """The lane, and what the world is to know of it. Whoever is dead goes no further."""

    process: Process

    def apply(self, deliveries: Sequence[Delivery], channel_number: int = 0) -> Decision:
        process, gaps = self.process, self.gaps
        process.turns += 1
        if process.turns > TURNS_MAX:
            raise RuntimeError(f"{process} goes round in circles: the lane is never done with its batch")
        if not self.has_batch or channel_number != self._tenancy.channel_number:
            # Now, since its channel may be another by the time that the batch is committed.
            process.waiting = self._order.early + sum(len(delivery.commands) for delivery in deliveries)
        decision = super().apply(deliveries, channel_number)
        if self.gaps > gaps:
            process.world.gave_up(process)
        if process.world.is_tracing:
            ids = [command.command_id for delivery in deliveries for command in delivery.commands]
            process.world.trace("%s applies %s: %s", process.name, ids, _shown(decision))
        if process.is_dead:
            raise Crash
        astray.check_kept(process, channel_number, decision)
        self._see()
        self._check_handed_out(decision)
        return decision

    def _check_handed_out(self, decision: Decision | None) -> None:
        """The outbox has what the lane hands out, as long as nobody else can have changed it."""
        lease, database = self.lease, self.process.store.database
        if not isinstance(decision, Settlement) or lease is None:
            return
        if lease.epoch != database.epoch or database.connections:
            return
        kept = database.table(OutboxEntry)
        for entry in decision.emitted:
            if entry.id not in kept:
                self.process.world.violation(f"{self.process} hands {entry.command_id} out again, which is safe")

    def _begin(self, lease: Lease, channel_number: int) -> None:
        super()._begin(lease, channel_number)
        # What it does next may fail, and leave it without a lease.
        self._see()

    def _see(self) -> None:
        """It has read how far the lane is when it took it over, though it may have committed nothing since."""
        if self.lease is not None:
            seen, sequence = self.process.seen, self.lease.sequence
            seen.rise(sequence)
            seen.knows_whose = True
            if not self.process.is_astray:
                has_last = self.process.store.database.command_at(sequence) is not None
                seen.names(sequence if has_last else 0, self.lease.lineage)

    def sweep(self, channel_number: int = 0) -> Decision | None:
        decision = super().sweep(channel_number)
        if self.process.is_dead:
            raise Crash
        self._check_handed_out(decision)
        return decision

    def look(self, channel_number: int = 0) -> Suspension | Deposed | None:
        is_standby = not self.has_lane(channel_number)
        verdict = super().look(channel_number)
        if self.process.is_dead:
            raise Crash
        database = self.process.store.database
        if is_standby and verdict is None and not database.is_misled and not self.process.is_astray:
            lease, seen = database.lease(), self.process.seen
            seen.rise(lease.safe_sequence)
            seen.knows_whose = seen.knows_whose or lease.lineage is not None
        self._see()
        return verdict

    def is_current(self) -> bool:
        is_current = super().is_current()
        if self.process.is_dead:
            raise Crash
        return is_current


class Watching:
    """Implements `Observer`: whoever is blocked needs an operator."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def has_lease(self, lease: Lease | None, takeovers: int) -> None:
        pass

    def decided(self, seconds: float) -> None:
        pass

    def settled(self, settlement: Settlement, gaps: int, sequence: int | None) -> None:
        pass

    def suspended(self, suspension: Suspension, *, is_first: bool) -> None:
        self._process.store.database.suspends(self._process, suspension.reason)
        if suspension.needs_mark:
            self._process.seen.asked_about.add(int(suspension.reason.split("sequence ")[1].partition(":")[0]))
        self._process.world.wake(self._process.world.chaos.actor)

    def deposed(self) -> None:
        self._process.world.trace("%s is deposed", self._process)

    def projection_failed(self, error: BaseException) -> None:
        raise error


class Following:
    """Implements `Projection`: a copy that is always there, and in some worlds the product's own cache as well."""

    def __init__(self, process: Process) -> None:
        self._process = process
        cache = process.world.cache
        self._cached = cache.projection(process) if cache is not None and process.lane_name == "ledger" else None
        self.beat_s = NEVER if self._cached is None else self._cached.beat_s

    def committed(self, proof: LeaseProof, saved: Sequence[Row], removed: Sequence[Ref[Row]]) -> float:
        self._process.world.projected(self._process.lane_name, saved, removed)
        return 0.0 if self._cached is None else self._cached.committed(proof, saved, removed)

    def beat(self, proof: LeaseProof) -> None:
        if self._cached is not None:
            self._cached.beat(proof)

    def close(self) -> None:
        """Nothing to close."""


def _shown(decision: object) -> str:
    if isinstance(decision, Settlement):
        outcomes = [(outcome.command_id, outcome.status, outcome.sequence) for outcome in decision.outcomes]
        return f"settles {decision.tags}: {outcomes}"
    return str(decision)
