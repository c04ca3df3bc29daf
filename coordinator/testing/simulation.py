"""`simulate`: whether a service's handlers do the same whatever happens to their lane.

A lane applies a command in a batch with others, and again after a crash, a takeover, a conflict or an answer that was
lost. So a handler may use its command and the rows alone. Each seed decides a history of random commands, in random
batches, in which all of this happens. Then the same commands are applied one by one, in order, to an empty database:
outcomes, rows and emitted commands must be the same.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.extras import naming_the_extra
from coordinator.service.commands import Command
from coordinator.service.continuation import Continuation
from coordinator.service.rows import Key, Row
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.row_defects import check_declaration
from coordinator.testing.forbidden_calls import ForbiddenCall, watched
from coordinator.testing.history import BatchPlan, Draw, History, history_of, smaller, with_other_ids
from coordinator.testing.older import Older
from coordinator.testing.running import Endless, Ran, run, run_one_by_one

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
_TRIES_MAX: Final = 400
"""Attempts to find a smaller history that fails."""
_SHOWN_MAX: Final = 1000


class SimulationFailed(AssertionError):
    """Raised for a handler that does not do the same each time; names it, the command, the seed and the history."""


class _Finding(Struct, frozen=True):
    """What is wrong, and with commands of which type; empty: that is not known."""

    kind: Literal["calls", "differs", "fails", "is endless"]
    type: str
    text: str


def simulate(
    service: Service,
    commands: Commands | None = None,
    *,
    seeds: int | Iterable[int] = 500,
    given: Sequence[Row] = (),
    may_fail: bool = False,
) -> None:
    """Run the histories of so many seeds, or of these. Raises SimulationFailed for the first that shows a fault.

    `commands` are those to choose from, a function that makes one with a `random.Random`, or a strategy of hypothesis;
    None: commands of all types but continuations, made from the types of their fields, for which hypothesis must be
    installed. `given` are the rows that the database has at first. An exception of a handler is a fault as well, unless
    it `may_fail`.

    Raises ConfigurationError for a service that is declared wrongly, TypeError for a command that cannot be made from
    its type, and ValueError where there are no commands.
    """
    check_declaration(service)
    draw_for = _draws(service, commands)
    for seed in range(seeds) if isinstance(seeds, int) else seeds:
        history = history_of(seed, draw_for(seed))
        finding = _tried(service, history, given, may_fail=may_fail)
        if finding is not None:
            history, finding = _smallest(service, history, finding, given, may_fail=may_fail)
            raise SimulationFailed(_told(service, seed, history, finding))


def _draws(service: Service, commands: Commands | None) -> Callable[[int], Draw]:
    """By seed: how commands are made."""
    if isinstance(commands, Sequence):
        if not commands:
            raise ValueError("there are no commands to choose from")
        return lambda _: lambda chance: chance.choice(commands)
    if callable(commands):
        make: Draw = commands
        return lambda _: make
    return _from_strategies(service, commands)


def _from_strategies(service: Service, strategy: Any) -> Callable[[int], Draw]:
    with naming_the_extra():
        from coordinator.testing.strategies import drawn  # noqa: PLC0415  # it needs hypothesis
    types = [handler.command for handler in service.handlers if not issubclass(handler.command, Continuation)]
    if not types:
        raise ValueError(f"service {service.name} handles no commands")

    @cache
    def pools(block: int) -> list[list[Command]]:
        made = [_pool(each, block) for each in types] if strategy is None else [drawn(strategy, _POOL, block)]
        return [pool for pool in made if pool]

    def draw_for(seed: int) -> Draw:
        these = pools(seed // _SEEDS_OF_POOL)
        return lambda chance: chance.choice(chance.choice(these))

    return draw_for


_pools: dict[tuple[type[Command], int], list[Command]] = {}
"""Of all runs in this process: making them takes longer than most runs."""


def _pool(command: type[Command], block: int) -> list[Command]:
    from coordinator.testing.strategies import commands_of, drawn  # noqa: PLC0415  # it needs hypothesis

    if (command, block) not in _pools:
        _pools[command, block] = drawn(commands_of(command), _POOL, block)
    return _pools[command, block]


def _tried(service: Service, history: History, given: Sequence[Row], *, may_fail: bool) -> _Finding | None:
    """What is wrong in this history; None: nothing is."""
    calls: list[ForbiddenCall] = []
    watching = service.replace(handlers=[watched(handler, calls) for handler in service.handlers])
    try:
        ran = run(service, history, given)
        alone = run_one_by_one(watching, ran, given)
    except Endless as endless:
        return _Finding("is endless", "", str(endless))
    if calls:
        return _call(calls[0])
    finding = _difference(ran, alone)
    if finding is None and not may_fail:
        return _failure(alone)
    if finding is not None and _difference(alone, run_one_by_one(service, ran, given)) is not None:
        again = "Even one by one, twice: it keeps something of one run for the next, or uses chance or the clock."
        return msgspec.structs.replace(finding, text=f"{finding.text}\n  {again}")
    return finding


def _call(call: ForbiddenCall) -> _Finding:
    text = f"it {call.does}: {call.name}, {call.place}\n  command: {_shown_command(call.command)}"
    return _Finding("calls", call.command.type, text)


def _failure(ran: Ran) -> _Finding | None:
    for message in ran.order:
        entry = ran.entries.get(message.command_id or "")
        if entry is not None and entry.status == "failed":
            reason = ran.reasons.get(entry.command_id) or entry.error_message
            text = f"it fails: {reason} (may_fail=True, if it may)\n  command: {_shown(message)}"
            return _Finding("fails", entry.type, text)
    return None


def _difference(ran: Ran, alone: Ran) -> _Finding | None:
    """The first difference between the two, in the order of the commands."""
    by_id = {message.command_id or "": message for message in ran.order}
    for command_id, message in by_id.items():
        outcomes = [_outcome(each, command_id) for each in (ran, alone)]
        if outcomes[0] != outcomes[1]:
            return _differs(message, "its outcome", *outcomes)
    for model in ran.rows:
        of_ran, of_alone = ran.rows[model], alone.rows[model]
        for key in (*of_ran, *(key for key in of_alone if key not in of_ran)):
            if of_ran.get(key) != of_alone.get(key):
                by = _last_to_change(model, key, ran, alone, by_id)
                return _differs(by, f"{model.__name__} {key!r}", of_ran.get(key), of_alone.get(key))
    return _emission_difference(ran, alone, by_id)


def _emission_difference(ran: Ran, alone: Ran, by_id: dict[str, CommandMessage]) -> _Finding | None:
    """The ids of what is emitted say what it is: what differs in anything has another id."""
    of_ran = [message for command_id, message in ran.emitted.items() if command_id not in alone.emitted]
    of_alone = [message for command_id, message in alone.emitted.items() if command_id not in ran.emitted]
    if not of_ran and not of_alone:
        return None
    # One by one, it is known of each who has emitted it.
    (emitted, emitters) = (of_alone[0], alone.emitters) if of_alone else (of_ran[0], ran.emitters)
    by = by_id.get(emitters.get(emitted.command_id or "", ""))
    return _differs(by, "what it emits", _shown(next(iter(of_ran), None)), _shown(next(iter(of_alone), None)))


def _differs(message: CommandMessage | None, what: str, in_batches: object, one_by_one: object) -> _Finding:
    texts = _texts(what, in_batches, one_by_one)
    if message is None:
        return _Finding("differs", "", texts)
    return _Finding("differs", message.type or "", f"{texts}\n  command: {_shown(message)}")


def _texts(what: str, in_batches: object, one_by_one: object) -> str:
    return f"{what} is not always the same:\n    in batches, with faults: {in_batches}\n    one by one: {one_by_one}"


def _outcome(ran: Ran, command_id: str) -> str:
    entry = ran.entries.get(command_id)
    if entry is None:
        return "it waits for its key" if command_id in ran.waiting else "it was not applied"
    return _shown_outcome(entry)


def _shown_outcome(entry: LogEntry) -> str:
    if entry.status == "rejected":
        return f'rejected with "{entry.error_code}": {entry.error_message}'
    # The text of an exception may name an object's address.
    return entry.status + (f" with {entry.error_code}" if entry.error_code else f": {entry.result}")


def _last_to_change(
    model: type[Row], key: Key, ran: Ran, alone: Ran, by_id: dict[str, CommandMessage]
) -> CommandMessage | None:
    """Of the commands that have changed a row: one by one, else in the batch that has."""
    for each in (alone, ran):
        for change in reversed(each.changes):
            if (change.model, change.key) == (model, key):
                return by_id.get(change.command_ids[-1]) if change.command_ids else None
    return None


def _smallest(
    service: Service, history: History, finding: _Finding, given: Sequence[Row], *, may_fail: bool
) -> tuple[History, _Finding]:
    """Leave out of a history whatever is not needed for the same to be wrong."""
    tries, is_smaller = 0, finding.kind != "is endless"
    while is_smaller:
        is_smaller = False
        for less in smaller(history):
            tries += 1
            if tries > _TRIES_MAX:
                return history, finding
            found = _tried(service, with_other_ids(less, tries), given, may_fail=may_fail)
            if found is not None and (found.kind, found.type) == (finding.kind, finding.type):
                history, finding, is_smaller = less, found, True
                break
    return history, finding


def _told(service: Service, seed: int, history: History, finding: _Finding) -> str:
    handler = next((each for each in service.handlers if each.command.type == finding.type), None)
    subject = f"{service.name}" if handler is None else f"{finding.type}, handler {_name(handler)}"
    batches = "\n".join(f"    {number}. {_shown_batch(batch)}" for number, batch in enumerate(history.batches, 1))
    return (
        f"{subject}: {finding.text}\n  seed {seed}, transactions of at most {history.transaction_max}; "
        f"the batches, as small as they fail:\n{batches}\n"
        "  A handler uses its command and its unit of work, and nothing else: the time is work.now.\n"
        f"  Again: simulate(…, seeds=[{seed}])"
    )


def _name(handler: Handler[Any]) -> str:
    function: Any = handler.handle
    code = getattr(function, "__code__", None)
    place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
    return f"{getattr(function, '__qualname__', function)}{place}"


def _shown_batch(batch: BatchPlan) -> str:
    commands = ", ".join(_shown_command(sent.command) for sent in batch.sent)
    return f"{commands}{f' — {batch.fault}' if batch.fault else ''}"


def _shown_command(command: Command | Older) -> str:
    return f"{command!r:.{_SHOWN_MAX}}"


def _shown(message: CommandMessage | None) -> str:
    return "nothing" if message is None else f"{message.type} {bytes(message.arguments).decode():.{_SHOWN_MAX}}"
