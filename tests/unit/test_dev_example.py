"""The command that `coordinator dev` shows to be tried."""

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta

from coordinator import Command
from coordinator.registry import registry
from coordinator.service.commands import parse
from coordinator.service.example import example_of


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Ordered(Command, type="odd.order"):
    number: Annotated[int, Meta(ge=100)]
    code: Annotated[str, Meta(pattern=r"\A[A-Z]\d\Z")]
    price: Decimal
    day: date
    at: datetime
    of: UUID
    size: Size
    way: Literal["by_air", "by_sea"]
    maybe: bool | None
    lines: list[int]
    note: str = ""


class Odd(Command, type="odd.odd"):
    code: Annotated[str, Meta(pattern=r"\AX{7}\Z")]


def test_it_has_a_value_of_each_type_that_is_required_and_no_other() -> None:
    example = msgspec.json.decode(example_of((Ordered,)) or "")
    assert example["type"] == "odd.order"
    assert example["args"].keys() == {field for field in Ordered.__struct_fields__ if field != "note"}
    parse(Ordered, msgspec.json.encode(example["args"]))


def test_a_command_whose_values_cannot_be_made_up_is_passed_over() -> None:
    assert example_of((Odd,)) is None
    assert '"odd.order"' in (example_of((Odd, Ordered)) or "")


@pytest.mark.parametrize("service", registry().services, ids=lambda service: service.name)
def test_each_service_of_the_reference_system_has_one(service: object) -> None:
    assert example_of(service.commands)  # type: ignore[attr-defined]
