"""The tables of docs/API.md that say what a declaration may say, what a handler is given, and which types there are."""

import inspect
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import new_class
from typing import Any, Literal
from uuid import UUID

import pytest

from coordinator import Command, Handler, Reading, Row, Service, UnitOfWork, VersionedRow
from coordinator.documents import unit_of_work
from coordinator.service.commands import encoded, parse
from coordinator.stores.field_types import field_type
from coordinator.testing import LaneInMemory

TEXT = (Path(__file__).parents[2] / "docs" / "API.md").read_text()


def given_to(what: str) -> set[str]:
    """The options that the table has under a beginning: names, and `first` for what is given without one."""
    rows = re.findall(rf"^\| `{re.escape(what)}[^`]*?([a-z_]+)=…\)` \| ", TEXT, re.MULTILINE)
    first = re.findall(rf"^\| `{re.escape(what)}[A-Za-z]+\)`, (first) \| ", TEXT, re.MULTILINE)
    return {*rows, *first}


@pytest.mark.parametrize("name", ["handles", "row", "upgrades"])
def test_every_option_of_a_decorator_is_in_the_table(name: str) -> None:
    parameters = inspect.signature(getattr(Service, name)).parameters
    options = {each for each, parameter in parameters.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
    needed = {"first"} if "command" in parameters else set()
    assert given_to(f"@service.{name}(") == options | needed


@pytest.mark.parametrize(("declared", "beginning"), [(Command, "class BookSeat("), (Row, "class Seat(")])
def test_every_option_of_a_class_is_in_the_table(declared: type, beginning: str) -> None:
    assert given_to(beginning) == set(type(declared).keywords)  # type: ignore[attr-defined]


def test_the_defaults_in_the_table_are_those_of_the_code() -> None:
    told = dict(re.findall(r"^\| `@service\.handles\((\w+)=…\)` \| `(.+?)` \|", TEXT, re.MULTILINE))
    parameters = inspect.signature(Service.handles).parameters
    assert told == {name: repr(parameters[name].default).replace("'", '"') for name in told}
    assert set(told) == {"on_failure", "is_internal", "is_operators"}


def test_every_method_of_a_unit_of_work_is_in_the_table() -> None:
    table = unit_of_work.unit_of_work()
    members = [name for name in (*vars(Reading), *vars(UnitOfWork)) if not name.startswith("_")]
    assert re.findall(r"^\| `work\.(\w+)", table, re.MULTILINE) == members
    assert "| `work.get(model, key)` | `R or None` | The row with this key, or None. | ValueError for " in table
    assert "| `work.now` | `datetime` | The time of the batch, UTC. " in table
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()} == {5}


def test_a_document_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"API\.md needs the two lines"):
        unit_of_work.api("nothing")


TYPES: dict[str, tuple[Any, Any]] = {
    "int": (int, 7),
    "str": (str, "A7"),
    "bytes": (bytes, b"\0\1"),
    "bool": (bool, True),
    "float": (float, 0.5),
    "Decimal": (Decimal, Decimal("9.90")),
    "datetime": (datetime, datetime(2026, 11, 26, 9, 52, 45, 756000, UTC)),
    "date": (date, date(2026, 11, 26)),
    "time": (time, time(9, 52, 45)),
    "timedelta": (timedelta, timedelta(seconds=90)),
    "UUID": (UUID, UUID("6f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f")),
    "Enum": (Literal["open", "packed"], "open"),
    "dict": (dict[str, list[int]], {"a": [1]}),
}


def _with(fields: dict[str, Any], namespace: dict[str, Any]) -> None:
    namespace.update(fields)


def test_each_type_of_the_table_is_one_of_columns_and_of_arguments_and_travels_as_shown() -> None:
    row = r"^\| [^|`]+: `(\w+)`[^|]* \| `([^`]+)`[^|]* \|(?: [^|]+ \|){4}$"
    rows = re.findall(row, TEXT, re.MULTILINE)
    assert [name for name, _ in rows] == list(TYPES)
    for name, shown in rows:
        kind, value = TYPES[name]
        field_type(kind)
        fields = {"__module__": __name__, "__annotations__": {"value": kind}}
        command: Any = new_class("Try", (Command,), {"type": "a.try"}, partial(_with, fields))
        assert encoded(command(value=value)) == f'{{"value":{shown}}}'.replace(": [", ":[").encode()
        assert parse(command, f'{{"value": {shown}}}'.encode()).value == value


class Kept(VersionedRow, table="kept", key="id"):
    id: int
    number: int = 0
    since: datetime = datetime(2026, 1, 1, tzinfo=UTC)


class Keep(Command, type="keeping.keep"):
    """Keep whatever comes."""

    number: int = 0
    since: datetime = datetime(2026, 1, 1, tzinfo=UTC)


def keep(work: UnitOfWork, command: Keep) -> None:
    work.add(Kept(id=work.next_id(Kept), number=command.number, since=command.since))


@pytest.mark.parametrize("command", [Keep(number=2**63), Keep(since=datetime(2026, 1, 1))])  # noqa: DTZ001
def test_what_fits_a_command_and_no_row_fails_when_it_is_kept(command: Keep) -> None:
    lane = LaneInMemory(Service("keeping", models=(Kept,), handlers=(Handler(Keep, keep),)))
    assert lane.apply(Keep()).applied
    assert lane.apply(command).failed_with("invalid_row")
