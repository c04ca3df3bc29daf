"""What is wrong with a service's declaration: all of it at once, before anything of it runs."""

import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from itertools import islice
from types import NoneType
from typing import Any, Final
from uuid import UUID

import msgspec

from coordinator.service.class_defects import defects_of_class, fields_of
from coordinator.service.commands import Command
from coordinator.service.declared import kinds_of
from coordinator.service.effect_defects import defects_of_opening
from coordinator.service.handler_defects import defects_of_handler, defects_of_rule
from coordinator.service.lane_names import RESERVED, is_name
from coordinator.service.outside_calls import Effect
from coordinator.service.rows import Ref, Row, RowSelection, WrongReference, WrongSelection, indexes_of
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, name_of
from coordinator.service.version_defects import defects_of_versions

_LANE_CHARACTERS_MAX: Final = 56
"""The room for a lane's name in the lane's own tables, where `effects.` may be before it."""
_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TAKEN: Final = frozenset({"table", "key", "unique", "index", "at", "where", "replace", "personal_of", "personal_to"})
"""The names that a field cannot have: they are the row's own."""
_TAKEN_IN_COMMANDS: Final = frozenset({"type", "lane", "arguments"})
"""The same for a command: its arguments are sent under the names that `rename` gives them."""
_TYPE: Final = re.compile(r"[A-Za-z0-9_.~-]{1,100}")
_FOUND_BY: Final = (int, str, UUID)
"""The types of keys and unique columns."""
_TIMES: Final = frozenset((date, datetime, time))
_SELECTED_BY: Final = frozenset({*_FOUND_BY, bool, Decimal, date, datetime})
"""The types of the columns of an index, beside enums: every database compares them as Python does."""
_ARGUMENTS: Final = frozenset({"limit", "after"})
"""The names of what a selection has beside its columns."""
_READS_MAX: Final = 1000
"""So many of the rows that a handler names for any command are looked at."""


def defects_of(service: Service) -> list[str]:
    """Each defect as a line that names the class or the command; empty: there are none."""
    return [
        *_of_name(service),
        *_of_models(service),
        *_of_rules(service),
        *_of_handlers(service),
        *_of_versions(service),
        *defects_of_opening(service.effects),
    ]


def _of_name(service: Service) -> Iterator[str]:
    if not is_name(service.name):
        yield f"the name {service.name!r} is not lower-case letters, digits and _, of at most 63 characters"
    if service.name in RESERVED:
        yield f"the name {service.name!r} is kept for {RESERVED[service.name]}: choose another"
    if service.tenant is not None and not is_name(service.tenant):
        yield f"the tenant {service.tenant!r} is not lower-case letters, digits and _, of at most 63 characters"
    elif service.tenant is not None and len(service.lane) > _LANE_CHARACTERS_MAX:
        yield f"the name of its lane, {service.lane}, has more than {_LANE_CHARACTERS_MAX} characters"
    if service.tenant is not None and service.projection is not None:
        yield "it has a projection, in which two tenants would have the same keys: a service with tenants has none"


def _of_models(service: Service) -> Iterator[str]:
    for model, times in Counter(service.models).items():
        if times > 1:
            yield f"{model.__name__} is declared as a row {times} times"
    by_table: dict[str, type[Row]] = {}
    for model in dict.fromkeys(service.models):
        if not _is_class(model, Row):
            yield f"{model!r:.100} is no class of rows: derive it from Row or VersionedRow"
            continue
        name = model.__name__
        table, schema = getattr(model, "table", None), getattr(model.__table__, "schema", None)
        if not isinstance(table, str) or not _TABLE.fullmatch(table):
            yield f'{name} names no table: declare it as class {name}(Row, table="…", key="…")'
        elif schema is not None:
            yield f"{name}: its table is in the schema {schema}: name none, and have the lane's role find it there"
        elif by_table.setdefault(table, model) is not model:
            yield f"{name} and {by_table[table].__name__} are rows of one table, {table}"
        yield from _of_columns(model)
    for model in dict.fromkeys(service.public_models):
        if model not in service.models:
            yield f"{getattr(model, '__name__', model)} is public, and no row of this service"


