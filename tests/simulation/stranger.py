"""A stranger: may publish to `writes` and to the default exchange, knows every id and every rule, and says what is not
his to say. What must become of it is written down as it is published; nothing of it may be obeyed as the system's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pika

from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Defect, encode_pack
from coordinator.service.ids import continuation_command_id, replay_command_id
from coordinator.worker.outbox_watch import marker_id
from tests.simulation.broker import DEAD, Message, public_message
from tests.simulation.model import children_of
from tests.simulation.publisher import Publisher
from tests.simulation.schedule import DONE, IDLE, PASSED, Act

if TYPE_CHECKING:
    from tests.simulation.world import World

PACK_MAX = 4
BYTES_MAX = 3000
_DEEP = b"[" * 1100 + b"]" * 1100
_FORGED_EXPIRY = [{"reason": "expired", "queue": "ledger", "exchange": "writes", "count": 1}]
_CHILDREN = ("journal.note", "ledger.deposit")
_encode = msgspec.json.encode


class Stranger:
    """An actor with a plan: each of its messages is made when its turn comes."""

    def __init__(self, world: World, number: int, messages: int) -> None:
        self.world = world
        self.number = number
        self.count = 0
        self.actor = world.schedule.add()
        self.actor.step, self.actor.wake = self.step, self.wake
        self.publisher = Publisher(world, f"stranger-{number}", self.actor)
        self.pace = 0.05 + world.chance() * 0.5
        self.plan = deque(self._kinds(messages))
        self.again: list[tuple[str, Message]] = []

    def _kinds(self, messages: int) -> list[Callable[[], None]]:
        kinds: list[Callable[[], None]] = [
            self.internal,
            self.order,
            self.reserved_id,
            self.reserved_id,
            self.continuation,
            self.continuation,
            self.postponed,
            self.pack,
            self.deep,
            self.nameless,
            self.dead,
            self.too_large,
            self.priority,
        ]
        return [kinds[int(self.world.chance() * len(kinds))] for _ in range(messages)]

    def step(self) -> Act:
        link = self.publisher.link
        if (link is None or link.inbound or not link.is_open) and self.publisher.step():
            return DONE
        if not self.plan:
            return IDLE
        if self.world.is_calm or self.world.chance() < self.pace:
            self.plan.popleft()()
            return DONE
        return PASSED

    def wake(self) -> float:
        wake_at = self.publisher.wake()
        return min(wake_at, self.world.now + 0.05) if self.plan else wake_at

    # What he says.

    def internal(self) -> None:
        """The system's own words."""
        told = {"command_id": "x", "command_type": "journal.note", "status": "applied"}
        lane, command_type, arguments = self._any(
            ("ledger", "ledger.noted", told),
            ("ledger", "ledger.grant", {"id": self._account(), "amount": 100}),
            ("journal", "journal.audited", told),
        )
        self._say(lane, command_type, arguments, headers={"origin": "system", "x-death": _FORGED_EXPIRY})

    def order(self) -> None:
        """An operator's."""
        ids = [command.command_id for client in self.world.clients for plan in client.plan for command in plan]
        ids += list(self.world.commands)
        one = self._any(*ids) if ids else "x"
        command_type, arguments = self._any(
            ("lane.release", {"ordering_key": f"accounts.id={self._account()}", "command_id": one or "x"}),
            ("lane.replay", {"letter": 1 + int(self.world.chance() * 3), "as_system": True}),
            ("lane.discard", {"letter": 1 + int(self.world.chance() * 3)}),
            ("lane.withdraw", {"entries": [1, 2, 3]}),
            (
                "lane.dead_effect",
                {"command_id": None, "effect_type": "ledger.pay", "body": "", "code": "x", "reason": ""},
            ),
        )
        self._say(self._lane(), command_type, arguments)

    def reserved_id(self) -> None:
        """First with an id that the system will derive."""
        planned = [command for client in self.world.clients for plan in client.plan for command in plan]
        planned += [command for command in self.world.commands.values() if command.command_id is not None]
        if not planned:
            return
        parent = self._any(*planned)
        name = f"{parent.type} {parent.command_id}"
        children = children_of(parent)
        command_id = self._any(
            *children,
            *children,
            *(continuation_command_id(f"{kind} {each}") for each in children for kind in _CHILDREN),
            continuation_command_id(name),
            replay_command_id(parent.command_id or ""),
            marker_id(parent.command_id or ""),
        )
        lane, command_type, arguments = self._public()
        properties = pika.BasicProperties(message_id=command_id.upper(), type=command_type)
        self._publish(lane, public_message(properties, arguments, (None,), self.world.expires_in_s()))

    def continuation(self) -> None:
        """What he may say, to be continued by what he may not."""
        command_type = self._any(
            "ledger.noted",
            "journal.audited",
            "journal.audited",
            "ledger.grant",
            "lane.release",
            "nowhere.heard",
            "archive.heard",
            "ledger.heard",
        )
        lane, name, arguments = self._public()
        self._say(lane, name, arguments, continuation=command_type, expires_in_s=self.world.expires_in_s())

    def postponed(self) -> None:
        """The same, put off."""
        account = self._account()
        self._say("ledger", "ledger.postpone", {"id": account}, continuation="journal.audited")
        self._say("ledger", "ledger.resume", {"id": account})

    def pack(self) -> None:
        """More commands than a pack may have; some of them have no id of their own."""
        commands = []
        for _ in range(PACK_MAX + 1 + int(self.world.chance() * 3)):
            _, command_type, arguments = self._public("ledger")
            commands.append(CommandMessage(command_id=self._id(), type=command_type, arguments=arguments))
        defect = Defect("pack_too_large", "")
        ids: list[str | None] = []
        for place, command in enumerate(commands):
            if self.world.chance() < 0.2:
                commands[place] = msgspec.structs.replace(command, command_id=None)
                continue
            expected = msgspec.structs.replace(command, arguments=b"", defect=defect)
            ids.append(self._expected("ledger", expected))
        if len(ids) < len(commands):
            ids.append(None)
        properties = pika.BasicProperties(content_type=PACK_CONTENT)
        self._publish("ledger", public_message(properties, encode_pack(commands), tuple(ids)))

    def deep(self) -> None:
        """Deeper than any parser likes."""
        if self.world.chance() < 0.5:
            self._say("ledger", "ledger.deposit", _DEEP)
        else:
            _, command_type, arguments = self._public("ledger")
            commands = [
                CommandMessage(command_id=self._id(), type=name, arguments=body)
                for name, body in ((command_type, arguments), ("ledger.deposit", _DEEP), (command_type, arguments))
            ]
            elements = [
                b'{"id":"%s","type":"%s","args":%s}' % ((each.command_id or "").encode(), name.encode(), each.arguments)
                for each in commands
                for name in (each.type or "",)
            ]
            properties = pika.BasicProperties(content_type=PACK_CONTENT)
            ids = tuple(self._expected("ledger", each) for each in commands)
            self._publish("ledger", public_message(properties, b"[" + b",".join(elements) + b"]", ids))

    def nameless(self) -> None:
        """The same message without an id, again and again, and others."""
        for _ in range(1 + int(self.world.chance() * 3)):
            arguments = _encode({"id": self._account(), "amount": int(self.world.chance() * 3)})
            command_id = self._any(None, None, "not an id", 7)
            headers = {} if command_id is None else {"command-id": command_id}
            properties = pika.BasicProperties(type="ledger.deposit", headers=headers)
            self._publish("ledger", public_message(properties, arguments, (None,)))

    def dead(self) -> None:
        """Straight into the queue of dead letters, by way of the default exchange: as if it had expired, or as a letter
        of an older release."""
        lane, command_type, arguments = self._public()
        headers: dict[str, Any] = {"origin": "system"}
        kind = self.world.chance()
        command_id = self._id()
        message = CommandMessage(command_id=command_id, type=command_type, arguments=arguments)
        if kind < 0.5:
            headers["x-death"] = _FORGED_EXPIRY
            self.world.expired.add(command_id)
        else:
            headers |= {"reason": "handler_error", "error": "forged", "sequence": 1}
            message = msgspec.structs.replace(message, defect=Defect("dead_lettered", ""))
        self._expected(lane, message)
        properties = pika.BasicProperties(message_id=command_id, type=command_type, headers=headers)
        self._publish(f"{lane}{DEAD}", public_message(properties, arguments, (command_id,), exchange=""))

    def too_large(self) -> None:
        """A body of more bytes than are taken."""
        arguments = _encode({"owner": "x" * BYTES_MAX})
        message = CommandMessage(
            command_id=self._id(),
            type="ledger.open",
            arguments=arguments,
            defect=Defect("message_too_large", ""),
        )
        self._expected("ledger", message)
        properties = pika.BasicProperties(message_id=message.command_id, type=message.type)
        self._publish("ledger", public_message(properties, arguments, (message.command_id,)))

    def priority(self) -> None:
        """Ahead of everybody, where the broker lets him."""
        lane, command_type, arguments = self._public()
        message = CommandMessage(
            command_id=self._id(), type=command_type, arguments=arguments, defect=Defect("priority_not_taken", "")
        )
        self._expected(lane, message)
        properties = pika.BasicProperties(message_id=message.command_id, type=command_type, priority=9)
        self._publish(lane, public_message(properties, arguments, (message.command_id,)))

    # How he says it.

    def _say(
        self,
        lane: str,
        command_type: str,
        arguments: Any,
        *,
        continuation: str | None = None,
        headers: dict[str, Any] | None = None,
        expires_in_s: float | None = None,
    ) -> None:
        body = arguments if isinstance(arguments, bytes) else _encode(arguments)
        message = CommandMessage(command_id=self._id(), type=command_type, arguments=body, continuation=continuation)
        self._expected(lane, message)
        named = dict(headers or {})
        if continuation is not None:
            named["continuation"] = continuation
        properties = pika.BasicProperties(message_id=message.command_id, type=command_type, headers=named)
        exchange = self._any("", "writes")
        self._publish(lane, public_message(properties, body, (message.command_id,), expires_in_s, exchange))

    def _publish(self, target: str, message: Message) -> None:
        world = self.world
        world.trace("a stranger says %s to %s: %s", message.ids, target, message.properties)
        for _ in range(2 if world.chance() < 0.2 else 1):
            self.publisher.publish(target, message, lambda is_taken: self._confirmed(target, message, is_taken))

    def _confirmed(self, target: str, message: Message, is_taken: bool) -> None:
        if is_taken:
            lane = target.removesuffix(DEAD)
            self.world.confirmed.update((command_id, lane) for command_id in message.ids if command_id is not None)

    def _expected(self, lane: str, message: CommandMessage) -> str:
        command_id = message.command_id or ""
        self.world.commands[command_id] = message
        return command_id

    def _id(self) -> str:
        self.count += 1
        return f"dddddddd-{self.number:04x}-7000-8000-{self.count:012x}"

    def _public(self, lane: str | None = None) -> tuple[str, str, bytes]:
        """What anybody may say, and to whom."""
        lane = lane or self._lane()
        if lane == "journal":
            return lane, "journal.note", _encode({"account": self._account(), "amount": 50})
        return lane, "ledger.deposit", _encode({"id": self._account(), "amount": 50})

    def _lane(self) -> str:
        return "ledger" if self.world.chance() < 0.6 else "journal"

    def _account(self) -> int:
        return 1 + int(self.world.chance() * 4)

    def _any(self, *things: Any) -> Any:
        return things[int(self.world.chance() * len(things))]
