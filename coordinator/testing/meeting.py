"""Commands that meet rows: `simulate` gives some of the arguments that it makes up the values of rows.

A text of a pattern, or a key of several columns, that is made up never is the key of a row. By which of its arguments a
command looks for rows is seen when it is applied: a rehearsal applies some of each type, and whatever each of them
looks for with the value of one argument is found by that argument. Nothing here depends on the seed of a history.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import cycle
from random import Random
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Struct

from coordinator.service.commands import Command
from coordinator.service.errors import InvalidCommand
from coordinator.service.principal import Principal
from coordinator.service.rows import Row, RowSelection
from coordinator.service.service import Service
from coordinator.stores.port import Read
from coordinator.testing.history import Sent, asked_for
from coordinator.testing.running import Rehearsal

_ROUNDS: Final = 2
"""So often commands are rehearsed, those of the second round with what the first has shown."""
_EACH: Final = 15
"""So many commands of a type are rehearsed in a round."""
_COMMANDS_MAX: Final = 300
"""So many are rehearsed in a round at most."""
_MEETING_RATE: Final = 0.6
"""So many commands have values of rows."""
_ROW_RATE: Final = 0.9
"""For so many of the classes by which such a command looks it has the values of a row."""
_SAME_NAME_RATE: Final = 0.4
"""So many arguments that are named like a column have the row's value, too: a handler may compare the two."""
_EACH_OF: Final = "*"
"""In a path: each element of a list."""

_Path: TypeAlias = tuple[str, ...]
_Values: TypeAlias = dict[tuple[type[Row], str], set[Any]]
"""The values by which one command has looked for rows, by class and column, as in JSON."""
_Finders: TypeAlias = dict[type[Row], dict[_Path, str]]
"""By class: the arguments by which its rows are looked for, and their columns."""


class _Seen(Struct):
    """What the commands of one type have looked for."""

    hits: dict[tuple[_Path, type[Row], str], int] = {}
    """How often an argument had a value by which was looked."""
    misses: set[tuple[_Path, type[Row], str]] = set()
    """Where it once had another one: the two are the same by chance."""

    def note(self, arguments: Any, values: _Values) -> None:
        """What a command with these arguments has looked for."""
        for path, leaves in _leaves(arguments):
            for (model, column), sought in values.items():
                if leaves <= sought:
                    self.hits[path, model, column] = self.hits.get((path, model, column), 0) + 1
                elif leaves:
                    self.misses.add((path, model, column))

    def finders(self) -> _Finders:
        """Those that are no chance, the classes with the fewest arguments first."""
        found: _Finders = {}
        for path, model, column in self.hits:
            if (path, model, column) not in self.misses:
                found.setdefault(model, {})[path] = column
        return dict(sorted(found.items(), key=lambda each: len(each[1])))


class Meeting:
    """By which arguments each command finds rows, as a rehearsal has shown."""

    def __init__(self, finders: dict[type[Command], _Finders]) -> None:
        self._finders = finders

    def met(self, command: Command, there: Rehearsal, chance: Random) -> Command:
        """The command, or the same with values of the rows that are there."""
        finders = self._finders.get(type(command))
        if not finders or chance.random() >= _MEETING_RATE:
            return command
        arguments = _plain(command)
        for model, by_path in finders.items():
            rows = there.rows(model)
            if rows and chance.random() < _ROW_RATE:
                _give(arguments, by_path, rows, there, chance)
        return _taken(type(command), arguments) or command


def rehearse(
    service: Service, pools: Sequence[Sequence[Command]], given: Sequence[Row], actors: Sequence[Principal]
) -> Meeting:
    """Apply some commands of each type, and see by what they look for rows."""
    seen: dict[type[Command], _Seen] = {}
    known = Meeting({})
    asked = frozenset(handler.command.type for handler in service.public_handlers)
    for number in range(_ROUNDS):
        chance = Random(number)  # noqa: S311  # it is to be the same again
        there = Rehearsal(service, given)
        commands = [pool[chance.randrange(len(pool))] for pool in pools for _ in range(_EACH)]
        chance.shuffle(commands)
        for made in commands[:_COMMANDS_MAX]:
            command_id = str(UUID(int=chance.getrandbits(128), version=4))
            sent = asked_for(Sent(command_id, known.met(made, there, chance)), actors, asked, chance)
            values = _values(service, there.send(sent))
            seen.setdefault(type(made), _Seen()).note(_plain(sent.command), values)
        known = Meeting({command: each.finders() for command, each in seen.items()})
    return known


