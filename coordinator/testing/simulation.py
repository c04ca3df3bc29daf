"""`simulate`: whether a service's handlers do the same whatever happens to their lane.

A lane applies a command in a batch with others, and again after a crash, a takeover, a conflict or an answer that was
lost. So a handler may use its command and the rows alone. Each seed decides a history of random commands, in random
batches, in which all of this happens. Then the same commands are applied one by one, in order, to an empty database:
outcomes, rows and emitted commands must be the same.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from coordinator.runtime.extras import naming_the_extra
from coordinator.service.authors_code import shown_function
from coordinator.service.commands import Command
from coordinator.service.continuation import Continuation
from coordinator.service.principal import Principal
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.row_defects import check_declaration
from coordinator.testing.changed_rows import copies_of
from coordinator.testing.differences import SHOWN_MAX, Finding, difference, shown
from coordinator.testing.elsewhere import Unreachable, other_processes
from coordinator.testing.forbidden_calls import ForbiddenCall, watched
from coordinator.testing.history import BatchPlan, Draw, History, history_of, smaller, with_other_ids
from coordinator.testing.meeting import rehearse
from coordinator.testing.never_applied import Tally
from coordinator.testing.older import Older
from coordinator.testing.running import Endless, Ran, Rehearsal, run, run_one_by_one

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy
else:
    SearchStrategy = Sequence

Commands: TypeAlias = (
    Sequence[Command | Older] | Callable[[Random], Command | Older] | SearchStrategy[Command] | SearchStrategy[Older]
)
"""Those to choose from, a function that makes one, or a strategy of hypothesis."""

_POOL: Final = 100
"""So many commands of each type are made at a time."""
_SEEDS_OF_POOL: Final = 250
"""So many seeds choose from the same ones."""
ELSEWHERE_MAX: Final = 50
"""So many histories are tried in other processes, too."""
_TRIES_MAX: Final = 400
"""Attempts to find a smaller history that fails."""


class SimulationFailed(AssertionError):
    """Raised for a handler that does not do the same each time; names it, the command, the seed and the history."""


def simulate(
    service: Service,
    commands: Commands | None = None,
    *,
    seeds: int | Iterable[int] = 500,
    given: Sequence[Row] = (),
    actors: Sequence[Principal] = (),
    may_fail: bool = False,
    elsewhere: bool | None = None,
) -> None:
    """Run the histories of so many seeds, or of these. Raises SimulationFailed for the first that shows a fault.

    `commands` are those to choose from, a function that makes one with a `random.Random`, or a strategy of hypothesis;
    None: commands of all types but continuations, made from the types of their fields, for which hypothesis must be
    installed; about half of them have values of rows in the arguments by which they look for rows. `given` are the rows
    that the database has at first. With `actors` one of
    them asks for each public command, so that the rules of commands (`allow`) are tried, too; otherwise the system
    issues all. An exception of a handler is a fault as well, unless
    it `may_fail`. A handler that has applied none of its commands is named in a warning, NeverApplied.

    `elsewhere`: whether the first `ELSEWHERE_MAX` histories are tried in two other processes, too, with other hashes of
    texts, another time zone and another working folder, and with a takeover in the middle by a process that has applied
    nothing: what a handler keeps between commands is found so. They import the service by its name in its module.
    None: if it has one; True: a service without one is a ValueError; False: no.

    Raises ConfigurationError for a service that is declared wrongly, TypeError for a command that cannot be made from
    its type, ValueError where there are no commands, and RuntimeError where another process does not get far.
    """
    check_declaration(service)
    for actor in actors:
        if not isinstance(actor, Principal):
            raise TypeError(f"actors must be Principals, such as Principal(subject='ada'), not {actor!r:.100}")
    history_for = cache(_histories(service, commands, given, actors))
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    tally = Tally()

    def tried(history: History) -> Finding | None:
        return _tried(service, history, given, tally, may_fail=may_fail)

    for seed in numbers:
        _check(service, seed, history_for(seed), tried)
    tally.warn(service, stacklevel=2)
    if elsewhere is False:
        return
    try:
        with other_processes(service, given) as processes:

            def tried_elsewhere(history: History) -> Finding | None:
                return processes.difference(run(service, history, given).course)

            for seed in numbers[:ELSEWHERE_MAX]:
                _check(service, seed, history_for(seed), tried_elsewhere)
    except Unreachable as unreachable:
        if elsewhere:
            raise ValueError(f"elsewhere=True: {unreachable}") from None


def _check(service: Service, seed: int, history: History, tried: Callable[[History], Finding | None]) -> None:
    """Raises SimulationFailed for a history in which something is wrong."""
    finding = tried(history)
    if finding is not None:
        history, finding = _smallest(history, finding, tried)
        raise SimulationFailed(_told(service, seed, history, finding))


def _histories(
    service: Service, commands: Commands | None, given: Sequence[Row], actors: Sequence[Principal]
) -> Callable[[int], History]:
    """By seed: its history."""
    asked = frozenset(handler.command.type for handler in service.public_handlers)
    if commands is None:
        return _made_up(service, given, actors, asked)
    draw_for = _draws(commands)
    return lambda seed: history_of(seed, draw_for(seed), actors, asked)


def _draws(commands: Commands) -> Callable[[int], Draw]:
    """By seed: how commands are made."""
    if isinstance(commands, Sequence):
        if not commands:
            raise ValueError("there are no commands to choose from")
        return lambda _: lambda chance: chance.choice(commands)
    if callable(commands):
        make: Draw = commands
        return lambda _: make
    with naming_the_extra():
        from coordinator.testing.strategies import drawn  # noqa: PLC0415  # it needs hypothesis
    strategy: SearchStrategy[Any] = commands
    pool = cache(lambda block: drawn(strategy, _POOL, block))
    return lambda seed: lambda chance: chance.choice(pool(seed // _SEEDS_OF_POOL))


def _made_up(
    service: Service, given: Sequence[Row], actors: Sequence[Principal], asked: frozenset[str]
) -> Callable[[int], History]:
    """Histories of commands of all types, of which some meet the rows that there are."""
    types = [handler.command for handler in service.handlers if not issubclass(handler.command, Continuation)]
    if not types:
        raise ValueError(f"service {service.name} handles no commands")

    @cache
    def pools(block: int) -> list[list[Command]]:
        return [pool for pool in (_pool(each, block) for each in types) if pool]

    known = rehearse(service, pools(0), given, actors)

    def history_for(seed: int) -> History:
        these, there = pools(seed // _SEEDS_OF_POOL), Rehearsal(service, given)

        def draw(chance: Random) -> Command:
            return known.met(chance.choice(chance.choice(these)), there, chance)

        return history_of(seed, draw, actors, asked, there.send)

    return history_for


_pools: dict[tuple[type[Command], int], list[Command]] = {}
"""Of all runs in this process: making them takes longer than most runs."""


def _pool(command: type[Command], block: int) -> list[Command]:
    with naming_the_extra():
        from coordinator.testing.strategies import commands_of, drawn  # noqa: PLC0415  # it needs hypothesis

    if (command, block) not in _pools:
        _pools[command, block] = drawn(commands_of(command), _POOL, block)
    return _pools[command, block]


def _tried(service: Service, history: History, given: Sequence[Row], tally: Tally, *, may_fail: bool) -> Finding | None:
    """What is wrong in this history; None: nothing is."""
    calls: list[ForbiddenCall] = []
    copies = copies_of(service)
    watching = service.replace(handlers=[watched(handler, calls, copies) for handler in service.handlers])
    try:
        ran = run(service, history, given)
        alone = run_one_by_one(watching, ran.course, given)
    except Endless as endless:
        return Finding("is endless", "", str(endless))
    tally.count(alone)
    if calls:
        return _call(calls[0])
    finding = difference(ran, alone)
    if finding is None and not may_fail:
        return _failure(alone)
    if finding is not None and difference(alone, run_one_by_one(service, ran.course, given)) is not None:
        again = "Even one by one, twice: it keeps something of one run for the next, or uses chance or the clock."
        return msgspec.structs.replace(finding, text=f"{finding.text}\n  {again}")
    return finding


def _call(call: ForbiddenCall) -> Finding:
    text = f"it {call.does}: {call.name}, {call.place}\n  command: {_shown_command(call.command)}"
    return Finding("calls", call.command.type, text)


def _failure(ran: Ran) -> Finding | None:
    for message in ran.order:
        entry = ran.entries.get(message.command_id or "")
        if entry is not None and entry.status == "failed":
            reason = ran.reasons.get(entry.command_id) or entry.error_message
            text = f"it fails: {reason} (may_fail=True, if it may)\n  command: {shown(message)}"
            return Finding("fails", entry.type, text)
    return None


def _smallest(
    history: History, finding: Finding, tried: Callable[[History], Finding | None]
) -> tuple[History, Finding]:
    """Leave out of a history whatever is not needed for the same to be wrong."""
    tries, is_smaller = 0, finding.kind != "is endless"
    while is_smaller:
        is_smaller = False
        for less in smaller(history):
            tries += 1
            if tries > _TRIES_MAX:
                return history, finding
            found = tried(with_other_ids(less, tries))
            if found is not None and (found.kind, found.type) == (finding.kind, finding.type):
                history, finding, is_smaller = less, found, True
                break
    return history, finding


def _told(service: Service, seed: int, history: History, finding: Finding) -> str:
    handler = next((each for each in service.handlers if each.command.type == finding.type), None)
    subject = f"{service.name}" if handler is None else f"{finding.type}, handler {shown_function(handler.handle)}"
    rule = "  A handler uses its command and its unit of work, and nothing else: the time is work.now.\n"
    is_impure = finding.kind in ("calls", "differs", "differs elsewhere", "is kept")
    batches = "\n".join(f"    {number}. {_shown_batch(batch)}" for number, batch in enumerate(history.batches, 1))
    return (
        f"{subject}: {finding.text}\n  seed {seed}, transactions of at most {history.transaction_max}; "
        f"the batches, as small as they fail:\n{batches}\n"
        f"{rule if is_impure else ''}  Again: simulate(…, seeds=[{seed}])"
    )


def _shown_batch(batch: BatchPlan) -> str:
    commands = ", ".join(
        _shown_command(sent.command) + (f" of {sent.actor.subject}" if sent.actor else "") for sent in batch.sent
    )
    return f"{commands}{f' — {batch.fault}' if batch.fault else ''}"


def _shown_command(command: Command | Older) -> str:
    return f"{command!r:.{SHOWN_MAX}}"