def _of_rules(service: Service) -> Iterator[str]:
    if service.allow is not None:
        yield from defects_of_rule(f"`allow` of service {service.name}", service.allow)
    for model, rule in service.row_rules.items():
        name = getattr(model, "__name__", model)
        if model not in service.models:
            yield f"{name} has an `allow`, and is no row of this service"
        elif rule is not service.allow:
            yield from defects_of_rule(f"`allow` of {name}", rule)


def _of_columns(model: type[Row]) -> Iterator[str]:
    name, fields = model.__name__, model.__struct_fields__
    audited: object = model.__audited__
    if not isinstance(audited, bool):
        yield f"{name}: audited={audited!r:.100} says neither yes nor no: write audited=True"
    hints = fields_of(model)
    if isinstance(hints, str):
        yield f"{name}: {hints}"
        return
    yield from defects_of_class(model, _TAKEN, hints, is_row=True)
    key = getattr(model, "key", None)
    yield from _of_key(name, key)
    uniques = yield from _of_uniques(model)
    keys = key if isinstance(key, tuple) else (key,)
    named = (*(("key", column, False) for column in keys), *(("unique column", column, True) for column in uniques))
    for what, column, may_be_none in named:
        if not isinstance(column, str):
            continue
        if column not in fields:
            yield f"{name} has no field {column}, which is to be its {what}"
        elif (kinds := kinds_of(hints[column])) - {NoneType} - set(_FOUND_BY) or not kinds:
            of_time = ": of a time take a text, always in one form and in UTC" if kinds & _TIMES else ""
            yield f"{name}.{column}: a {what} is an int, a str or a UUID{of_time}"
        elif NoneType in kinds and not may_be_none:
            yield f"{name}.{column}: a key is never None"
    yield from _of_indexes(model, hints)
    yield from _of_review(model, hints)


def _of_key(name: str, key: Any) -> Iterator[str]:
    if isinstance(key, tuple) and len(key) == 1 and isinstance(key[0], str):
        yield f'{name}: key={key!r:.100} is one column in a tuple: write key="{key[0]}"'
    elif isinstance(key, tuple) and len(set(key)) < len(key):
        yield f"{name}: key={key!r:.100} names a column twice"
    elif not isinstance(key, str) and not _is_names(key):
        yield f'{name} names no key: declare it as class {name}(Row, table="…", key="…"), or key=("…", "…")'


def _of_uniques(model: type[Row]) -> Generator[str, None, Sequence[str]]:
    """The names among them are returned."""
    name = model.__name__
    declared: Any = model.unique
    if isinstance(declared, str):
        yield f'{name}: unique is the text {declared!r}, and must be a tuple of names: unique=("{declared}",)'
        return (declared,)
    if not isinstance(declared, tuple | list):
        yield f'{name}: unique={declared!r:.100} is no tuple of names: write it as unique=("…",)'
        return ()
    for each in declared:
        if isinstance(each, tuple | list):
            columns = ", ".join(map(str, each))
            asked = ", ".join(f"{column}=…" for column in each)
            yield (
                f"{name}: unique={declared!r:.100} has {each!r:.100}, and each is the name of one column. Rows of "
                f"which no two may have the same {columns} need index=({tuple(each)!r:.100},), and a handler that asks "
                f"work.exists({name}, {asked}) before it adds one: nobody else writes in between"
            )
        elif not isinstance(each, str):
            yield f"{name}: unique={declared!r:.100} has {each!r:.100}, and each is the name of one column"
    return [each for each in declared if isinstance(each, str)]


