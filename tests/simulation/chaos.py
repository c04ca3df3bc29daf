"""The faults that come from outside, and the operator who sets things right."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from coordinator.lane.accepted_loss import BEHIND_MAX, why_not_accepted, why_word_is_not_enough
from coordinator.stores.lane_tables import Cancellation, LogEntry
from tests.simulation import astray
from tests.simulation.forgets import Forgets
from tests.simulation.operator import Operator
from tests.simulation.retention import Retention
from tests.simulation.schedule import DONE, IDLE, NEVER, Act
from tests.simulation.standby import ReplicatedDatabase

if TYPE_CHECKING:
    from coordinator.lane.high_water import Mark
    from coordinator.protocol.wire import CommandMessage
    from coordinator.stores.port import Lease
    from tests.simulation.client import Client
    from tests.simulation.database import Database
    from tests.simulation.process import Process
    from tests.simulation.world import World

LOOKS_EVERY_S = 0.7


_LOSS = re.compile(r"its database .*? ends at sequence (\d+).*? and (\d+) was acknowledged")


class Chaos:
    """An actor with a budget of faults; once it is spent, and everything healed, the run can come to rest."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.operator = Operator(world)
        self.actor = world.schedule.add()
        self.actor.step, self.actor.wake = self.step, self.wake
        self.budget = int(world.chance() * 7)
        self.next_at = world.chance()
        self.operator_at = NEVER
        faults: list[Callable[[], None]] = [
            self.drop_consumers,
            self.crash,
            self.freeze,
            self.restart_broker,
            self.jump,
            self.pause,
            self.cancel,
            self.database_away,
            self.drop_links,
            self.stop,
            self.cut_database,
            self.cut_broker,
        ]
        kept = 1 + int(world.chance() * len(faults))
        self.faults = [faults[int(world.chance() * len(faults))] for _ in range(kept)]
        if world.rates["failover"]:
            # A copy that has gone on by itself is told by the mark alone.
            lose_marks = [] if world.rates["clone"] else [self.lose_marks]
            self.faults += [self.fall_back] * len(self.faults) + [*lose_marks, self.mislead]
            self.budget += 2
        if world.rates["astray"]:
            self.faults += [lambda: astray.lead(world)] * len(self.faults)
            self.budget += 3
        if world.rates["clone"]:
            self.faults += [lambda: astray.lead_to_clone(world)] * len(self.faults)
            self.budget += 3
        if world.rates["standby"]:
            self.faults += [self.strike_standby] * len(self.faults)
            self.budget += 3
        if world.rates["pruned"]:
            self.faults += [Retention(world).strike] * len(self.faults)
            self.budget += 3
        if world.rates["forgets"]:
            self.faults += [Forgets(world).strike] * len(self.faults)
            self.budget += 3
        if world.cache is not None:
            self.faults += [world.cache.strike] * len(self.faults)
            self.budget += 3

    def step(self) -> Act:
        world = self.world
        if world.now >= world.releases.due_at():
            world.releases.replace()
            return DONE
        if self.budget > 0 and world.now >= self.next_at:
            self.budget -= 1
            self.next_at = world.now + world.chance() * 0.8
            self.faults[int(world.chance() * len(self.faults))]()
            return DONE
        if not self._has_work():
            self.operator_at = NEVER
        elif self.operator_at == NEVER:
            self.operator_at = world.now + world.chance() * LOOKS_EVERY_S
        elif world.now >= self.operator_at:
            self.operator_at = world.now + LOOKS_EVERY_S
            if self.operate():
                return DONE
        return IDLE

    def wake(self) -> float:
        due_at = min(self.operator_at, self.world.releases.due_at())
        return min(due_at, self.next_at) if self.budget > 0 else due_at

    def _has_work(self) -> bool:
        """Whether there is anything for an operator to set right."""
        for database in self.world.databases.values():
            if database.paused:
                return True
        for process in self.world.processes.values():
            if self._blocking(process) is not None:
                return True
            if _ends_at(process) is not None and not (self.world.is_calm and process.is_astray):
                return True
        return self.operator.has_work()

    def heal(self) -> None:
        for process in self.world.processes.values():
            process.freeze(0.0)
        for database in self.world.databases.values():
            database.away_until = 0.0
            database.cut_until.clear()
            if isinstance(database, ReplicatedDatabase):
                database.heal()
            if database.is_misled:
                database.find_again()
            if database.has_fallen and self.world.chance() < 0.5:
                database.rise_again()
        if self.world.cache is not None:
            self.world.cache.heal()
        self.world.broker.is_missing = self.world.missing_for_ever
        self.world.broker.cut_until.clear()

    def operate(self) -> bool:
        """Resume paused lanes; cancel the commands that block one."""
        acted = False
        for database in self.world.databases.values():
            self._mistype(database)
            if database.paused is not None and (self.world.is_calm or self.world.chance() < 0.5):
                self.world.trace("the operator resumes %s", database.lane)
                database.pause(None)
                acted = True
            acted = self.operator.operate(database) or acted
        for process in list(self.world.processes.values()):
            command_id = self._blocking(process)
            if command_id is not None:
                self.world.trace("the operator cancels %s, which blocks", command_id)
                self.world.databases[process.lane_name].cancel(command_id)
                acted = True
            acted = self._mend_loss(process) or acted
        return acted

    def _mend_loss(self, process: Process) -> bool:
        """The lane says that its database has lost commits."""
        ends_at = _ends_at(process)
        database = self.world.databases[process.lane_name]
        lease, mark = database.lease(), self.world.broker.marks[process.lane_name]
        reason = process.suspended_reason or ""
        is_useless = f"acknowledged in lineage {astray.ANOTHER}" in reason
        is_useless = is_useless or ("has only seen the other" in reason and not lease.is_other(mark.lineage))
        # Nobody knows the lineage but the process that is blocked.
        is_named = bool(mark.sequence) and lease.is_other(mark.lineage)
        is_useless = is_useless or ("does not name that lineage" in reason and not is_named)
        # One that was accepted while nobody knew of the mark may not name its lineage.
        is_accepted = ends_at is not None and (lease.lost_up_to or 0) >= ends_at[1] and not lease.is_other(mark.lineage)
        if ends_at is None or (is_accepted and not is_useless):
            return False
        if process.is_astray:
            return astray.mend(process)
        if database.is_misled:
            database.find_again()
            return True
        sequence, up_to = ends_at
        # What the command looks for in the mark: another command in the log, or more than was given up.
        has_more = _has_more(database, lease, mark)
        # It had seen nothing but the other one; or another process has gone on by what it knew, and the mark is its.
        if is_useless or ("another process has gone on here by what it knew" in reason and not has_more):
            self.world.trace("the operator restarts %s", process)
            process.crash()
            return True
        if up_to <= sequence and not has_more:
            # Since it looked its address was set right.
            return False
        if database.has_fallen and self.world.chance() < 0.5:
            database.rise_again()
        else:
            # Where RabbitMQ shows that more is lost than this process knows of, the command says so.
            up_to = max(up_to, mark.sequence)
            is_other = lease.is_other(mark.lineage) or has_more
            problem = why_not_accepted(database.lane, sequence, up_to, mark, is_other=is_other)
            if problem is not None and why_word_is_not_enough(database.lane, sequence, up_to) is not None:
                self.world.violation(f"nobody can accept what {process} says to be lost: {problem}")
            self.world.trace("the operator accepts what %s has lost after %s: %s", database.lane, sequence, problem)
            # Whoever is the lane's consumer no more says so as well, but cannot tell its successor of the ids.
            database.accept_loss(sequence, up_to, mark.series if process.is_heard else {}, mark.lineage)
        return True

    def _mistype(self, database: Database) -> None:
        """The operator accepts that far more is lost than the lane's mark shows, where that is let through."""
        mark = self.world.broker.marks[database.lane]
        typed = max(database.sequence, mark.sequence) + BEHIND_MAX + 1
        if why_not_accepted(database.lane, database.sequence, typed, mark) is None:
            database.accept_loss(database.sequence, typed, {}, mark.lineage)

    def _blocking(self, process: Process) -> str | None:
        """The command that an operator has to cancel, so that the process can go on."""
        reason = process.suspended_reason
        if process.is_dead or reason is None or not reason.startswith("blocked by command "):
            return None
        command_id = reason.split()[3].rstrip(":")
        database = self.world.databases[process.lane_name]
        # Who has lost his channel says it for a while after another consumer has settled the command.
        is_over = command_id in database.table(Cancellation) or command_id in database.table(LogEntry)
        return None if is_over else command_id

    def fall_back(self) -> None:
        for database in self.world.databases.values():
            if database.can_fall and not database.has_fallen and self.world.chance() < 0.6:
                database.fall()

    def strike_standby(self) -> None:
        for database in self.world.databases.values():
            if isinstance(database, ReplicatedDatabase) and self.world.chance() < 0.7:
                database.strike()

    def mislead(self) -> None:
        for database in self.world.databases.values():
            if database.lineage is not None and not database.is_misled and self.world.chance() < 0.6:
                database.mislead()

    def lose_marks(self) -> None:
        """Somebody purges their queues."""
        self.world.trace("the broker's marks are lost")
        self.world.broker.marks.clear()
        self.world.broker.named.clear()
        for database in self.world.databases.values():
            database.lose_mark()
        for process in self.world.processes.values():
            process.mark.is_lost()
            self.world.wake(process.io_thread)

    def _process(self) -> Process:
        processes = list(self.world.processes.values())
        return processes[int(self.world.chance() * len(processes))]

    def drop_consumers(self) -> None:
        """The broker gives a consumer up; that one learns of it only later, and still settles what it has."""
        world = self.world
        for lane in world.databases:
            queue = world.broker.queues[lane]
            if queue.channels and world.chance() < 0.7:
                world.trace("the broker drops %s", queue.channels[0].name)
                world.broker.drop_channel(queue.channels[0], world.chance() * 1.0)

    def drop_links(self) -> None:
        world = self.world
        for link in list(world.broker.links):
            if world.chance() < 0.6:
                world.trace("the broker drops the publisher of %s", link.name)
                world.broker.drop_link(link, world.chance() * 0.2)

    def cut_database(self) -> None:
        """One process cannot reach its database, and all others can."""
        process = self._process()
        until = self.world.now + self.world.chance() * 1.5
        self.world.trace("%s is cut off from its database until %.3f", process.place, until)
        cut_until = self.world.databases[process.lane_name].cut_until
        cut_until[process.place] = max(until, cut_until.get(process.place, 0.0))

    def cut_broker(self) -> None:
        """One process, or one client, cannot reach the broker, and all others can."""
        world = self.world
        places = [*world.processes, *(client.name for client in world.clients)]
        place = places[int(world.chance() * len(places))]
        world.broker.cut_off(place, world.now + world.chance() * 1.5)

    def crash(self) -> None:
        process = self._process()
        self.world.trace("%s crashes", process)
        process.crash()

    def stop(self) -> None:
        process = self._process()
        self.world.trace("%s is told to stop", process)
        process.stop()

    def freeze(self) -> None:
        """A zombie: nothing runs in it until long after the broker has moved on."""
        process = self._process()
        process.freeze(self.world.now + self.world.chance() * 2.0)
        self.world.trace("%s freezes until %.3f", process, process.frozen_until)
        if process.channel is not None and self.world.chance() < 0.8:
            self.world.broker.drop_channel(process.channel)

    def restart_broker(self) -> None:
        self.world.trace("the broker restarts")
        self.world.broker.restart(self.world.chance() * 0.5)

    def jump(self) -> None:
        self.world.wall_offset_s += (self.world.chance() - 0.5) * 6.0
        self.world.trace("the wall clock jumps: it is off by %.3f s", self.world.wall_offset_s)

    def pause(self) -> None:
        for database in self.world.databases.values():
            if self.world.chance() < 0.6:
                self.world.trace("the operator pauses %s", database.lane)
                database.pause("simulated")

    def cancel(self) -> None:
        world = self.world
        pending = [
            (client.lane, command.command_id)
            for client in world.clients
            for commands in (*list(client.plan)[:2], *_open(client))
            for command in commands
        ]
        if pending:
            lane, command_id = pending[int(world.chance() * len(pending))]
            if command_id is not None:
                world.trace("the operator cancels %s", command_id)
                world.databases[lane].cancel(command_id)

    def database_away(self) -> None:
        for database in self.world.databases.values():
            if self.world.chance() < 0.7:
                database.away_until = self.world.now + self.world.chance() * 1.0
                self.world.trace("the database of %s is away until %.3f", database.lane, database.away_until)


def _has_more(database: Database, lease: Lease, mark: Mark) -> bool:
    """Whether the database lacks what the mark knows, though it has come further, as `coordinator accept-loss` sees."""
    if (up_to := lease.given_up_to(mark.lineage)) is not None:
        return mark.sequence > up_to
    if mark.last is None or lease.lineage is None or lease.lineage != mark.lineage:
        return False
    return mark.last.is_belied_by(database.command_at(mark.last.sequence))


def _ends_at(process: Process) -> tuple[int, int] | None:
    """Where its database ends, and how much was acknowledged, if the process says that commits are lost."""
    reason = process.suspended_reason
    found = None if process.is_dead or reason is None else _LOSS.match(reason)
    return None if found is None else (int(found[1]), int(found[2]))


def _open(client: Client) -> list[list[CommandMessage]]:
    return [
        [client.world.commands[i] for i in issue.message.ids if i in client.world.commands]
        for issue in client.open.values()
    ]
