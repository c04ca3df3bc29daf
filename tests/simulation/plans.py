"""What clients ask for: a stream of commands that a seed decides, sound and unsound ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from coordinator.protocol.wire import CommandMessage
from coordinator.service.commands import Command
from tests.simulation import contests, rules, timers
from tests.simulation.services import MENDED, Buy, Keep, Relay, Strict, WriteNote
from tests.support.ledger import (
    Close,
    Deposit,
    Forward,
    Fragile,
    OpenAccount,
    Postpone,
    Remark,
    Rename,
    Resume,
    Tamper,
)

if TYPE_CHECKING:
    from tests.simulation.client import Client
    from tests.simulation.world import World

_OWNERS = "abcdef"
_ACCOUNTS = 4
_HOWS = ("crash", "constraint", "too long", "out of range", "duplicate key", "refuse")
_encode = msgspec.json.encode


def plan(world: World, client: Client, number: int, messages: int) -> None:
    """Fill a client's plan: single commands, packs, repeats of an id with other content, numbers out of their order."""
    chance = world.chance
    count = 0
    sequence = 0
    sent: list[CommandMessage] = []
    for _ in range(messages):
        together = _together(world, client)
        size = len(together) or (2 + int(chance() * 3) if chance() < world.rates["pack"] else 1)
        commands: list[CommandMessage] = []
        for place in range(size):
            count += 1
            sequence += 1
            command_id = f"{number:08x}-0000-7000-8000-{count:012x}"
            commands.append(
                _plain(world, client, command_id, sequence, together[place])
                if together
                else _message(world, client, command_id, sequence)
            )
        client.plan.append(commands)
        sent.extend(command for command in commands if command.command_id is not None)
        if sent and client.window < 4 and chance() < world.rates["reuse"]:
            client.plan.append([_other(sent[int(chance() * len(sent))])])
        if sent and client.has_session and chance() < world.rates["renumbered"] and not world.rates["muddle"]:
            # Its publisher was started again, and has forgotten that this was sent.
            sequence += 1
            again = structs.replace(sent[int(chance() * len(sent))], publisher_seq=sequence)
            client.plan.append([again])
            world.renumbered[client.name, sequence] = again.command_id or ""
        if chance() < world.rates["shared"] and (of_others := _sent_by_others(world, client)):
            sequence += 1
            shared = _shared(world, client, of_others[int(chance() * len(of_others))], sequence)
            client.plan.append([shared])
            world.shared.add(shared.command_id or "")
            if client.has_session:
                world.renumbered[client.name, sequence] = shared.command_id or ""
    if client.has_session:
        for command in sent:
            world.sessions.setdefault(client.name, {})[command.publisher_seq] = command.command_id or ""
        if chance() < 2 * world.rates["muddle"]:
            _muddle(client.plan, chance)


def _sent_by_others(world: World, client: Client) -> list[CommandMessage]:
    """Commands of the other parties that have their own plans already, in the same lane or in another."""
    planned = [command for other in world.clients for commands in other.plan for command in commands]
    return [command for command in planned if command.command_id is not None and command.publisher != client.name]


def _shared(world: World, client: Client, theirs: CommandMessage, sequence: int) -> CommandMessage:
    """Another party's id: with its content, if that is for the same lane, or with another."""
    ours = _message(world, client, theirs.command_id or "", sequence)
    is_same = (ours.type, ours.command_version, ours.arguments, ours.expected_version) == (
        theirs.type,
        theirs.command_version,
        theirs.arguments,
        theirs.expected_version,
    )
    is_ours = (theirs.type or "").startswith(f"{client.lane}.")
    if ours.command_id is not None and not is_same and not (is_ours and world.chance() < 0.3):
        return ours
    # Where the contents are the same, so are their other fields: nobody could tell whose command was applied.
    if not is_ours:
        return CommandMessage(command_id=theirs.command_id, type=f"{client.lane}.unknown", arguments=b"{}")
    mine = (client.name, sequence) if client.has_session else (None, None)
    return structs.replace(theirs, publisher=mine[0], publisher_seq=mine[1])


def _muddle(issues: Sequence[list[CommandMessage]], chance: Callable[[], float]) -> None:
    """Have numbers of a session in another order than the messages, and than the packs, that hold them."""
    for one, other in pairwise(issues):
        here, there = int(chance() * len(one)), int(chance() * len(other))
        if chance() < 0.5 and one[here].publisher is not None and other[there].publisher is not None:
            one[here], other[there] = other[there], one[here]
    for commands in issues:
        if len(commands) > 1 and chance() < 0.5:
            first = int(chance() * (len(commands) - 1))
            commands[first], commands[first + 1] = commands[first + 1], commands[first]


