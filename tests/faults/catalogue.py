"""Bugs that a run of chaos must catch: each breaks a promise of which only real servers and processes know.

The bugs of the lane's own code are in the simulation's catalogue (tests/simulation), which is far faster.
"""

from pathlib import Path

from msgspec import Struct

from tests.faults.plan import Kind


class Edit(Struct, frozen=True):
    """A piece of a file, which must be there once, and what stands in its place."""

    path: str
    old: str
    new: str

    def plant(self, tree: Path) -> None:
        """Raises LookupError where the code has changed."""
        file = tree / self.path
        source = file.read_text()
        if source.count(self.old) != 1:
            found = f"{self.path} has {source.count(self.old)} times {self.old!r}"
            raise LookupError(f"{found}: bring the mutant up to date")
        file.write_text(source.replace(self.old, self.new))


class ChaosMutant(Struct, frozen=True, kw_only=True):
    """A bug, the faults that must show it, and pieces of what is said then, of which one is enough."""

    name: str
    why: str
    edits: tuple[Edit, ...]
    kinds: tuple[Kind, ...]
    says: tuple[str, ...]
    faults: int
    lane: str | None = None
    seed: int = 1
    transport: str = "rabbitmq"
    clusters: bool = False
    """Whether it shows where there is more than one server only."""
    takes_turns: bool = True
    """Whether it is among those that take turns. One breaks so much that some runs end before their verdict."""


