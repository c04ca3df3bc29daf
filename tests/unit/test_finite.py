"""What JSON has no number for is refused by name, and is not None at the other end."""

from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest
from msgspec import Struct

from coordinator import Command, InvalidCommand, Row, Service, UnitOfWork
from coordinator.service.commands import encoded, parse, validated
from coordinator.testing import LaneInMemory


class Part(Struct, frozen=True):
    weight: float | None = None


class Weigh(Command, type="scale.weigh"):
    id: int
    weight: float | None = None
    parts: tuple[Part, ...] = ()
    other: Any = None


class Measured(Struct, frozen=True):
    what: Any = None


class Nested(Struct, frozen=True):
    inner: "Nested | None" = None


scale = Service("scale")


@scale.row
class Weight(Row, table="weights", key="id"):
    id: int
    weight: float | None = None


WRONG: dict[str, Callable[[float], dict[str, Any]]] = {
    "weight": lambda value: {"weight": value},
    "parts": lambda value: {"parts": (Part(), Part(weight=value))},
    "other": lambda value: {"other": {"a": (1, [value])}},
    "a key": lambda value: {"other": {"a": {value: 1}}},
}


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("field", WRONG)
def test_a_command_with_no_number_is_refused_by_its_field(field: str, value: float) -> None:
    command = Weigh(id=1, **WRONG[field](value))
    field = field if field in command.__struct_fields__ else "other"
    for use in (validated, encoded):
        with pytest.raises(InvalidCommand, match=rf"{field} has {value}, and JSON has no such number") as refused:
            use(command)
        assert (refused.value.code, refused.value.field) == ("invalid_arguments", field)


def test_numbers_are_taken() -> None:
    command = Weigh(id=1, weight=-0.0, parts=(Part(weight=1e308),), other={"a": 1.5})
    assert validated(command)[0].weight == 0.0
    assert parse(Weigh, encoded(command)).parts == (Part(weight=1e308),)


RESULTS: dict[str, Any] = {
    "nan": (Measured(what=nan), "returned a Measured with nan in it, and JSON has no such number"),
    "nan as a key": (Measured(what={"a": {nan: 1}}), "with nan in it"),
    "inf in parts": (Measured(what={"a": [1.5, inf]}), "with inf in it"),
    "deep": (Measured(what=eval("[" * 120 + "]" * 120)), "nested deeper than 100 levels"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_that_nobody_can_read_fails_its_command(name: str) -> None:
    returned: Measured = RESULTS[name][0]
    service = scale.replace(handlers=())

    @service.handles(Weigh, target=lambda command: Weight.at(command.id))
    def weigh(work: UnitOfWork, command: Weigh) -> Measured:
        work.add(Weight(id=command.id, weight=1.5))
        return returned

    lane = LaneInMemory(service)
    tried = lane.apply(Weigh(id=1))
    assert tried.failed_with("handler_error")
    assert RESULTS[name][1] in str(tried.reason)
    assert lane.rows(Weight) == []


def test_a_recursive_result_is_looked_at_too() -> None:
    deep = None
    for _ in range(120):
        deep = Nested(inner=deep)
    service = scale.replace(handlers=())

    @service.handles(Weigh)
    def weigh(work: UnitOfWork, command: Weigh) -> Nested:
        return deep or Nested()

    assert "nested deeper than 100 levels" in str(LaneInMemory(service).apply(Weigh(id=1)).reason)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"weight": nan}, "weight has nan, and JSON has no such number"),
        ({"other": eval("[" * 120 + "]" * 120)}, "nested deeper than 100 levels"),
    ],
)
def test_a_handler_emits_what_its_lane_can_read(given: dict[str, Any], why: str) -> None:
    service = scale.replace(handlers=())

    @service.handles(Weigh)
    def weigh(work: UnitOfWork, command: Weigh) -> None:
        if command.id == 1:
            work.emit(Weigh(id=2, **given))

    tried = LaneInMemory(service).apply(Weigh(id=1))
    assert tried.failed_with("handler_error")
    assert why in str(tried.reason)


class Count(Command, type="scale.count"):
    id: int
    many: int = 0
    more: int | None = None
    each: tuple[int | None, ...] = ()
    labels: dict[str, Any] | None = None


class Counted(Struct, frozen=True):
    many: int | None = None
    each: tuple[int | None, ...] = ()


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("field", ["many", "more", "each"])
def test_no_class_without_floats_gets_none_for_one(field: str, value: float) -> None:
    """JSON text has `null` for it: the field was None at the other end, or the refusal spoke of `null`."""
    wrong: Any = (1, value) if field == "each" else value
    for use in (validated, encoded):
        with pytest.raises(InvalidCommand, match=rf"{field} has {value}, and JSON has no such number") as refused:
            use(Count(id=1, **{field: wrong}))
        assert (refused.value.code, refused.value.field) == ("invalid_arguments", field)


@pytest.mark.parametrize("field", ["many", "each"])
def test_nor_does_a_result(field: str) -> None:
    service = scale.replace(handlers=())
    wrong: Any = nan if field == "many" else (1, nan)

    @service.handles(Weigh)
    def weigh(work: UnitOfWork, command: Weigh) -> Counted:
        return Counted(**{field: wrong})

    tried = LaneInMemory(service).apply(Weigh(id=1))
    assert "returned a Counted with nan in it, and JSON has no such number" in str(tried.reason)


def endless(kind: type) -> Any:
    """A value that is within itself."""
    value: Any = kind()
    if kind is dict:
        value["again"] = value
    else:
        value.append(value)
    return value


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize(("model", "field"), [(Weigh, "other"), (Count, "many"), (Count, "labels")])
def test_a_value_within_itself_is_refused_by_its_field(model: type[Command], field: str, kind: type) -> None:
    wrong: dict[str, Any] = {"id": 1, field: endless(kind)}
    for use in (validated, encoded):
        with pytest.raises(
            InvalidCommand, match=rf"{field} has a value within itself, or is nested too deep"
        ) as refused:
            use(model(**wrong))
        assert (refused.value.code, refused.value.field) == ("invalid_arguments", field)


@pytest.mark.parametrize("kind", [list, dict])
def test_a_result_or_an_emission_within_itself_fails_its_command(kind: type) -> None:
    service = scale.replace(handlers=())

    @service.handles(Weigh)
    def weigh(work: UnitOfWork, command: Weigh) -> Measured:
        if command.id == 1:
            work.emit(Weigh(id=3, other=endless(kind)))
        return Measured(what=endless(kind))

    lane = LaneInMemory(service)
    assert "other has a value within itself, or is nested too deep" in str(lane.apply(Weigh(id=1)).reason)
    assert "returned a Measured with a value within itself" in str(lane.apply(Weigh(id=2)).reason)