def _give(arguments: Any, by_path: dict[_Path, str], rows: Sequence[Row], there: Rehearsal, chance: Random) -> None:
    """Give the arguments the values of one row. Another one has those of a second argument for the same column, and of
    a second element of a list. Where the row has no value an argument keeps its own, as few arguments may be None."""
    others = cycle(chance.sample(rows, len(rows)))
    chosen: dict[tuple[int, ...], Any] = {}

    def value_of(column: str, nth: int, places: tuple[int, ...]) -> Any:
        if (nth, *places) not in chosen:
            row = _plain(next(others))
            chosen[nth, *places] = {name: there.in_history(value) for name, value in row.items()}
        return chosen[nth, *places].get(column)

    columns: list[str] = []
    for path, column in by_path.items():
        _put(arguments, path, partial(value_of, column, columns.count(column)))
        columns.append(column)
    row = chosen.get((0,), {})
    for name in arguments:
        if (name,) not in by_path and row.get(name) is not None and chance.random() < _SAME_NAME_RATE:
            arguments[name] = row[name]


def _values(service: Service, lookups: Iterable[Read | RowSelection[Row]]) -> _Values:
    values: _Values = {}
    for lookup in lookups:
        if lookup.model not in service.models:
            continue
        for column, value in _sought(lookup):
            values.setdefault((lookup.model, column), set()).add(_leaf(_plain(value)))
    return values


def _sought(lookup: Read | RowSelection[Row]) -> Iterator[tuple[str, Any]]:
    if isinstance(lookup, RowSelection):
        yield from lookup.where
        return
    for value in lookup.values:
        if isinstance(lookup.column, tuple):
            yield from zip(lookup.column, value, strict=True)  # type: ignore[arg-type]  # then it is a tuple, too
        else:
            yield lookup.column, value


def _leaves(tree: Any, path: _Path = ()) -> Iterator[tuple[_Path, set[Any]]]:
    """The values within arguments, by their paths; those at one place of all elements of a list together."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _leaves(value, (*path, str(name)))
    elif isinstance(tree, list):
        found: dict[_Path, set[Any]] = {}
        for element in tree:
            for inner, leaves in _leaves(element, (*path, _EACH_OF)):
                found.setdefault(inner, set()).update(leaves)
        yield from found.items()
    elif tree is not None:
        yield path, {_leaf(tree)}


def _leaf(value: Any) -> Any:
    """With its type: 1 is neither True nor 1.0."""
    return type(value).__name__, value


def _put(tree: Any, path: _Path, value_at: Callable[[tuple[int, ...]], Any], places: tuple[int, ...] = ()) -> None:
    """Put values at a path; in lists at that of each element, whose places are told."""
    name, inner = path[0], path[1:]
    if isinstance(tree, list):
        for place in range(len(tree)):
            _put_at(tree, place, inner, value_at, (*places, place))
    elif isinstance(tree, dict) and name in tree:
        _put_at(tree, name, inner, value_at, places)


def _put_at(
    tree: Any, place: Any, inner: _Path, value_at: Callable[[tuple[int, ...]], Any], places: tuple[int, ...]
) -> None:
    if inner:
        _put(tree[place], inner, value_at, places)
    elif (value := value_at(places)) is not None:
        tree[place] = value


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _taken(command: type[Command], arguments: Any) -> Command | None:
    """A command with these arguments; None: it may not have them."""
    try:
        return msgspec.json.decode(msgspec.json.encode(arguments), type=command)
    except (msgspec.MsgspecError, ValueError, InvalidCommand):
        return None
