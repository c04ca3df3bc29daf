"""Strangers who publish to the lanes all the while, and say what is not theirs to say. Nothing of it may be obeyed, and
what of it is confirmed has its place in the log, or among the dead letters."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from time import monotonic, sleep
from uuid import UUID

import msgspec
import pika

from coordinator.protocol.wire import PACK_CONTENT
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import Overloaded, Unavailable
from coordinator.service.ids import continuation_command_id, replay_command_id
from coordinator.stores.lane_tables import LogEntry
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import WRITES_EXCHANGE
from tests.faults.tables import Tables

NOBODY = 10**9
"""No row has this id: what is about it is never applied."""
CONFIRM_TIMEOUT_S = 10.0
POLL_S = 0.2
THINK_S = (0.02, 0.2)
PERSISTENT = 2
_TOLD = {"command_id": "x", "command_type": "payments.open", "status": "applied", "result": None, "error": None}
_PUBLIC = {
    "users": ("users.credit", {"id": NOBODY, "amount": 1}),
    "items": ("items.reserve", {"id": NOBODY, "quantity": 1}),
    "payments": ("payments.capture", {"id": NOBODY}),
}
_NOT_HIS = (
    ("users.continue_purchase", _TOLD),
    ("payments.capture_result", {"payment_id": 1}),
    ("lane.release", {"ordering_key": "users.id=1", "command_id": "x"}),
    ("lane.replay", {"letter": 1, "as_system": True}),
    ("lane.discard", {"letter": 1}),
    ("lane.withdraw", {"entries": [1, 2, 3]}),
)
_REFUSED = frozenset({"failed"})
_WITHOUT_EFFECT = frozenset({"failed", "rejected", "expired"})


class Said(msgspec.Struct):
    """One command of a stranger: what may become of it, and whether the broker has it."""

    lane: str
    may_be: frozenset[str]
    is_confirmed: bool = False


class Stranger:
    """Publishes to one lane, to `writes` alone. `said` is by id."""

    def __init__(self, lane: str, amqp_url: str, chance: random.Random) -> None:
        self.said: dict[str, Said] = {}
        self._lane = lane
        self._chance = chance
        self._publisher = Publisher(BrokerSettings(url=amqp_url, heartbeat_s=2), f"stranger-{lane}")

    async def keep_saying(self, stop: asyncio.Event) -> None:
        """Until told to stop; the publisher is closed then."""
        self._publisher.start()
        try:
            while not stop.is_set():
                kinds = (self._not_his, self._continued, self._taken_id, self._expiring, self._unreadable)
                await self._chance.choice(kinds)()
                await asyncio.sleep(self._chance.uniform(*THINK_S))
        finally:
            await self._publisher.close()

    async def _not_his(self) -> None:
        """An internal command or an operator's, with a header that says that it is the system's."""
        command_type, arguments = self._chance.choice(_NOT_HIS)
        await self._say(command_type, arguments, _REFUSED, headers={"origin": "system"})

    async def _continued(self) -> None:
        """A command that would have the system say what he may not; it is about nothing."""
        command_type, arguments = _PUBLIC[self._lane]
        continuation = self._chance.choice(("users.continue_purchase", "nowhere.heard"))
        command_id = self._id()
        if continuation == "users.continue_purchase" and self._lane != "users":
            # Only its lane can know that it is internal. There it arrives as his, and is refused.
            self.said[continuation_command_id(f"{command_type} {command_id}")] = Said("users", _REFUSED)
            may_be = _WITHOUT_EFFECT
        else:
            may_be = _REFUSED
        await self._say(command_type, arguments, may_be, headers={"continuation": continuation}, command_id=command_id)

    async def _taken_id(self) -> None:
        """An id that the system may derive. It has no place in the log."""
        command_type, arguments = _PUBLIC[self._lane]
        await self._publish(
            pika.BasicProperties(message_id=replay_command_id(self._id()), type=command_type, delivery_mode=PERSISTENT),
            msgspec.json.encode(arguments),
        )

    async def _expiring(self) -> None:
        """The broker may let it expire; it is settled all the same."""
        command_type, arguments = _PUBLIC[self._lane]
        expiration = self._chance.choice(("0", "1", "20", "500"))
        await self._say(command_type, arguments, _WITHOUT_EFFECT, expiration=expiration)

    async def _unreadable(self) -> None:
        """A pack of nothing, one that is nested too deep, and others of that kind."""
        body = self._chance.choice(
            (b"[{},{},{}]", b'[{"args":' + b"[" * 1100 + b"]" * 1100 + b"}]", b"[", b"\xff", b"[]")
        )
        await self._publish(pika.BasicProperties(content_type=PACK_CONTENT, delivery_mode=PERSISTENT), body)

    async def _say(
        self,
        command_type: str,
        arguments: object,
        may_be: frozenset[str],
        *,
        headers: dict[str, str] | None = None,
        expiration: str | None = None,
        command_id: str | None = None,
    ) -> None:
        command_id = command_id or self._id()
        said = self.said[command_id] = Said(self._lane, may_be)
        properties = pika.BasicProperties(
            message_id=command_id,
            type=command_type,
            headers=headers,
            expiration=expiration,
            delivery_mode=PERSISTENT,
        )
        said.is_confirmed = await self._publish(properties, msgspec.json.encode(arguments))

    async def _publish(self, properties: pika.BasicProperties, body: bytes) -> bool:
        """Whether the broker has it for certain."""
        confirm = self._publisher.publish(WRITES_EXCHANGE, self._lane, properties, body)
        try:
            # `wait_for` of Python 3.11 may swallow the cancellation of whoever waits.
            async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                await confirm
        except (Overloaded, Unavailable, TimeoutError):
            return False
        return True

    def _id(self) -> str:
        return str(UUID(int=self._chance.getrandbits(128), version=4))


def said_to(lane: str, strangers: Sequence[Stranger]) -> dict[str, Said]:
    """Everything that strangers had a lane told, by id."""
    return {
        command_id: said for stranger in strangers for command_id, said in stranger.said.items() if said.lane == lane
    }


def logged(tables: Tables, confirmed: set[str], patience_s: float) -> list[LogEntry]:
    """The log, once all that is confirmed is in it, or as it is when that takes too long. Blocking."""
    until = monotonic() + patience_s
    while True:
        log = tables.log()
        if confirmed <= {entry.command_id for entry in log} or monotonic() > until:
            return log
        sleep(POLL_S)


def check_strangers(log: Sequence[LogEntry], said: dict[str, Said]) -> Iterator[str]:
    """What was obeyed, and what was lost."""
    entries = {entry.command_id: entry for entry in log}
    for command_id, each in said.items():
        entry = entries.get(command_id)
        if entry is None:
            if each.is_confirmed:
                yield f"{command_id} of a stranger was confirmed and is not in the log"
        elif entry.status not in each.may_be:
            yield f"sequence {entry.sequence} ({entry.type} {command_id}) of a stranger is {entry.status}"


def check_letters(log: Sequence[LogEntry], tables: Tables) -> Iterator[str]:
    """What failed has one dead letter, written with it; and no command of the system's own met an id that was taken.

    Nobody removes a letter here, so the counters say how many there are.
    """
    letters = tables.rows("dead_letters")
    counters = {name: row["value"] for name, row in tables.keyed("counters", "name").items()}
    without_id = sum(counters.get(name, 0) for name in ("dead_letters.nameless", "dead_letters.nameless.system"))
    counted = (counters.get("dead_letters", 0), without_id)
    nameless = sum(letter["command_id"] is None for letter in letters)
    if counted != (len(letters), nameless):
        yield f"there are {len(letters)} dead letters, {nameless} without an id, and the counters say {counted}"
    failed = {entry.command_id: entry.sequence for entry in log if entry.status == "failed"}
    kept = [(letter["source"], letter["sequence"]) for letter in letters if letter["sequence"] is not None]
    for source, sequence in sorted(set(failed.items()) ^ set(kept)):
        yield f"sequence {sequence} ({source}) failed and has no dead letter, or has one and did not fail"
    if len(set(kept)) < len(kept):
        yield "a command that failed has two dead letters"
    for letter in letters:
        if letter["code"] == "idempotency_mismatch":
            yield f"somebody took the id of {letter['type']} {letter['command_id']}"
