"""Those who issue commands while everything breaks: each repeats its command until it knows the outcome."""

import asyncio
import json
import random
from time import monotonic, time
from typing import Any, Protocol
from uuid import UUID

import aiohttp
import msgspec

from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.commands import Command
from coordinator.service.errors import CommandPending, Unavailable
from coordinator.service.outcome import NO_RESULT, Outcome, OutcomeError
from coordinator.transports.open import open_transport
from tests.faults.workload import Workload, route_of
from tests.support.callers import CALLER, own_command_id
from tests.support.checker import ClientRecord

THINK_S = (0.005, 0.04)
REPEAT_AFTER_S = 0.05
REQUEST_TIMEOUT_S = 8.0
ASKED_AGAIN = 0.03
DEADLINE = 0.1


class Client(Protocol):
    """Issues commands, at most `window` at the same time. `is_told`: it goes on until it knows each outcome."""

    window: int
    is_told: bool
    records: list[ClientRecord]
    oddities: list[str]

    async def issue(self, record: ClientRecord, command: Command) -> None:
        """Return once the record says what this client wants to know: the outcome, or that it is confirmed."""

    def new_record(self, command: Command) -> ClientRecord:
        """With an id of its own; not issued yet."""


class HttpClient:
    """Goes to either gateway of its service, with an idempotency key; one command at a time."""

    window = 1
    is_told = True

    def __init__(
        self, name: str, session: aiohttp.ClientSession, urls: list[str], secret: str, chance: random.Random
    ) -> None:
        self.records: list[ClientRecord] = []
        self.oddities: list[str] = []
        self._name = name
        self._session = session
        self._urls = urls
        self._secret = secret
        self._chance = chance
        self._keys: dict[str, str] = {}

    def new_record(self, command: Command) -> ClientRecord:
        key = f"{self._name}-{len(self._keys)}"
        command_id = own_command_id(self._secret, command.lane(), key)
        self._keys[command_id] = key
        return _record(command_id, command)

    async def issue(self, record: ClientRecord, command: Command) -> None:
        method, path, body = route_of(command)
        headers = {"Idempotency-Key": self._keys[record.command_id]}
        while True:
            url = self._chance.choice(self._urls) + path
            try:
                async with self._session.request(
                    method, url, json=body, headers=headers, timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
                ) as response:
                    content = await response.read()
                    if response.status == 202:
                        record.confirmed_at = record.confirmed_at or monotonic()
                    elif response.status != 503:
                        record.outcome = self._outcome(record, response, content)
                        record.outcome_at = monotonic()
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(REPEAT_AFTER_S)

    def _outcome(self, record: ClientRecord, response: aiohttp.ClientResponse, content: bytes) -> Outcome:
        sequence = response.headers.get("Command-Sequence")
        replayed = "Idempotent-Replayed" in response.headers
        known: dict[str, Any] = {"command_id": record.command_id, "type": record.type, "replayed": replayed}
        number = None if sequence is None else int(sequence)
        if response.status < 300:
            result = msgspec.Raw(content) if content else NO_RESULT
            return Outcome(status="applied", sequence=number, result=result, **known)
        problem: dict[str, Any] = json.loads(content)
        error = OutcomeError(code=problem["code"], message=problem["detail"])
        if response.status not in (404, 409):
            self.oddities.append(f"{record.type} {record.command_id}: HTTP {response.status} {problem}")
        return Outcome(status="rejected", sequence=number, error=error, **known)


class DirectPublisher:
    """Publishes through the library, as a session with numbers: what is repeated late keeps its place in the order."""

    window = 3
    is_told = True

    def __init__(self, name: str, broker_url: str, chance: random.Random) -> None:
        self.records: list[ClientRecord] = []
        self.oddities: list[str] = []
        self._name = name
        self._chance = chance
        self._numbers: dict[str, int] = {}
        self.writes = open_transport(BrokerSettings(url=broker_url, heartbeat_s=2)).commands(
            name, confirm_timeout_s=3, wait_s=3, in_flight_max=10, log=None
        )

    def new_record(self, command: Command) -> ClientRecord:
        record = _record(str(UUID(int=self._chance.getrandbits(128), version=4)), command)
        if self._chance.random() < DEADLINE:
            record.deadline_ms = int((time() + self._chance.uniform(0.3, 5)) * 1000)
        record.publisher = self._name
        record.publisher_seq = self._numbers.setdefault(record.command_id, len(self._numbers) + 1)
        return record

    async def issue(self, record: ClientRecord, command: Command) -> None:
        message = CommandMessage(
            command_id=record.command_id,
            type=record.type,
            arguments=record.arguments,
            deadline_ms=record.deadline_ms,
            publisher=record.publisher,
            publisher_seq=record.publisher_seq,
            actor=CALLER,
        )
        while True:
            try:
                record.outcome = await self.writes.issue(record.lane, message, None)
                record.outcome_at = monotonic()
            except CommandPending:
                record.confirmed_at = record.confirmed_at or monotonic()
            except Unavailable:
                await asyncio.sleep(REPEAT_AFTER_S)
            else:
                return


class TrustingPublisher:
    """Publishes through the library and believes the confirm: it never repeats a command, and asks for no outcome.

    All others repeat theirs, and so would put back what a lane or the broker has lost.
    """

    window = 3
    is_told = False

    def __init__(self, name: str, broker_url: str, chance: random.Random) -> None:
        self.records: list[ClientRecord] = []
        self.oddities: list[str] = []
        self._chance = chance
        self.writes = open_transport(BrokerSettings(url=broker_url, heartbeat_s=2)).commands(
            name, confirm_timeout_s=3, wait_s=0, in_flight_max=10, log=None
        )

    def new_record(self, command: Command) -> ClientRecord:
        return _record(str(UUID(int=self._chance.getrandbits(128), version=4)), command)

    async def issue(self, record: ClientRecord, command: Command) -> None:
        message = CommandMessage(
            command_id=record.command_id, type=record.type, arguments=record.arguments, actor=CALLER
        )
        try:
            record.outcome = await self.writes.issue(record.lane, message, 0)
            record.outcome_at = monotonic()
        except CommandPending:
            record.confirmed_at = monotonic()
        except Unavailable:
            # It may be lost, or settled: nobody was told anything.
            await asyncio.sleep(REPEAT_AFTER_S)


async def keep_issuing(client: Client, workload: Workload, chance: random.Random, stop: asyncio.Event) -> None:
    """Issue commands until told to stop; the one under way is finished. Now and then ask for an outcome again."""
    while not stop.is_set():
        command = workload.next_command(chance)
        record = client.new_record(command)
        record.issued_at = monotonic()
        client.records.append(record)
        await client.issue(record, command)
        workload.learn(record)
        if record.outcome is not None and chance.random() < ASKED_AGAIN:
            again = msgspec.structs.replace(
                record, issued_at=monotonic(), confirmed_at=None, outcome=None, outcome_at=None
            )
            client.records.append(again)
            await client.issue(again, command)
        await asyncio.sleep(chance.uniform(*THINK_S))


def _record(command_id: str, command: Command) -> ClientRecord:
    return ClientRecord(
        command_id=command_id,
        lane=command.lane(),
        type=command.type,
        arguments=msgspec.json.encode(command),
        issued_at=0.0,
    )