_WITHOUT_AN_EPOCH = (
    Edit("coordinator/stores/sql/store.py", "ELSE lease.epoch + 1 END", "ELSE lease.epoch END"),
    Edit("coordinator/stores/sql/store.py", "[self.lane, above + 1, holder,", "[self.lane, above, holder,"),
    Edit("coordinator/stores/mysql/store.py", "ELSE epoch + 1 END", "ELSE epoch END"),
)
MUTANTS = (
    ChaosMutant(
        name="acknowledged-before-the-commit",
        why="a crash loses what was acknowledged and not yet committed",
        edits=(
            Edit(
                "coordinator/transports/rabbitmq/consumer.py",
                "        decode = partial(delivery_of, method, properties, body, self._settings, now_ms())\n",
                "        acknowledgements.acknowledge([method.delivery_tag])\n"
                "        acknowledgements.flush()\n"
                "        decode = partial(delivery_of, method, properties, body, self._settings, now_ms())\n",
            ),
        ),
        kinds=(Kind.KILL_ACTIVE,),
        says=("was confirmed and is not in the log",),
        faults=6,
    ),
    ChaosMutant(
        name="answered-ahead-of-the-cache",
        why="where the cache cannot be refreshed, outcomes do not wait until its entries are believed no more",
        edits=(
            Edit(
                "coordinator/cache/lease.py",
                "        return max(0.0, until_s - now_s)\n",
                "        return min(0.0, until_s - now_s)\n",
            ),
        ),
        kinds=(Kind.STALL_CACHE,),
        says=("after an outcome had told of",),
        faults=6,
    ),
    ChaosMutant(
        name="batch-dropped-at-an-outage",
        why="what was under way when the database went away is acknowledged and forgotten",
        edits=(
            Edit(
                "coordinator/worker/loop.py",
                "            elif (yield from self._suspended(channel, decision)):\n                return\n",
                "            else:\n"
                "                batch, self._lane._batch = self._lane._batch, None\n"
                "                tags = sorted(each.tag for each in batch.deliveries) if batch else []\n"
                "                nothing = {name: [] for name in Settlement.__struct_fields__[1:]}\n"
                "                self._carrier.settle(channel, Settlement(tags=tags, **nothing))\n"
                "                yield from self._suspended(channel, decision)\n"
                "                return\n",
            ),
        ),
        kinds=(Kind.KILL_DATABASE,),
        says=("was confirmed and is not in the log",),
        faults=2,
    ),
    ChaosMutant(
        name="confirms-ignored",
        why="a publisher takes for safe what it has only sent",
        edits=(
            Edit(
                "coordinator/transports/rabbitmq/publisher.py",
                "        self._by_tag[self._next_tag] = waiting\n        self._next_tag += 1\n",
                "        self._next_tag += 1\n"
                "        self._waiting.pop(waiting.number, None)\n"
                "        if not waiting.future.done():\n"
                "            waiting.future.set_result(None)\n",
            ),
        ),
        kinds=(Kind.KILL_BROKER, Kind.CUT_BROKER),
        # What is believed too early overtakes what came before, or is lost.
        says=("was confirmed and is not in the log", "is in no outbox, and never arrived", "was known"),
        faults=5,
    ),
    ChaosMutant(
        name="outbox-emptied-before-the-confirm",
        why="an emitted command is removed from the outbox before the broker has it",
        edits=(
            Edit(
                "coordinator/transports/emitting.py",
                "        target.sent(confirm, emitted)\n",
                "        target.sent(confirm, emitted)\n        self._on_confirmed([each.entry for each in emitted])\n",
            ),
        ),
        kinds=(Kind.KILL_STALLED,),
        says=("is in no outbox, and never arrived",),
        faults=4,
        lane="payments",
    ),
    ChaosMutant(
        name="log-in-a-transaction-of-its-own",
        why="a failure between two transactions leaves an effect without its log entry",
        edits=(
            Edit(
                "coordinator/lane/transactions.py",
                "            transaction.commit(basis.lease, sequence, self._notes.added(written, basis.lease))\n",
                "            logged = [rows for rows in written.inserts if rows[0].table == 'command_log']\n"
                "            others = [rows for rows in written.inserts if rows[0].table != 'command_log']\n"
                "            replaced = msgspec.structs.replace\n"
                "            transaction.commit(basis.lease, basis.lease.sequence, replaced(written, inserts=others))\n"
                "            if logged:\n"
                "                second = self._store.begin()\n"
                "                second.commit(basis.lease, sequence, Changes([], [], logged))\n",
            ),
        ),
        kinds=(Kind.LOSE_COMMITTED, Kind.LOSE_COMMIT, Kind.KILL_ACTIVE),
        # The command that comes again meets the row that it has made before.
        says=("it must be", "database_refused"),
        takes_turns=False,
        faults=6,
    ),
    ChaosMutant(
        name="unknown-commit-taken-for-done",
        why="a COMMIT without an answer passes for one that has happened",
        edits=(
            Edit(
                "coordinator/lane/transactions.py",
                "            transaction.commit(basis.lease, sequence, self._notes.added(written, basis.lease))\n",
                "            with contextlib.suppress(StoreUnavailable):\n"
                "                transaction.commit(basis.lease, sequence, self._notes.added(written, basis.lease))\n",
            ),
            Edit(
                "coordinator/lane/transactions.py",
                "from collections.abc import",
                "import contextlib\nfrom coordinator.stores.port import StoreUnavailable\nfrom collections.abc import",
            ),
        ),
        kinds=(Kind.LOSE_COMMIT,),
        says=("is not in the log",),
        faults=3,
    ),
    ChaosMutant(
        name="takeover-without-an-epoch-of-its-own",
        why="a standby takes the lane over under the epoch of its predecessor",
        edits=_WITHOUT_AN_EPOCH,
        kinds=(Kind.STOP_ACTIVE,),
        says=("nobody took over within",),
        faults=1,
        lane="users",
    ),
    ChaosMutant(
        name="redis-settled-when-delivered",
        why="an entry is deleted before its batch is committed",
        edits=(
            Edit(
                "coordinator/transports/redis/consumer.py",
                "                tag = window.delivered(entry, sent_at_s)\n",
                "                tag = window.delivered(entry, sent_at_s)\n"
                "                window.settle([tag])\n"
                "                window.flush()\n",
            ),
        ),
        kinds=(Kind.KILL_ACTIVE,),
        says=("was confirmed and is not in the log",),
        faults=6,
        transport="redis",
    ),
    ChaosMutant(
        name="redis-confirms-ignored",
        why="a publisher takes for safe what it has only sent",
        edits=(
            Edit(
                "coordinator/transports/redis/publisher.py",
                "        answer.add_done_callback(lambda done: self._on_answer(connection, adding, done))\n",
                "        self._waiting.pop(adding.number, None)\n"
                "        if not adding.future.done():\n"
                "            adding.future.set_result(None)\n",
            ),
        ),
        kinds=(Kind.KILL_BROKER, Kind.CUT_BROKER),
        says=("was confirmed and is not in the log", "is in no outbox, and never arrived", "was known"),
        faults=5,
        transport="redis",
    ),
    ChaosMutant(
        name="redis-deleted-by-the-next-consumer",
        why="a consumer begins behind what the one before had read, as if that were settled",
        edits=(
            Edit(
                "coordinator/transports/redis/consumer.py",
                "        streams, numbers = MergedStreams(reading, *self._streams), NumbersRead(window.read_up_to)\n",
                "        streams, numbers = MergedStreams(reading, *self._streams), NumbersRead(window.read_up_to)\n"
                '        streams._after = dict.fromkeys((False, True), f"{again_up_to}-0".encode())\n',
            ),
        ),
        kinds=(Kind.KILL_ACTIVE,),
        says=("was confirmed and is not in the log",),
        faults=6,
        transport="redis",
    ),
    ChaosMutant(
        name="redis-without-the-fence",
        why="who has the lease in Redis has the lane, and no epoch tells it from the one before",
        # A fence without its condition is no mutant here: the keys of the log refuse what it would let through. The
        # simulation and the stores' contract catch that.
        edits=_WITHOUT_AN_EPOCH,
        kinds=(Kind.STOP_ACTIVE,),
        says=("nobody took over within",),
        faults=1,
        lane="users",
        transport="redis",
    ),
    ChaosMutant(
        name="cluster-sent-taken-for-confirmed",
        why="a publisher takes for safe what it sent to a node that has died since",
        edits=(
            Edit(
                "coordinator/transports/rabbitmq/publisher.py",
                "            for waiting in list(self._waiting.values()):\n"
                "                self._send(confirmed, waiting)\n",
                "            for waiting in list(self._waiting.values()):\n"
                "                if waiting.times_sent and not waiting.future.done():\n"
                "                    self._waiting.pop(waiting.number)\n"
                "                    waiting.future.set_result(None)\n"
                "                    continue\n"
                "                self._send(confirmed, waiting)\n",
            ),
        ),
        kinds=(Kind.KILL_LEADER_NODE, Kind.KILL_TWO_NODES),
        says=("was confirmed and is not in the log", "is in no outbox, and never arrived", "was known"),
        faults=4,
        clusters=True,
    ),
    ChaosMutant(
        name="cluster-one-address",
        why="a process keeps to one node of the broker, whether it lives or not",
        edits=(
            Edit(
                "coordinator/transports/rabbitmq/nodes.py",
                "    return random.sample(nodes, len(nodes))\n",
                "    return nodes[:1] * len(nodes)\n",
            ),
        ),
        kinds=(Kind.KILL_LEADER_NODE, Kind.KILL_FOLLOWER_NODE),
        says=("without a node",),
        faults=4,
        clusters=True,
    ),
    ChaosMutant(
        name="cluster-standby-not-proved",
        why="a lane that needs a synchronous standby does not look whether commits wait for one",
        edits=(
            Edit(
                "coordinator/stores/postgresql/store.py",
                "        self._needs_standby = needs_standby\n",
                "        self._needs_standby = needs_standby = False\n",
            ),
        ),
        kinds=(Kind.FAIL_OVER_ASYNCHRONOUS,),
        says=("has lost acknowledged commands", "was confirmed and is not in the log"),
        faults=2,
        clusters=True,
    ),
    ChaosMutant(
        name="cluster-standby-not-waited-for",
        why="a commit is taken for done before the standby has it",
        edits=(
            Edit(
                "coordinator/stores/postgresql/durability.py",
                "ELSE 'on' END",
                "ELSE 'local' END",
            ),
        ),
        kinds=(Kind.FAIL_OVER_BEHIND,),
        says=("has lost acknowledged commands", "was confirmed and is not in the log"),
        faults=2,
        clusters=True,
    ),
)
