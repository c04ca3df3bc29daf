"""Who may: clients of a gateway that says who asks, commands with rules over the rows, and scopes that come and go.

What the rules should have said, the model says: of each command in its place in the order, of the rows as they are
then. Whoever sends a command again is told what was decided of it, whatever he may do by then; anybody else is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import structs

from coordinator.protocol.actors import is_anothers
from coordinator.protocol.wire import CommandMessage
from coordinator.service.commands import Command
from coordinator.service.outcome import Outcome
from coordinator.service.principal import Principal
from coordinator.stores.lane_tables import LogEntry
from tests.simulation.letters import MISMATCH
from tests.simulation.services import CLERK, CLERKS_ONLY, RULED, Fee, Spend
from tests.support.ledger import Close, Deposit, OpenAccount, Rename

if TYPE_CHECKING:
    from tests.simulation.client import Client
    from tests.simulation.world import World

SHARE = 0.2
"""Of the seeds, in which somebody asks."""
GATEWAY = "gateway"
"""The broker's account of all clients in these seeds."""
SUBJECTS = "ab"
"""Owners of accounts, among others."""
AGAIN = 0.4
_ACCOUNTS = 3


def rate(seed: int) -> float:
    """How many messages have commands with rules.

    By a chance of its own: a seed without rules is as it was before there were any.
    """
    chance = random.Random(f"rules {seed}").random
    return 0.3 + chance() * 0.4 if chance() < SHARE else 0.0


def somebody(world: World) -> Principal | None:
    """For whom a client asks next; None: it does not say."""
    chance = world.chance
    if not world.rates["ruled"] or chance() < 0.05:
        return None
    scopes = frozenset({CLERK}) if chance() < 0.25 else frozenset[str]()
    return Principal(subject=SUBJECTS[int(chance() * len(SUBJECTS))], scopes=scopes)


def turn(world: World) -> list[Command]:
    """The commands of one message: an account becomes somebody's, or nobody's, and somebody is to spend of it."""
    chance = world.chance
    key = 1 + int(chance() ** 2 * _ACCOUNTS)
    kind, owner = chance(), SUBJECTS[int(chance() * len(SUBJECTS))]
    first: Command = Deposit(id=key, amount=9)
    if kind < 0.4:
        first = OpenAccount(owner=owner)
    elif kind < 0.65:
        first = Rename(id=key, owner=owner)
    elif kind < 0.75:
        first = Close(id=key)
    return [first, *(_spent(chance, key) for _ in range(1 + int(chance() * 2)))]


def _spent(chance: Callable[[], float], key: int) -> Command:
    """With an amount of 0 it crashes if it is let through; with less it is a gift."""
    make = Fee if chance() < 0.2 else Spend
    return make(id=key, amount=int(chance() * 6) - 3)


def is_refused(message: CommandMessage, given: Mapping[str, Any], accounts: Mapping[int, Mapping[str, Any]]) -> bool:
    """What the model says of a command, of accounts as they are."""
    if message.type not in RULED or message.origin == "system":
        return False
    actor = message.actor
    if actor is None:
        return True
    account = accounts.get(given["id"])
    is_his = account is not None and account["owner"] == actor.subject and message.type not in CLERKS_ONLY
    return not (CLERK in actor.scopes or is_his)


def is_refused_at_once(message: CommandMessage) -> bool:
    """Whether it is refused whatever the rows are: then it waits for nothing."""
    return is_refused(message, {"id": 0}, {}) and (message.actor is None or message.type in CLERKS_ONLY)


def wrong_actor(message: CommandMessage, entry: LogEntry) -> str | None:
    """Who asked is in the log, of commands with rules."""
    if message.type not in RULED or message.defect is not None:
        return None
    actor = None if message.actor is None else message.actor.as_logged
    return None if entry.actor == actor else f"is said to be of {entry.actor}, and is of {actor}"


def told(client: Client, command: CommandMessage, outcome: Outcome) -> None:
    """A client has an outcome. Now and then the same command comes again: of the same one, who may do other things by
    now, or of somebody else, who has learned of it."""
    world = client.world
    database = world.databases[client.lane]
    entry = database.table(LogEntry).get(command.command_id)
    if entry is None or not database.is_of(entry, command):
        return
    is_mismatch = outcome.error is not None and outcome.error.code == MISMATCH
    is_same = (outcome.sequence, outcome.status) == (entry.sequence, entry.status)
    if is_mismatch if not is_anothers(entry.actor, command.actor) else not is_mismatch:
        world.violation(f"{command.command_id} of {entry.actor}: {command.actor} was told {outcome}")
    elif not is_mismatch and not is_same:
        world.violation(f"{command.command_id}: {command.actor} was told {outcome}, and the log has {entry}")
    if not world.is_calm and outcome.sequence is not None and not outcome.replayed and world.chance() < AGAIN:
        actor = somebody(world)
        if actor is not None and command.actor is not None and world.chance() < 0.6:
            actor = structs.replace(actor, subject=command.actor.subject)
        client.plan.append([structs.replace(command, actor=actor, publisher=None, publisher_seq=None)])
