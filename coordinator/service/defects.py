"""What is wrong with a service's declaration: all of it at once, before anything of it runs."""

import re
from collections import Counter
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from coordinator.service.commands import Command
from coordinator.service.rows import Row
from coordinator.service.service import Service

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TAKEN: Final = frozenset({"table", "key", "unique", "at", "replace"})
"""The names that a field cannot have: they are the row's own."""
_FOUND_BY: Final = (int, str, UUID)
"""The types of keys and unique columns."""


def defects_of(service: Service) -> list[str]:
    """Each defect as a line that names the class or the command; empty: there are none."""
    return [*_of_name(service), *_of_models(service), *_of_handlers(service)]


def _of_name(service: Service) -> Iterator[str]:
    if not _NAME.fullmatch(service.name):
        yield f"the name {service.name!r} is not lower-case letters, digits and _, of at most 63 characters"


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


def _of_columns(model: type[Row]) -> Iterator[str]:
    name, fields = model.__name__, model.__struct_fields__
    yield from (f"{name}.{field}: a row has that name for something else" for field in fields if field in _TAKEN)
    try:
        hints = get_type_hints(model, include_extras=True)
    except NameError as error:
        yield f"{name}: {error}; its fields' types must be found in its module"
        return
    key = getattr(model, "key", None)
    if not isinstance(key, str):
        yield f'{name} names no key: declare it as class {name}(Row, table="…", key="…")'
    named = (("key", key, False), *(("unique column", column, True) for column in model.unique))
    for what, column, may_be_none in named:
        if not isinstance(column, str):
            continue
        if column not in fields:
            yield f"{name} has no field {column}, which is to be its {what}"
        elif (kinds := _kinds(hints[column])) - {NoneType} - set(_FOUND_BY) or not kinds:
            yield f"{name}.{column}: a {what} is an int, a str or a UUID"
        elif NoneType in kinds and not may_be_none:
            yield f"{name}.{column}: a key is never None"


def _kinds(hint: Any) -> set[Any]:
    origin = get_origin(hint)
    if origin is Annotated:
        return _kinds(get_args(hint)[0])
    if origin is Literal:
        return {type(value) for value in get_args(hint)}
    if origin in (Union, UnionType):
        return {kind for part in get_args(hint) for kind in _kinds(part)}
    return {hint}


def _of_handlers(service: Service) -> Iterator[str]:
    by_type: dict[str, str] = {}
    for handler in service.handlers:
        command, name = handler.command, _name_of(handler.handle)
        if not _is_class(command, Command):
            yield f"{name} handles {command!r:.100}, which is no class of commands: derive it from Command"
            continue
        kind = getattr(command, "type", None)
        if not isinstance(kind, str):
            yield f'{command.__name__} has no type: declare it as class {command.__name__}(Command, type="…")'
        elif not kind.startswith(f"{service.name}.") or kind == f"{service.name}.":
            yield f"{command.__name__}: its type is {kind!r}, and must begin with {service.name}. as its lane is named"
        elif (other := by_type.get(kind)) is not None:
            yield f"{kind} has two handlers, {other} and {name}"
        else:
            by_type[kind] = name


def _is_class(given: object, base: type) -> bool:
    return isinstance(given, type) and issubclass(given, base)


def _name_of(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)[:100]