def _of_indexes(model: type[Row], hints: Mapping[str, Any]) -> Iterator[str]:
    name = model.__name__
    if not _is_index(model.index):
        yield f'{name}: index={model.index!r:.100} is no tuple of columns: write it as index=("…", ("…", "…"))'
        return
    declared, keys = indexes_of(model), _names(model)
    for columns, times in Counter(declared).items():
        if times > 1 or len(set(columns)) < len(columns):
            yield f"{name}: an index over {', '.join(columns)} names an index, or a column, twice"
        else:
            yield from (f"{name}: {line}" for line in _of_key_in_index(keys, columns))
    for column in dict.fromkeys(column for columns in declared for column in columns):
        if column not in model.__struct_fields__:
            yield f"{name} has no field {column}, of which there is to be an index"
        elif column in _ARGUMENTS:
            yield f"{name}.{column}: a selection has that name for something else, so no index can have the column"
        elif wrong := [kind for kind in kinds_of(hints[column]) - {NoneType} if not _is_comparable(kind)]:
            kind = getattr(wrong[0], "__name__", wrong[0])
            yield (
                f"{name}.{column}: an index cannot have a {kind}: its columns are of the types int, str, bool, UUID, "
                "Decimal, date, datetime, enums and Literal"
            )


def _of_review(model: type[Row], hints: Mapping[str, Any]) -> Iterator[str]:
    name = model.__name__
    declared: Any = model.__review__
    if declared is None:
        return
    if not (isinstance(declared, tuple) and len(declared) == 2 and isinstance(declared[0], str)):  # noqa: PLR2004
        yield f'{name}: review={declared!r:.100} is no column with a value: write it as review=("…", "…")'
        return
    column, value = declared
    if column not in model.__struct_fields__:
        yield f"{name} has no field {column}, by which a row is to need a review"
        return
    try:
        # An enum's member has the text of its value, and is not equal to it.
        is_one = bool(msgspec.convert(value, hints[column]) == value)
    except (msgspec.ValidationError, TypeError):
        is_one = False
    if not is_one:
        yield f"{name}.{column} is never {value!r:.100}, at which a row is to need a review"


def _of_key_in_index(keys: tuple[Any, ...], columns: tuple[str, ...]) -> Iterator[str]:
    """An index may begin with some columns of a key of several: others of the key end it, as they end each index."""
    first = tuple(column for column in keys if column in columns)
    ordered = (*first, *(column for column in columns if column not in keys))
    if len(keys) > 1 and ordered == keys[: len(columns)]:
        text = "and its first columns are indexes"
        yield f"its key, {', '.join(keys)}, {text}: leave {', '.join(columns)} out of `index`"
    elif keys and first == keys:
        what = "it" if len(keys) == 1 else "one of its columns"
        yield f"its key, {', '.join(keys)}, ends each index by itself: leave {what} out there"
    elif ordered != columns:
        # By others first, a server goes along the primary key for a page behind a key.
        yield f"an index has columns of the key first, in their order: write it as {ordered!r}"


def _is_names(given: object) -> bool:
    return isinstance(given, tuple) and len(given) > 1 and all(isinstance(column, str) for column in given)


def _names(model: type[Row]) -> tuple[Any, ...]:
    key: Any = getattr(model, "key", ())
    return key if isinstance(key, tuple) else (key,)


def _is_index(given: object) -> bool:
    return isinstance(given, tuple) and all(
        isinstance(each, str) or (isinstance(each, tuple) and each and all(isinstance(column, str) for column in each))
        for each in given
    )


def _is_comparable(kind: Any) -> bool:
    return kind in _SELECTED_BY or _is_class(kind, Enum)


