"""A command of a service as its author might type it first: values that its type takes, made up from the type."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import inspect

from coordinator.service.commands import Command, parse
from coordinator.service.errors import InvalidCommand

_TEXTS: Final = ("text", "A1", "a1", "1", "a", "a@example.org", "EUR")
_OTHERS: Final[Mapping[type[inspect.Type], Any]] = {
    inspect.BoolType: False,
    inspect.BytesType: "",
    inspect.DateTimeType: "2030-01-31T12:00:00Z",
    inspect.DateType: "2030-01-31",
    inspect.DecimalType: "1.00",
    inspect.DictType: {},
    inspect.FloatType: 1.0,
    inspect.ListType: [],
    inspect.TimeDeltaType: "PT1H",
    inspect.TimeType: "12:00:00",
    inspect.UUIDType: "0198c0de-0000-7000-8000-000000000001",
}


def example_of(commands: Sequence[type[Command]]) -> str | None:
    """The first of these for which the values can be made up, as an element of `POST /commands`; None: of none."""
    for command in commands:
        arguments = example_arguments(command)
        if arguments is not None:
            body = msgspec.json.encode({"type": command.type, "args": arguments})
            return msgspec.json.format(body, indent=0).decode()
    return None


def example_arguments(command: type[Command]) -> dict[str, Any] | None:
    """Arguments that a command takes, of those that it needs; None: they cannot be made up."""
    arguments = _required(inspect.type_info(command))
    try:
        parse(command, msgspec.json.encode(arguments))
    except InvalidCommand:
        return None
    return arguments


def _required(kind: inspect.Type) -> dict[str, Any]:
    """The fields without a default."""
    fields = kind.fields if isinstance(kind, inspect.StructType) else ()
    return {field.encode_name: _value(field.type) for field in fields if field.required}


def _value(kind: inspect.Type) -> Any:
    value: Any = _OTHERS.get(type(kind))
    match kind:
        case inspect.Metadata():
            value = _value(kind.type)
        case inspect.IntType():
            value = max(kind.ge or 1, 1 if kind.gt is None else kind.gt + 1)
        case inspect.StrType():
            value = next((text for text in _TEXTS if _fits(kind, text)), _TEXTS[0])
        case inspect.EnumType():
            value = next(iter(kind.cls)).value
        case inspect.LiteralType():
            value = kind.values[0]
        case inspect.UnionType():
            value = _value(kind.types[0])
        case inspect.StructType():
            value = _required(kind)
    return value


def _fits(kind: inspect.StrType, text: str) -> bool:
    longest = len(text) if kind.max_length is None else kind.max_length
    is_of_pattern = kind.pattern is None or re.search(kind.pattern, text) is not None
    return (kind.min_length or 0) <= len(text) <= longest and is_of_pattern
