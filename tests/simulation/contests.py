"""Commands of one message that want the same owner: one takes it and is refused after that, and must leave no trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from coordinator.service.commands import Command
from tests.support.ledger import OpenAccount, Rename

if TYPE_CHECKING:
    from tests.simulation.world import World

SHARE = 0.12
"""Of the seeds, in which owners are contested."""
_OWNERS = "uvwxyz"
"""Nobody else wants these, so that mostly they are free."""
_ACCOUNTS = 3


def rate(seed: int) -> float:
    """How many messages are contests.

    By a chance of its own: a seed without contests is as it was before there were any.
    """
    chance = random.Random(f"contests {seed}").random
    return 0.2 + chance() * 0.4 if chance() < SHARE else 0.0


def contest(world: World) -> list[Command]:
    """Some account is to be renamed, which few can pay; and others want its name, the new one or the one of before."""
    chance = world.chance
    wanted = _OWNERS[int(chance() * len(_OWNERS))]
    before = _OWNERS[int(chance() * len(_OWNERS))]
    commands: list[Command] = [OpenAccount(owner=before)] if chance() < 0.5 else []
    commands.append(Rename(id=_account(chance), owner=wanted))
    owner = wanted if chance() < 0.7 else before
    commands.append(OpenAccount(owner=owner) if chance() < 0.5 else Rename(id=_account(chance), owner=owner))
    return commands


def _account(chance: Callable[[], float]) -> int:
    return 1 + int(chance() * _ACCOUNTS)
