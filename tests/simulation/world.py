"""One run: a seed, the actors, the time, and the order in which they act."""

from __future__ import annotations

import gc
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

import msgspec

from coordinator.lane.dead_letters import source_of_nameless
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import LaneSettings
from coordinator.service.outcome import Outcome
from coordinator.service.rows import Ref, Row
from coordinator.stores.lane_tables import LogEntry, OutboxEntry, ParkedCommand, Timer
from tests.simulation import astray, contests, forgets, rules, standby, timers
from tests.simulation.broker import Broker, Message, system_message
from tests.simulation.cache import REMOVED, SILENT, Cache
from tests.simulation.chaos import Chaos
from tests.simulation.client import Client
from tests.simulation.database import Database, Pending
from tests.simulation.limits import in_force, limits
from tests.simulation.past import plant_past
from tests.simulation.plans import plan
from tests.simulation.process import Process
from tests.simulation.releases import Releases
from tests.simulation.schedule import DONE, IDLE, NEVER, Act, Actor, Schedule
from tests.simulation.services import SINKS
from tests.simulation.stranger import BYTES_MAX, PACK_MAX, Stranger
from tests.simulation.worker import WORKERS, Provider, Returning, Worker, in_place
from tests.support.ledger import Account

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
GAP_TIMEOUT_S = 0.8
STEPS_MAX = 5_000
BORDERS_SHARE = 0.25
"""Of the seeds, that have what comes over the borders, of each kind."""
CACHED_SHARE = 0.4
"""Of the seeds, in which the accounts are cached."""
CROWDS_SHARE = 0.3
"""Of the seeds, that begin with large batches."""
STRANDED_MAX = 8
COLLECT_EVERY = 1000
FAULTS = (
    "unavailable",
    "conflict",
    "crash",
    "crash_after_commit",
    "answer_lost",
    "lands_later",
    "stall",
    "reject",
    "reply_lost",
    "abandon",
)
_RATES_MAX = {
    "unavailable": 0.1,
    "conflict": 0.2,
    "crash": 0.03,
    "crash_after_commit": 0.1,
    "answer_lost": 0.2,
    "lands_later": 0.25,
    "stall": 0.08,
    "reject": 0.35,
    "reply_lost": 0.3,
    "abandon": 0.3,
}
_SETTINGS = [
    LaneSettings(
        prefetch=prefetch,
        batch_commands_max=batch,
        early_max=early,
        outbox_max=outbox,
        gap_timeout_s=GAP_TIMEOUT_S,
        retry_delay_s=0.05,
        retry_delay_s_max=0.2,
        nameless_dead_max=2,
    ).model_copy(
        update={"pack_commands_max": PACK_MAX, "message_bytes_max": BYTES_MAX, "gateway_accounts": rules.GATEWAY}
    )
    for prefetch, early, outbox in ((64, 40, 1000), (12, 8, 3), (8, 2, 1))
    for batch in (500, 6, 1)
]


def _rates(chance: Callable[[], float]) -> dict[str, float]:
    """How often what happens. A swarm: each seed has its own few faults, and its own mixture of commands."""
    rates = {name: _RATES_MAX[name] * chance() if chance() < 0.4 else 0.0 for name in FAULTS}
    for name in ("pack", "reuse", "deadline", "malformed", "expected", "strict", "tamper", "fragile", "muddle"):
        rates[name] = chance() * 0.3 if chance() < 0.4 else 0.0
    rates["strict"] *= 0.4
    if rates["muddle"]:
        # It is packs that are muddled.
        rates["pack"] = max(rates["pack"], rates["muddle"])
    rates["fragile"] *= 2
    rates["remark"] = rates["fragile"] / 2
    rates["tamper"] *= 0.5
    for name in (
        "expires",
        "continued",
        "archive",
        "postponed",
        "strangers",
        "orders",
        "past",
        "failover",
        "renumbered",
        "shared",
        "pruned",
        "effects",
    ):
        rates[name] = chance() * 0.4 if chance() < BORDERS_SHARE else 0.0
    if rates["failover"]:
        # A copy that lags has again what was forgotten, and lacks what workers were asked for.
        rates["pruned"] = rates["effects"] = 0.0
    if rates["effects"]:
        rates["effects"] = max(rates["effects"], 0.15)
    # A copy of the database that lags has old versions, which is no fault of the cache's.
    rates["cached"] = 0.0 if rates["failover"] or chance() > CACHED_SHARE else chance() * 0.4
    if rates["cached"]:
        # What a zombie does next is what the cache's lease has to withstand.
        rates["stall"] = max(rates["stall"], 0.03)
    rates["cache_lost"] = rates["cached"] * 0.5
    return rates


