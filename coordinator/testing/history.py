"""A history that a seed decides: which commands come, in which batches, and what goes wrong at each."""

from collections.abc import Callable, Container, Iterator, Sequence
from datetime import timedelta
from random import Random
from typing import Final, Literal, get_args
from uuid import UUID

import msgspec
from msgspec import Struct

from coordinator.service.commands import Command
from coordinator.service.errors import InvalidCommand
from coordinator.service.principal import Principal
from coordinator.testing.older import Older

Fault = Literal[
    "conflict",
    "crash before the commit",
    "crash after the commit",
    "no answer to a commit",
    "no answer, and no commit",
    "takeover by another process",
]
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)
_FAULT_RATE: Final = 0.5
_REPEATED_RATE: Final = 0.15
_NAMED_RATE: Final = 0.5
_BATCHES_MAX: Final = 8
_BATCH_MAX: Final = 6
_PAUSES: Final = (timedelta(milliseconds=5), timedelta(seconds=1), timedelta(minutes=10), timedelta(days=1))

Draw = Callable[[Random], Command | Older]


class Sent(Struct, frozen=True):
    """A command under its id; once more it is a repetition. `actor` has asked a gateway for it; None: nobody has."""

    command_id: str
    command: Command | Older
    actor: Principal | None = None


class BatchPlan(Struct, frozen=True):
    """The commands that come together, how long after those before, and what goes wrong; None: nothing."""

    sent: tuple[Sent, ...]
    pause: timedelta
    fault: Fault | None = None


class History(Struct, frozen=True):
    """What happens to a lane. `transaction_max`: how many commands it may have in one transaction."""

    batches: tuple[BatchPlan, ...]
    transaction_max: int


def history_of(
    seed: int,
    draw: Draw,
    actors: Sequence[Principal] = (),
    asked: Container[str] = (),
    note: Callable[[Sent], object] | None = None,
) -> History:
    """The history of a seed, of commands that `draw` makes. One of `actors` asks for each of the types in `asked`.

    Each command is told to `note` before the next one is made.
    """
    chance = Random(seed)  # noqa: S311  # it is to be the same again
    known: list[Sent] = []
    batches = []
    for _ in range(chance.randint(1, _BATCHES_MAX)):
        sent = []
        for _ in range(chance.randint(1, _BATCH_MAX)):
            if known and chance.random() < _REPEATED_RATE:
                sent.append(chance.choice(known))
            else:
                new = Sent(str(UUID(int=chance.getrandbits(128), version=4)), draw(chance))
                new = asked_for(new, actors, asked, chance)
                sent.append(new)
                known.append(new)
                if note is not None:
                    note(new)
        fault = chance.choice(FAULTS) if chance.random() < _FAULT_RATE else None
        batches.append(BatchPlan(tuple(sent), chance.choice(_PAUSES), fault))
    return History(tuple(batches), chance.choice((1, 2, 500)))


def asked_for(sent: Sent, actors: Sequence[Principal], asked: Container[str], chance: Random) -> Sent:
    """The command as one of the actors asks for it, if it is of a type in `asked`: half of them have his name in one of
    their texts, since a rule may compare the two, and texts that are made up never are a name."""
    if not actors or sent.command.type not in asked:
        return sent
    actor, command = chance.choice(actors), sent.command
    if isinstance(command, Command) and chance.random() < _NAMED_RATE:
        texts = [name for name in command.__struct_fields__ if type(getattr(command, name)) is str]
        if texts:
            command = _with_text(command, chance.choice(texts), actor.subject)
    return Sent(sent.command_id, command, actor)


def _with_text(command: Command, name: str, text: str) -> Command:
    """The command with another text, if it may have that."""
    changed: Command = msgspec.structs.replace(command, **{name: text})
    try:
        return msgspec.json.decode(msgspec.json.encode(changed), type=type(command))
    except (msgspec.MsgspecError, ValueError, InvalidCommand):
        return command


def with_other_ids(history: History, number: int) -> History:
    """The same commands under ids of their own: a handler may remember those of another run."""
    batches = [
        msgspec.structs.replace(batch, sent=tuple(with_other_id(sent, str(number)) for sent in batch.sent))
        for batch in history.batches
    ]
    return msgspec.structs.replace(history, batches=tuple(batches))


def with_other_id(sent: Sent, name: str) -> Sent:
    """The same command under another id: one that it always has under this name."""
    other_id = str(UUID(int=Random(f"{sent.command_id} {name}").getrandbits(128), version=4))  # noqa: S311
    return msgspec.structs.replace(sent, command_id=other_id)


def smaller(history: History) -> Iterator[History]:
    """The histories with something less, the much smaller ones first."""
    batches = history.batches
    for place in range(len(batches)):
        yield msgspec.structs.replace(history, batches=batches[:place] + batches[place + 1 :])
    for place, batch in enumerate(batches):
        for at in range(len(batch.sent)):
            if len(batch.sent) > 1:
                yield _with(history, place, sent=batch.sent[:at] + batch.sent[at + 1 :])
        if batch.fault is not None:
            yield _with(history, place, fault=None)


def _with(history: History, place: int, **changes: object) -> History:
    batches = list(history.batches)
    batches[place] = msgspec.structs.replace(batches[place], **changes)
    return msgspec.structs.replace(history, batches=tuple(batches))
