"""The clients: they issue commands, repeat what is not confirmed, ask again, and write down what they were told."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec
import pika

from coordinator.protocol.actors import encoded_actors
from coordinator.protocol.fields import ID, TYPE
from coordinator.protocol.outcomes import decode_outcome
from coordinator.protocol.wire import (
    HEADER_REPLY_PACKS,
    JSON_CONTENT,
    PACK_CONTENT,
    CommandMessage,
    encode_pack,
    headers_of,
)
from coordinator.service.outcome import Outcome
from tests.simulation import forgets, rules
from tests.simulation.broker import Message, public_message
from tests.simulation.letters import MISMATCH, NUMBER_SETTLED
from tests.simulation.publisher import Publisher
from tests.simulation.releases import UPGRADED
from tests.simulation.schedule import DONE, IDLE, PASSED, Act
from tests.support.checker import ClientRecord

if TYPE_CHECKING:
    from tests.simulation.world import World

ASKED_MAX = 3
_decode_outcomes = msgspec.json.Decoder(list[Outcome]).decode


class Issue:
    """One message: what it holds, and what its client knows of it."""

    __slots__ = (
        "ask_at",
        "asked",
        "commands",
        "is_abandoned",
        "is_confirmed",
        "key",
        "message",
        "missing",
        "records",
        "resend_at",
    )

    def __init__(self, key: str, message: Message, commands: list[CommandMessage], records: list[ClientRecord]) -> None:
        self.key = key
        self.commands = commands
        self.message = message
        self.records = records
        self.missing = len(records)
        self.is_confirmed = False
        self.is_abandoned = False
        self.resend_at: float | None = None
        self.ask_at = 0.0
        self.asked = 0


class Client:
    """An actor with a plan. With a session its commands are numbered."""

    def __init__(self, world: World, name: str, lane: str, has_session: bool) -> None:
        chance = world.chance
        self.world = world
        self.name = name
        self.lane = lane
        self.has_session = has_session
        self.actor = world.schedule.add()
        self.actor.step, self.actor.wake = self.step, self.wake
        self.publisher = Publisher(world, name, self.actor)
        self.plan: deque[list[CommandMessage]] = deque()
        self.issues: list[Issue] = []
        self.open: dict[str, Issue] = {}
        self.window = 1 if chance() < 0.3 else 2 + int(chance() * 8)
        self.pace = 0.05 + chance() * 0.9
        self.packs_replies = chance() < 0.5
        self.records: list[ClientRecord] = []
        self.by_id: dict[str | None, ClientRecord] = {}
        self.reused: set[str] = set()
        self.nameless = 0
        self.replies = world.broker.replies[name]
        world.broker.readers[name] = self.actor

    def step(self) -> Act:
        world = self.world
        publisher = self.publisher
        link = publisher.link
        act = IDLE
        if (link is None or link.inbound or not link.is_open) and publisher.step():
            act = DONE
        if self.replies:
            self._take_reply(*self.replies.popleft())
            return DONE
        if self.plan and self._has_room():
            if world.is_calm or world.chance() < self.pace:
                self._issue(self.plan.popleft())
                return DONE
            act = DONE if act is DONE else PASSED
        now = world.now
        for issue in self.open.values():
            if issue.resend_at is not None and now >= issue.resend_at:
                issue.resend_at = None
                self._publish(issue)
                return DONE
            if issue.is_confirmed and issue.missing and now >= issue.ask_at:
                world.trace("%s asks again for %s", self.name, issue.key)
                issue.ask_at = world.now + 2.0
                issue.asked += world.is_calm
                if issue.asked > ASKED_MAX:
                    world.violation(f"{issue.message.ids} have no outcome long after everything was healed")
                self._publish(issue)
                return DONE
        return act

    def _has_room(self) -> bool:
        under_way = 0
        for issue in self.open.values():
            if issue.missing and not issue.is_confirmed and not issue.is_abandoned:
                under_way += 1
        return under_way < self.window

    def wake(self) -> float:
        wake_at = self.publisher.wake()
        for issue in self.open.values():
            if issue.is_confirmed and issue.ask_at < wake_at:
                wake_at = issue.ask_at
            if issue.resend_at is not None and issue.resend_at < wake_at:
                wake_at = issue.resend_at
        return min(wake_at, self.world.now + 0.05) if self.plan else wake_at

    def _issue(self, commands: list[CommandMessage]) -> None:
        world = self.world
        first = self.by_id.get(commands[0].command_id)
        if first is not None and first.outcome is None and first.arguments != commands[0].arguments:
            # The other content might come first.
            return
        key = f"{self.name}.{len(self.issues)}"
        records: list[ClientRecord] = []
        for command in commands:
            record = ClientRecord(
                command_id=command.command_id or "",
                lane=self.lane,
                type=command.type or "",
                arguments=command.arguments,
                publisher=command.publisher,
                publisher_seq=command.publisher_seq,
                deadline_ms=command.deadline_ms,
                issued_at=world.now,
            )
            records.append(record)
            if command.command_id is None:
                self.nameless += 1
            elif command.command_id in world.shared and not self._is_first(command):
                world.orphans.setdefault(command.command_id, []).append(command)
            elif command.command_id in self.by_id:
                self.reused.add(command.command_id)
                if world.rates["failover"] and first is not None and first.arguments != command.arguments:
                    # Once the first is lost, this one may be taken.
                    world.orphans.setdefault(command.command_id, []).append(command)
            else:
                self.records.append(record)
                self.by_id[command.command_id] = record
                world.commands[command.command_id] = command
        issue = Issue(key, self._message(key, commands), commands, records)
        issue.ask_at = world.now + 1.0 + world.chance()
        self.issues.append(issue)
        self.open[key] = issue
        if world.is_tracing:
            world.trace("%s issues %s", key, [(c.command_id, c.type, c.arguments) for c in commands])
        self._publish(issue)

    def _is_first(self, command: CommandMessage) -> bool:
        """Whether nobody has used this id so far."""
        return self.world.commands.setdefault(command.command_id or "", command) is command

    def _message(self, key: str, commands: list[CommandMessage]) -> Message:
        ids = tuple(command.command_id for command in commands)
        expires_in_s = self.world.expires_in_s()
        actors = encoded_actors([command.actor for command in commands])
        # A lane waits for a newer release only for its gateways: to what others send it says no.
        user = rules.GATEWAY if actors or self.lane == UPGRADED else None
        if len(commands) > 1:
            properties = pika.BasicProperties(
                content_type=PACK_CONTENT,
                headers=({HEADER_REPLY_PACKS: True} if self.packs_replies else {}) | actors,
                reply_to=self.name,
                correlation_id=key,
                user_id=user,
            )
            return public_message(properties, encode_pack(commands), ids, expires_in_s)
        command = commands[0]
        headers: dict[str, object] = dict(headers_of(command))
        if self.packs_replies:
            # As amqp-publish does it: no properties, and integers as text.
            headers = {name: str(value) for name, value in headers.items()}
            named = {ID.header: command.command_id, TYPE.header: command.type}
            headers |= {name: value for name, value in named.items() if value is not None}
            properties = pika.BasicProperties(headers=headers, reply_to=self.name, correlation_id=key, user_id=user)
        else:
            properties = pika.BasicProperties(
                message_id=command.command_id,
                type=command.type,
                content_type=JSON_CONTENT,
                headers=headers,
                reply_to=self.name,
                correlation_id=key,
                user_id=user,
            )
        return public_message(properties, command.arguments, ids, expires_in_s)

    def _publish(self, issue: Issue) -> None:
        self.publisher.publish(self.lane, issue.message, lambda is_taken: self._confirmed(issue, is_taken))

    def _confirmed(self, issue: Issue, is_taken: bool) -> None:
        world = self.world
        if is_taken:
            if not issue.is_confirmed:
                issue.is_confirmed = True
                for record in issue.records:
                    record.confirmed_at = world.now
                self._close_if_done(issue)
        elif not issue.is_confirmed:
            if world.happens("abandon"):
                world.trace("%s gives %s up", self.name, issue.key)
                issue.is_abandoned = True
                self.open.pop(issue.key, None)
            else:
                issue.resend_at = world.now + 0.05 + world.chance() * 0.5

    def _take_reply(self, key: str | None, is_packed: bool, body: bytes) -> None:
        for outcome in _decode_outcomes(body) if is_packed else [decode_outcome(body)]:
            issue = self.issues[int(str(key).rpartition(".")[2])]
            self._note(issue, outcome)

    def _note(self, issue: Issue, outcome: Outcome) -> None:
        world = self.world
        world.replied(self.lane, outcome)
        is_about_it = False
        # Of a command that is forgotten the lane says so whatever comes under its id: also of another type.
        is_told_so = forgets.is_told_so(world.databases[self.lane], outcome)
        for command, record in zip(issue.commands, issue.records, strict=True):
            if record.command_id != (outcome.command_id or "") or (record.type != outcome.type and not is_told_so):
                continue
            is_about_it = True
            if record.outcome is None:
                record.outcome = outcome
                record.outcome_at = world.now
                issue.missing -= 1
                if world.rates["ruled"]:
                    rules.told(self, command, outcome)
                break
            if outcome.command_id is None:
                continue
            database = world.databases[self.lane]
            # A late copy of what the log has forgotten is refused by its number.
            code = None if outcome.error is None else outcome.error.code
            is_forgotten = code == NUMBER_SETTLED and outcome.command_id in database.pruned
            # It may have been told before, or by an outcome that was long on its way.
            was_told_so = forgets.is_told_so(database, record.outcome)
            is_excused = is_forgotten or is_told_so or was_told_so or database.has_lost(outcome.command_id)
            if _content(record.outcome) != _content(outcome) and not is_excused:
                world.violation(f"{outcome.command_id}: told {record.outcome}, and then {outcome}")
            break
        if not is_about_it:
            world.violation(f"the reply to {issue.message.ids} is the outcome of something else: {outcome}")
        self._close_if_done(issue)

    def _close_if_done(self, issue: Issue) -> None:
        if not issue.missing and issue.is_confirmed:
            self.open.pop(issue.key, None)


def _content(outcome: Outcome) -> tuple[object, ...]:
    """What every repetition of an outcome has in common."""
    error = outcome.error
    # The text of a mismatch says whether the other command was settled meanwhile.
    code = None if error is None else (error.code, "" if error.code == MISMATCH else error.message)
    return (outcome.status, outcome.sequence, bytes(outcome.result), code)