def _of_handlers(service: Service) -> Iterator[str]:
    by_type: dict[str, Handler[Any]] = {}
    for handler in service.handlers:
        command, name = handler.command, name_of(handler.handle)
        if not _is_class(command, Command):
            yield f"{name} handles {command!r:.100}, which is no class of commands: derive it from Command"
            continue
        if issubclass(command, Effect):
            yield (
                f"{name} handles {command.__name__}, which is an effect: no lane applies one. Have an EffectHandler "
                "perform it, in the object of effects=…"
            )
            continue
        kind = getattr(command, "type", None)
        if not isinstance(kind, str):
            yield f'{command.__name__} has no type: declare it as class {command.__name__}(Command, type="…")'
        elif not kind.startswith(f"{service.name}.") or kind == f"{service.name}.":
            yield f"{command.__name__}: its type is {kind!r}, and must begin with {service.name}. as its lane is named"
        elif (other := by_type.get(kind)) is not None:
            yield f"{kind} has two handlers, {name_of(other.handle)} and {name}{_of_one_type(other.command, command)}"
        else:
            by_type[kind] = handler
        yield from defects_of_handler(handler)
        yield from _of_references(handler, service.models)
    for command in dict.fromkeys(handler.command for handler in service.handlers):
        if _is_class(command, Command):
            yield from _of_command(command)


def _of_one_type(first: type[Command], second: type[Command]) -> str:
    is_one = first is second
    return "" if is_one else f": {first.__name__} and {second.__name__} have the same type, give one of them another"


def _of_command(command: type[Command]) -> Iterator[str]:
    name, kind = command.__name__, getattr(command, "type", None)
    if isinstance(kind, str) and not _TYPE.fullmatch(kind):
        yield f"{name}: its type {kind!r:.200} has other signs than letters, digits and . _ ~ -, or more than 100"
    hints = fields_of(command)
    if isinstance(hints, str):
        yield f"{name}: {hints}"
    else:
        yield from defects_of_class(command, _TAKEN_IN_COMMANDS, hints, is_row=False)


class _Anything:
    """Stands for whatever a command has or makes: it can be handed on and looped over, and nothing else."""

    def __getattr__(self, name: str) -> "_Anything":
        return _Anything()

    def __iter__(self) -> Iterator["_Anything"]:
        yield _Anything()

    def __bool__(self) -> bool:
        raise TypeError("only a command tells")

    def __call__(self, *_: object, **__: object) -> "_Anything":
        return _Anything()


class _AnyArgument(_Anything):
    """Stands for an argument of a command, which no row is."""


class _AnyCommand(_Anything):
    """Stands for a command. What it has besides its fields, a method or a property, may make references."""

    def __init__(self, command: type[Command]) -> None:
        self._names = command.__struct_fields__

    def __getattr__(self, name: str) -> _Anything:
        return _AnyArgument() if name in self._names else _Anything()


def _of_references(handler: Handler[Any], models: Sequence[type[Row]]) -> Iterator[str]:
    """What no command makes right in the rows that `target` and `reads` name, which are of these models.

    A function that needs more of its command than to hand its fields on shows that only when it is first used.
    """
    kind = handler.command.__name__
    for what, function in (("target", handler.target), ("reads", handler.reads), ("of", handler.of)):
        if function is None:
            continue
        try:
            named: Any = function(_AnyCommand(handler.command))
            if what == "reads" and isinstance(named, Ref | RowSelection):
                yield f"{kind}: its reads returns one reference: return a list, as in [{named.model.__name__}.at(…)]"
            else:
                # Each is looked at when it is made.
                refs = (
                    [named] if isinstance(named, Ref | RowSelection | _AnyArgument) else list(islice(named, _READS_MAX))
                )
                if any(isinstance(ref, _AnyArgument) for ref in refs):
                    yield f"{kind}: its {what} names an argument, and no row: write CLASS.at(…) of it"
                known = [ref for ref in refs if not isinstance(ref, _Anything)]
                strange = {ref.model: None for ref in known if ref.model not in models}
                yield from (
                    f"{kind}: its {what}: {model.__name__} is no row of this service: declare it with its `row`"
                    for model in strange
                )
        except (WrongReference, WrongSelection) as error:
            yield f"{kind}: its {what}: {error}"
        except Exception:  # noqa: BLE001, S110  # a function of the service's author
            pass


def _of_versions(service: Service) -> Iterator[str]:
    commands = dict.fromkeys(handler.command for handler in service.handlers)
    return defects_of_versions(service.name, commands, service.declared_upgrades)


def _is_class(given: object, base: type) -> bool:
    return isinstance(given, type) and issubclass(given, base)