def _other(message: CommandMessage) -> CommandMessage:
    """The same id with another content: other arguments, or another type too."""
    others = {"ledger.deposit": Deposit(id=1, amount=99), "journal.note": WriteNote(account=1, amount=99)}
    command = others.get(message.type or "", OpenAccount(owner="z"))
    if (command.type, _encode(command)) == (message.type, message.arguments):
        # A copy without a number has no place to wait for: it may come before its session's.
        command = OpenAccount(owner="zz")
    return CommandMessage(command_id=message.command_id, type=command.type, arguments=_encode(command))


def _together(world: World, client: Client) -> list[Command]:
    """The commands of one message that are about each other; mostly none are."""
    found = contests.contest(world) if _is_of(world, client, "contested") else []
    return rules.turn(world) if _is_of(world, client, "ruled") else found


def _is_of(world: World, client: Client, kind: str) -> bool:
    rate = world.rates[kind]
    return rate > 0.0 and client.lane == "ledger" and world.chance() < rate


def _plain(world: World, client: Client, command_id: str, sequence: int, command: Command) -> CommandMessage:
    publisher, number = (client.name, sequence) if client.has_session else (None, None)
    return CommandMessage(
        command_id=command_id,
        type=command.type,
        arguments=_encode(command),
        publisher=publisher,
        publisher_seq=number,
        actor=rules.somebody(world),
    )


def _message(world: World, client: Client, command_id: str, sequence: int) -> CommandMessage:
    chance = world.chance
    options: dict[str, Any] = {"actor": rules.somebody(world)} if world.rates["ruled"] else {}
    if client.has_session:
        options |= {"publisher": client.name, "publisher_seq": sequence}
    if chance() < world.rates["deadline"]:
        options["deadline_ms"] = int(world.wall().timestamp() * 1000 + chance() * 2500)
    if chance() < world.rates["malformed"]:
        kind = chance()
        if kind < 0.3 and not client.has_session:
            return CommandMessage(command_id=None, type=f"{client.lane}.deposit", arguments=b"{}")
        if kind < 0.6:
            return CommandMessage(command_id=command_id, type=f"{client.lane}.unknown", arguments=b"{}", **options)
        return CommandMessage(command_id=command_id, type=f"{client.lane}.note", arguments=b"[1]", **options)
    if chance() < world.rates["continued"]:
        options["continuation"] = ("ledger.heard", "ledger.heard", "archive.heard")[int(chance() * 3)]
    if client.lane == "ledger" and world.rates["timers"] and chance() < world.rates["timers"]:
        command = timers.planned(world, command_id)
    else:
        command = _ledger(world) if client.lane == "ledger" else world.releases.sent(_journal(world), options)
    if isinstance(command, Deposit | Relay) and chance() < world.rates["expected"]:
        options["expected_version"] = 1 + int(chance() * 6)
    return CommandMessage(command_id=command_id, type=command.type, arguments=_encode(command), **options)


def _journal(world: World) -> Command:
    chance = world.chance
    return WriteNote(account=1 + int(chance() * _ACCOUNTS), amount=int(chance() * 9), back=chance() < 0.3)


def _ledger(world: World) -> Command:
    chance = world.chance
    rates = world.rates
    # Where commands wait for their key there must be many of one key.
    key = 1 + int(chance() * (_ACCOUNTS if rates["fragile"] == 0.0 else _ACCOUNTS // 2))
    kind = chance()
    owner = _OWNERS[int(chance() * len(_OWNERS))]
    amount = int(chance() * 20)
    for share, make in _SHARES:
        kind -= rates[share] if isinstance(share, str) else share
        if kind < 0:
            return make(key, owner, amount)
    return Deposit(id=key, amount=1)


_SHARES: tuple[tuple[str | float, Callable[[int, str, int], Command]], ...] = (
    ("tamper", lambda key, owner, amount: Tamper(id=key, how=_HOWS[amount % len(_HOWS)])),
    ("fragile", lambda key, owner, amount: Fragile(id=key, amount=amount + 1)),
    ("effects", lambda key, owner, amount: Buy(amount=amount)),
    ("archive", lambda key, owner, amount: Keep(number=amount)),
    ("postponed", lambda key, owner, amount: Postpone(id=key) if amount < 10 else Resume(id=key)),
    ("remark", lambda key, owner, amount: Remark(id=key, note=MENDED if amount < 10 else None)),
    (0.22, lambda key, owner, amount: OpenAccount(owner=owner)),
    (0.30, lambda key, owner, amount: Deposit(id=key, amount=amount - 6)),
    (0.12, lambda key, owner, amount: Relay(id=key, amount=amount // 3)),
    (0.08, lambda key, owner, amount: Forward(id=key, amount=amount // 2)),
    (0.06, lambda key, owner, amount: Rename(id=key, owner=owner)),
    (0.04, lambda key, owner, amount: Close(id=key)),
    ("strict", lambda key, owner, amount: Strict(id=key, crash=amount < 10)),
)
"""What comes how often, as a share or as the name of this seed's rate, and how it is made."""