class World:
    """Everything of one run. `chance` is its only source of randomness, `now` its only time."""

    broker_kind: ClassVar[type[Broker]] = Broker

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:  # noqa: PLR0915  # the parts of a world
        self.seed = seed
        self.chance = chance = random.Random(seed).random
        self._trace = trace
        self.is_tracing = trace is not None
        self.now = self.wall_offset_s = 0.0
        self.violations: list[str] = []
        self.is_calm = False
        self.rates = _rates(chance)
        self.rates["standby"] = standby.rate(seed)
        if self.rates["standby"]:
            # A failover loses what nobody was told of, and so has what other copies have that lag.
            self.rates["failover"] = max(self.rates["failover"], 0.1)
            for name in ("pruned", "effects", "cached", "cache_lost"):
                self.rates[name] = 0.0
        # A copy of the database that lags has timers again that were taken back.
        self.rates["timers"] = 0.0 if self.rates["failover"] else timers.rate(seed)
        self.rates["astray"] = astray.rate(seed)
        self.rates["clone"] = astray.clone_rate(seed)
        self.rates["contested"] = contests.rate(seed)
        # What was decided may be forgotten, or be lost with a copy of the database: then it is decided once more.
        is_lasting = not self.rates["failover"] and not self.rates["pruned"]
        self.rates["ruled"] = rules.rate(seed) if is_lasting else 0.0
        if self.rates["ruled"] and seed % 2:
            # What is replayed has its rule asked again, as the rows are by then.
            self.rates["orders"] = max(self.rates["orders"], 0.3)
        self.rates["forgets"] = forgets.rate(seed) if is_lasting else 0.0
        self.timers: list[str] = []
        """The ids of the commands of timers that some client is to set."""
        self.settings = _SETTINGS[int(chance() * len(_SETTINGS))]
        self.limits = [*limits(chance), *timers.limits(seed), *forgets.limits(seed)]
        self.schedule = Schedule(chance)
        self.wake = self.schedule.wake
        self.cache = Cache(self) if self.rates["cached"] else None
        lanes = ["ledger", "journal"]
        self.broker = self.broker_kind(self, [*lanes, *SINKS], self.settings.prefetch)
        self._shut_sinks()
        self.databases = {lane: standby.database_of(self, lane) for lane in lanes}
        self.releases = Releases(self)
        self.caches: dict[str, dict[Any, int]] = {lane: {} for lane in lanes}
        self.commands: dict[str, CommandMessage] = {}
        self.passed_on: dict[str, CommandMessage] = {}
        """What lanes have emitted, where somebody is forgotten."""
        self.sessions: dict[str, dict[int | None, str]] = {}
        self.renumbered: dict[tuple[str, int], str] = {}
        """Numbers under which a command was sent once more, and the command."""
        self.shared: set[str] = set()
        """Ids that several parties have used, of whom one knows nothing of the other."""
        self.given_up: set[str] = set()
        self.expired: set[str] = set()
        self.was_live: set[str | None] = set()
        self.old_letters: dict[str, str] = {}
        self.emitted: defaultdict[str, dict[str | None, int]] = defaultdict(dict)
        """The numbers in the outbox of what each lane has emitted, by the ids of the commands."""
        self.orphans: dict[str, list[CommandMessage]] = {}
        self.confirmed: set[tuple[str, str]] = set()
        self.processes: dict[str, Process] = {}
        self._dead: list[Process] = []
        self._incarnations = 0
        self._threads: dict[str, tuple[Actor, Actor]] = {}
        for lane in lanes:
            for number in range(2 if lane == "ledger" else 1):
                self._start(lane, f"{lane}-{number}")
        self.clients: list[Client] = []
        for number in range(1, 3 + int(chance() * 3)):
            lane = "journal" if number == 4 else "ledger"
            client = Client(self, f"client-{number}", lane, chance() < 0.5)
            plan(self, client, number, 2 + int(chance() * 4))
            self.clients.append(client)
        self.strangers = [
            Stranger(self, number, 1 + int(chance() * 5))
            for number in range(1, 1 + (int(1 + chance() * 2) if self.rates["strangers"] else 0))
        ]
        self._hire()
        self.chaos = Chaos(self)
        if chance() < CROWDS_SHARE:
            self._gather_crowds()
        if self.rates["past"]:
            plant_past(self)
        self.ticks = self.stranded = self._depth = self._taken = self._markers = 0

    def _hire(self) -> None:
        self.provider = Provider(self)
        self.returning = Returning(self)
        self.workers = [Worker(self, self.provider, n) for n in range(1, 1 + WORKERS)] if self.rates["effects"] else []

    def _gather_crowds(self) -> None:
        """Whatever is in a batch has neighbours: the clients wait for nobody, and the lanes for their databases."""
        for client in self.clients:
            client.window, client.pace = 12, 0.9
        for database in self.databases.values():
            database.away_until = 0.1 + self.chance() * 0.4

    def _shut_sinks(self) -> None:
        """Queues that are missing, for a while or for ever, or until an operator has withdrawn what is for them."""
        kind = self.chance()
        if self.rates["effects"]:
            # Mostly there: somebody consumes one of them.
            kind = 0.4 + 0.6 * kind
        missing = set(SINKS) if kind < 0.6 else set[str]()
        self.broker.is_missing = missing
        self.withdraws_stuck = kind < 0.2
        self.missing_for_ever = missing if kind < 0.4 else set[str]()

    def expires_in_s(self) -> float | None:
        """How long the broker is to keep a message for its lane; None: as long as it takes."""
        rate = self.rates["expires"]
        if rate == 0.0 or self.chance() >= rate:
            return None
        return max(0.0, self.chance() * 0.3 - 0.1)

    def trace(self, text: str, *arguments: object) -> None:
        if self._trace is not None:
            self._trace(f"{self.now:8.3f} {text % arguments}")

    def violation(self, text: str) -> None:
        self.trace("VIOLATION: %s", text)
        self.violations.append(text)

    def happens(self, fault: str) -> bool:
        """Whether this fault happens now."""
        rate = self.rates[fault]
        return rate > 0.0 and not self.is_calm and self.chance() < rate

    def wall_s(self) -> float:
        """A wall clock, in seconds since the Unix epoch."""
        return self.wall().timestamp()

    def wall(self, skew_s: float = 0.0) -> datetime:
        """A wall clock, to the millisecond: it jumps, and each process's is off by a little."""
        return START + timedelta(milliseconds=int((self.now + self.wall_offset_s + skew_s) * 1000))

    # Running.

    @classmethod
    def run_many(
        cls, seeds: Iterable[int], trace: Callable[[str], None] | None = None
    ) -> Iterator[tuple[World, list[str]]]:
        """Run seeds one after the other. A world is taken apart when the next one is asked for.

        A run is one big cycle of references. Cut into pieces it is freed at once, while it is still in the processor's
        cache; the collector would look at every object of hundreds of runs. It looks at what is left of them, now and
        then, and only at that.
        """
        gc.disable()
        try:
            for count, seed in enumerate(seeds, 1):
                world = cls(seed, trace)
                yield world, world.run()
                world.take_apart()
                if count % COLLECT_EVERY == 0:
                    gc.collect(0)
        finally:
            gc.enable()

    def run(self) -> list[str]:
        """The violations of the promises."""
        silent = [] if self.cache is None else SILENT
        with in_force([*self.limits, *silent, *(in_place(self) if self.workers else ())]):
            try:
                return self._run()
            finally:
                self.close()

    def close(self) -> None:
        """The end of what a world has beside its memory."""
        for worker in self.workers:
            worker.end()
        if self.cache is not None:
            self.cache.close()

    def _run(self) -> list[str]:
        from tests.simulation.verdict import verdict

        while self._taken < STEPS_MAX and (self._act() or self._wake_idle_lanes()):
            if self.chaos.budget <= 0 and not self.is_calm and self._is_over():
                self.trace("everything is healed")
                self.is_calm = True
                self.chaos.heal()
                self.schedule.wake_all()
        if self._taken >= STEPS_MAX:
            self.violation("the system does not come to rest: something is stuck")
        return verdict(self)

    def take_apart(self) -> None:
        """The end of this world: nothing in it refers to anything else in it any more."""
        processes = (*self.processes.values(), *self._dead)
        for actor in (
            self.broker,
            self.chaos,
            self.chaos.operator,
            self.releases,
            *(database.book for database in self.databases.values()),
            *(process.emitted for process in processes),
            *self.databases.values(),
            *self.clients,
            *self.strangers,
            *self.workers,
            self.provider,
            self.returning,
            *processes,
            *([] if self.cache is None else (self.cache, self.cache.server, self.cache.read_from)),
            self,
        ):
            vars(actor).clear()

    def _is_over(self) -> bool:
        """Whether there are no more faults to come, and no more commands worth waiting for."""
        if self.now > 6.0:
            return True
        for client in self.clients:
            if client.plan or client.open:
                return False
        return not any(stranger.plan for stranger in self.strangers)

    def _act(self) -> bool:
        """Some actor acts, or time passes until one can. False: nobody has anything to do, ever."""
        self._taken += 1
        if self.schedule.act(self.now):
            self.now += self.chance() * 0.01
            return True
        wake_at = self.schedule.next_at()
        if wake_at == NEVER:
            if not self.is_calm:
                self.chaos.budget = 0
                self.now += 10.0
                return True
            return False
        self.now = max(self.now, wake_at) + self.chance() * 0.05
        return True

    def _wake_idle_lanes(self) -> bool:
        """Send a marker into every idle lane whose outbox holds something: a successor takes over, and so publishes
        what its predecessor left, only when something is delivered to it. How often that was needed is counted.

        An older copy may also have commands that wait for their key no more.
        """
        missing = self.broker.is_missing
        left = [
            lane
            for lane, database in self.databases.items()
            if any(entry.lane not in missing for entry in database.tables[OutboxEntry].values())
            or (database.connections and database.tables[ParkedCommand])
            or database.tables[Timer]
            or (database.is_left_unproved and not self.has_active(database))
        ]
        if self.stranded >= STRANDED_MAX:
            return False
        for lane in left:
            self.stranded += 1
            command_id = self.marker()
            self.trace("lane %s is idle and its outbox is not empty: marker %s", lane, command_id)
            self.broker.put(lane, system_message(command_id, "lane.marker", b"{}"))
        return bool(left)

    def has_active(self, database: Database) -> bool:
        """Whether a process has this lane, and knows that it has. One whose channel was lost since it took it learns
        that it still has it with the next delivery."""
        return any(
            process.lane_name == database.lane
            and not process.is_dead
            and process.lane.has_lane(process.channel_number)
            and process.lane.lease is not None
            and process.lane.lease.epoch == database.epoch
            for process in self.processes.values()
        )

    def marker(self) -> str:
        """The id of a new marker."""
        self._markers += 1
        command_id = f"ffffffff-0000-7000-8000-{self._markers:012d}"
        self.commands[command_id] = CommandMessage(
            command_id=command_id, type="lane.marker", arguments=b"{}", origin="system"
        )
        return command_id

    def wake_workers(self) -> None:
        """There is an effect to be carried out."""
        for worker in self.workers:
            self.wake(worker.actor)

    def wake_lane(self, lane: str) -> None:
        """Everybody who runs this lane has something to look at."""
        for process in self.processes.values():
            if process.lane_name == lane:
                self.wake(process.io_thread)

    def interlude(self) -> None:
        """Others act while one process's lane waits for its database, often long enough for a takeover."""
        if self._depth >= 2:
            return
        self._depth += 1
        try:
            if self.chance() < 0.5:
                self.chaos.drop_consumers()
            for _ in range(int(self.chance() * 40)):
                self._act()
        finally:
            self._depth -= 1

    # Processes.

    def _start(self, lane: str, name: str) -> None:
        self._incarnations += 1
        threads = self._threads.get(name)
        if threads is None:
            threads = self._threads[name] = (self.schedule.add(), self.schedule.add())
        self.processes[name] = Process(self, lane, f"{name}#{self._incarnations}", *threads)

    def died(self, process: Process) -> None:
        """From now on all that its first thread does is to start its successor."""
        self._dead.append(process)
        process.io_thread.step = partial(self._restart, process)
        self.wake(process.io_thread)

    def _restart(self, dead: Process) -> Act:
        """Start the successor of a dead process, a while after its death was seen."""
        if dead.restart_at is None:
            dead.restart_at = self.now + self.chance() * 0.4
        if self.now < dead.restart_at:
            return IDLE
        self._start(dead.lane_name, dead.name.partition("#")[0])
        return DONE

    # What the checks are told while it happens.

    def keep_orphans(self, lane: str) -> None:
        """A lane is about to lose its last commits: what they have emitted may have arrived all the same."""
        from tests.simulation.verdict import emitted_so_far

        for command_id, child in emitted_so_far(self, lane):
            known = self.orphans.setdefault(command_id, [])
            if child not in known:
                known.append(child)

    def taken(self, commit: Pending, command_id: str) -> None:
        """That a command had its turn is durable: if it overtook a predecessor of its session, it was early before."""
        process = commit.process
        message = self.commands.get(command_id)
        if message is None or message.publisher is None or message.publisher_seq is None:
            return
        database = self.databases[process.lane_name]
        is_shared, entry = command_id in self.shared, database.settled(command_id)
        if is_shared and entry is not None and database.is_anothers(entry, message):
            # It says nothing of this session.
            return
        session = self.sessions[message.publisher]
        for number, missing in session.items():
            if number is None or number >= message.publisher_seq or database.is_settled(missing):
                continue
            if missing in self.given_up or missing in database.waited or database.has_lost(missing):
                continue
            between = range(number + 1, message.publisher_seq)
            if any((message.publisher, each) in self.renumbered for each in between):
                # It may have been given up for a repetition or a mismatch, which leaves no entry.
                self.given_up.add(missing)
                continue
            # The gap shows with the first of its successors to arrive, under whatever id.
            received = [
                at_s
                for (publisher, later), at_s in process.numbers_received_at.items()
                if publisher == message.publisher and later > number
            ]
            waited_s = self.now - min(received, default=self.now)
            if waited_s < GAP_TIMEOUT_S and commit.waiting <= self.settings.early_max:
                if is_shared:
                    # With the same content it may still be another party's.
                    continue
                self.violation(f"{command_id} overtook {missing} after {waited_s:.3f} s")
            self.given_up.add(missing)

    def gave_up(self, process: Process) -> None:
        """The lane gave a gap up: there must be one."""
        database = self.databases[process.lane_name]
        if database.connections:
            # What it has lost left gaps.
            return
        log = database.table(LogEntry).keys() | database.waited.keys() | database.pruned.keys()
        for name, session in self.sessions.items():
            seen = [at for at, command_id in session.items() if command_id in log or command_id in process.received_at]
            seen += [number for publisher, number in process.numbers_received_at if publisher == name]
            before = range(1, max((at for at in seen if at is not None), default=1))
            # Under another number, a command says nothing of this one.
            ambiguous = {*self.renumbered.values(), *self.shared}
            by_id = {at for at, command_id in session.items() if command_id not in ambiguous}
            if any(session[at] not in log if at in by_id else (name, at) not in database.numbers for at in before):
                return
        if process.lane.lease is not None and process.lane.lease.epoch == self.databases[process.lane_name].epoch:
            self.violation(f"{process} gave up a gap where none was")

    def acknowledged(self, message: Message) -> None:
        """The broker forgets a message: all of it must be on disk."""
        database = self.databases[message.queue.lane]
        if not message.queue.is_dead:
            for command in message.delivered(self.settings).commands:
                if command.publisher is not None and command.publisher_seq is not None:
                    database.numbers.add((command.publisher, command.publisher_seq))
        for command_id in message.ids:
            if command_id is not None and command_id not in self.old_letters:
                self._check_settled(database, command_id)
        if None in message.ids:
            for command in message.delivered(self.settings).commands:
                if command.command_id is not None:
                    continue
                source = source_of_nameless(command, command.defect, database.lane)
                if not database.book.is_kept(source, command.origin) and not database.has_lost_letter(source):
                    self.violation(f"a message without an id was acknowledged, and is nowhere: {command}")

    def _check_settled(self, database: Database, command_id: str) -> None:
        entry = database.settled(command_id)
        database.acknowledged_to_broker(command_id)
        if command_id in database.waited or database.has_lost(command_id):
            # The database keeps it, or it has lost it since.
            return
        if entry is None:
            self.violation(f"{command_id} was acknowledged before it was settled")
        elif entry.status == "failed" and command_id not in database.book.by_source:
            self.violation(f"{command_id} failed, and was acknowledged before its dead letter was safe")

    def projected(self, lane: str, saved: Sequence[Row], removed: Sequence[Ref[Row]]) -> None:
        """A copy that never goes back to an older version, nor before a removal: also a zombie tells it what it has."""
        cache = self.caches[lane]
        there = {row.id: row.version for row in saved if type(row) is Account}
        for key, version in there.items():
            cache[key] = max(version, cache.get(key, 0))
        for ref in removed:
            if ref.model is Account and ref.value not in there:
                cache[ref.value] = REMOVED

    def replied(self, lane: str, outcome: Outcome) -> None:
        """A client has an outcome: the cache must not hold what is older, unless it is of a commit that is lost."""
        database = self.databases[lane]
        database.told(outcome.command_id)
        if lane != "ledger" or outcome.status != "applied" or database.has_lost(outcome.command_id):
            return
        result: Any = msgspec.json.decode(outcome.result)
        match result:
            case None:
                pass
            case {"waited": _}:
                pass
            case {"id": account, "version": version}:
                cached = self.caches[lane].get(account)
                if cached is None:
                    # A gateway that finds nothing reads the database and fills the cache. What it reads of a copy that
                    # lags may be older than what the next copy has.
                    row = None if database.has_fallen else database.table(Account).get(account)
                    self.projected(lane, [] if row is None else [row], [])
                elif cached < version:
                    self.violation(f"the cache has version {cached} of account {account}; {version} was replied")
            case _:
                self.violation(f"{outcome.command_id}: {result} was replied, which is no account")
