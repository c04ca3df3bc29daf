"""Arguments of commands that take more than the columns of their names, by which rows are found.

Whoever sends such a value has a command that fails when its row is written, and a dead letter for operators. No type
says to which column an argument goes, so this is a likelihood: a warning, and nothing that is refused.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from coordinator.service.class_defects import fields_of
from coordinator.service.commands import Command
from coordinator.service.declared import kinds_of
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.stores.field_checks import FieldCheck, canonical
from coordinator.stores.row_checks import RowChecks

_LETTERS: Final = "aA1"
_LENGTHS: Final = (1, 8)


class WideArgument(Struct, frozen=True):
    """An argument of a public command, the column of its name, and why that does not take all that it takes."""

    command: type[Command]
    field: str
    column: str
    problem: str


def wide_arguments(service: Service) -> Iterator[WideArgument]:
    """Those of a service that is declared rightly. A class with a `__post_init__` may refuse what its types take."""
    checks = RowChecks(service)
    for handler in service.public_handlers:
        command: type[Command] = handler.command
        hints = fields_of(command)
        if isinstance(hints, str) or hasattr(command, "__post_init__"):
            continue
        for field, hint in hints.items():
            columns = [(model, found) for model in service.models if (found := checks.of(model).found_by(field))]
            problems = [_problem(column, hint) for _, column in columns]
            # Of several, nobody knows which one it goes to.
            if problems and all(problems):
                yield WideArgument(command, field, _named(columns[0][0], field), str(problems[0]))


def _named(model: type[Row], field: str) -> str:
    return f"{model.__name__}.{field}"


def _problem(column: FieldCheck, hint: Any) -> str | None:
    """Why a value that an annotation takes does not fit a column of the same type; None: none is known."""
    for value in _edges(column):
        if type(value) not in kinds_of(hint):
            continue
        try:
            canonical(column, value)
        except ValueError as error:
            try:
                msgspec.convert(value, hint)
            except msgspec.ValidationError:
                continue
            return f"{value!r:.40}: {error}"
    return None


def _edges(column: FieldCheck) -> Iterator[str | int]:
    """Values about which columns differ."""
    if str in column.kinds:
        for text in (letter * length for letter in _LETTERS for length in _LENGTHS):
            yield f"{text} "
            if column.is_ordered:
                yield f"{text}\n"
        if column.width is not None:
            yield from (letter * (column.width + 1) for letter in _LETTERS)
    if int in column.kinds:
        yield from (column.high + 1, column.low - 1)
