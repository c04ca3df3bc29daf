"""A short text may mean a number that takes for ever to write out: no door takes it."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from coordinator import Command, Digits, Handler, InvalidCommand, Row, Service, UnitOfWork
from coordinator.lane.control import Release
from coordinator.service.commands import parse, validated
from coordinator.service.decimal_sizes import number, number_hook
from coordinator.service.errors import ConfigurationError
from coordinator.service.json_text import to_json
from coordinator.service.upgrades import Upgrade, parse_sent
from coordinator.stores.lane_tables import Cancellation, ParkedCommand
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.row_defects import check_declaration
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.store_contract import NOW

HUGE = ("1e900000", "1e99999999", "-1e401", "1e-401", "0e99999999", "-9.9e401", "1E-99999999")


class Line(Struct):
    price: Decimal


@dataclass
class Weight:
    kilograms: Decimal


class Order(Command, type="shop.order", version=2):
    cents: int
    price: Decimal = Decimal(1)
    lines: tuple[Line, ...] = ()
    named: dict[str, tuple[Decimal, ...]] | None = None
    weight: Weight | None = None
    note: str | None = None


@pytest.mark.parametrize("number", [*HUGE, "1e999999999999999999999"])
def test_an_upgrade_is_given_no_number_that_it_cannot_write_out(number: str) -> None:
    given: list[Any] = []
    upgrades = (Upgrade(Order, 1, lambda arguments: given.append(arguments) or {"cents": 1}),)  # type: ignore[func-returns-value]
    with pytest.raises(InvalidCommand, match="exponent that no number can have") as refused:
        parse_sent(Order, f'{{"price": {number}}}'.encode(), 1, upgrades)
    assert (refused.value.code, given) == ("invalid_arguments", [])


JSON_NUMBERS = (
    r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?",
    r"-?[1-9][0-9]{395,405}(\.[0-9]{1,3})?([eE]-?[0-9]{1,3})?",
    r"0\.0{395,405}[0-9]{1,3}",
    r"[0-9]([eE][+-]?[0-9]{17,20})",
)


@given(st.one_of(*(st.from_regex(re.compile(form, re.ASCII), fullmatch=True) for form in JSON_NUMBERS)))
def test_numbers_of_older_arguments_have_the_limits_of_those_of_a_query(text: str) -> None:
    def read(make: Callable[[str], Decimal]) -> str:
        try:
            return str(make(text))
        except ValueError as refused:
            return f"refused: {refused}"

    assert read(number_hook) == read(number)


@pytest.mark.parametrize("number", [*HUGE, "9" * 402])
@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{{"cents": 1, "price": {0}}}', "price"),
        ('{{"cents": 1, "price": "{0}"}}', "price"),
        ('{{"cents": 1, "lines": [{{"price": 1}}, {{"price": {0}}}]}}', "lines"),
        ('{{"cents": 1, "named": {{"a": [{0}]}}}}', "named"),
        ('{{"cents": 1, "weight": {{"kilograms": {0}}}}}', "weight"),
    ],
)
def test_a_handler_is_given_none_either(number: str, text: str, field: str) -> None:
    wrong = "exponent that no number can have" if "e" in number.lower() else "9… has too many digits"
    with pytest.raises(InvalidCommand, match=rf"{wrong}.*\$\.{field}`") as refused:
        parse(Order, text.format(number).encode())
    assert (refused.value.code, refused.value.field) == ("invalid_arguments", field)


@pytest.mark.parametrize("number", ["1e400", "-9.99e307", "1e-400", "0", "0.1", "1" + 40 * "0"])
def test_a_number_of_any_use_is_taken(number: str) -> None:
    assert str(parse(Order, f'{{"cents": 1, "price": "{number}"}}'.encode()).price) == str(Decimal(number))


NO_NUMBERS = ("NaN", "-sNaN", "nan12345", "Infinity", "-inf")


@pytest.mark.parametrize("number", NO_NUMBERS)
@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{{"cents": 1, "price": "{0}"}}', "price"),
        ('{{"cents": 1, "lines": [{{"price": 1}}, {{"price": "{0}"}}]}}', "lines"),
        ('{{"cents": 1, "named": {{"a": ["{0}"]}}}}', "named"),
        ('{{"cents": 1, "weight": {{"kilograms": "{0}"}}}}', "weight"),
    ],
)
def test_nor_what_is_no_number_and_raises_where_it_is_compared(number: str, text: str, field: str) -> None:
    with pytest.raises(InvalidCommand, match=rf"(?i){Decimal(number)} is no finite number.*\$\.{field}`") as refused:
        parse(Order, text.format(number).encode())
    assert (refused.value.code, refused.value.field) == ("invalid_arguments", field)


def test_a_command_built_in_code_has_none_either() -> None:
    with pytest.raises(InvalidCommand, match="NaN is no finite number"):
        validated(Order(cents=1, price=Decimal("NaN")))


# Before a class looks at its values


class Priced(Struct):
    price: Decimal | None = None
    note: str = ""

    def __post_init__(self) -> None:
        looked_at.append(self.price)


class Tagged(Struct, tag="priced"):
    price: Decimal | None = None


class Untagged(Struct, tag="other"):
    price: str


class AsArray(Struct, array_like=True, tag=7):
    note: str
    price: Decimal


class Pair(NamedTuple):
    note: str
    price: Decimal


class Known(TypedDict):
    price: Decimal


class Basket(Command, type="shop.basket", rename="camel"):
    unit_price: Annotated[Decimal, Meta(description="of one")] | None = None
    inner: Priced | None = None
    listed: tuple[Priced, ...] = ()
    either: Tagged | Untagged | None = None
    row: AsArray | None = None
    pair: Pair | None = None
    known: Known | None = None
    weight: Weight | None = None
    sizes: frozenset[Decimal] = frozenset()
    two: tuple[str, Decimal] | None = None
    by_price: dict[Decimal, str] | None = None
    by_name: dict[str, Decimal] | None = None

    def __post_init__(self) -> None:
        looked_at.append(self)


SHAPES = {
    "unitPrice": "{}",
    "inner": '{{"price": {}}}',
    "listed": '[{{"price": 1}}, {{"price": {}}}]',
    "either": '{{"type": "priced", "price": {}}}',
    "row": '[7, "1e999", {}]',
    "pair": '["1e999", {}]',
    "known": '{{"price": {}}}',
    "weight": '{{"kilograms": {}}}',
    "sizes": "[1, {}]",
    "two": '["1e999", {}]',
    "byName": '{{"a": {}}}',
}
HIDDEN = ("1e999", '"1e999"', '"1\\u0065999"', '"1e9_9_9"', '"1e٩٩٩"', '" -1E-0999 "')


@pytest.mark.parametrize("number", HIDDEN)
@pytest.mark.parametrize("field", SHAPES)
def test_no_class_looks_at_one(number: str, field: str) -> None:
    looked_at.clear()
    text = f'{{"{field}": {SHAPES[field].format(number)}}}'
    with pytest.raises(InvalidCommand, match=rf"exponent that no number can have.*\$\.{field}`") as refused:
        parse(Basket, text.encode())
    assert (refused.value.field, [each for each in looked_at if each != 1]) == (field, [])
    with pytest.raises(InvalidCommand, match="exponent that no number can have"):
        parse(Basket, msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode(text))


@pytest.mark.parametrize("number", ["sNaN", "-Infinity", "n\\u0061n"])
@pytest.mark.parametrize("field", SHAPES)
def test_no_class_looks_at_what_is_no_number(number: str, field: str) -> None:
    looked_at.clear()
    text = f'{{"{field}": {SHAPES[field].format(chr(34) + number + chr(34))}}}'
    with pytest.raises(InvalidCommand, match=rf"is no finite number.*\$\.{field}`"):
        parse(Basket, text.encode())
    assert [each for each in looked_at if each != 1] == []


def test_nor_at_the_key_of_a_dict() -> None:
    looked_at.clear()
    with pytest.raises(InvalidCommand, match="exponent that no number can have"):
        parse(Basket, b'{"byPrice": {"1e999": "a"}}')
    assert looked_at == []


@pytest.mark.parametrize(
    "text",
    [
        '{"inner": {"note": "1e999"}}',
        '{"either": {"type": "other", "price": "1e999"}}',
        '{"row": [7, "1e999", 1]}',
        '{"byPrice": {"1": "1e999"}}',
        '{"two": ["1e999", 1]}',
    ],
)
def test_a_text_that_is_no_number_may_look_like_one(text: str) -> None:
    assert parse(Basket, text.encode())


@pytest.mark.parametrize(
    "text", ['{"inner": 1e999', '{"inner": "1e999"}', '{"unitPrice": 1e99999999999999999999}', "[1e999]"]
)
def test_what_is_otherwise_wrong_is_told_as_always(text: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        parse(Basket, text.encode())
    assert "1e999 has" not in str(refused.value)


# The digits that an annotation allows

T = TypeVar("T")
Price = Annotated[Decimal, Digits(5, 2)]


class Item(Struct):
    price: Price
    items: tuple["Item", ...] = ()


@dataclass
class Parcel:
    price: Price


@attrs.define(auto_attribs=False)
class Crate:
    """What is only annotated is none of its fields."""

    price: Price = attrs.field()
    shelf: str


class Point(NamedTuple):
    note: str
    price: Price


class Offer(TypedDict, total=False):
    price: Price


class Of(Struct, Generic[T]):
    value: T
    price: Price = Decimal(1)


class Sell(Command, type="shop.sell", rename="camel"):
    generic: Of[Price] | None = None
    generic_class: Of[str] | None = None
    unit_price: Price | None = None
    of_either: Annotated[Decimal | None, Digits(5, 2)] = None
    item: Item | None = None
    listed: list[Price] = msgspec.field(default_factory=list)
    named: dict[str, Price] | None = None
    by_price: dict[Price, str] | None = None
    pair: tuple[Decimal, Price] | None = None
    point: Point | None = None
    parcel: Parcel | None = None
    crate: Crate | None = None
    offer: Offer | None = None
    free: Decimal | None = None


DIGITS = {
    "unitPrice": "{}",
    "ofEither": "{}",
    "item": '{{"price": 1, "items": [{{"price": 1}}, {{"price": {}}}]}}',
    "listed": "[1, {}]",
    "named": '{{"a": {}}}',
    "byPrice": '{{"{}": "a"}}',
    "pair": "[1.23456, {}]",
    "point": '["a", {}]',
    "parcel": '{{"price": {}}}',
    "crate": '{{"price": {}}}',
    "offer": '{{"price": {}}}',
    "generic": '{{"value": {}}}',
    "genericClass": '{{"value": "a", "price": {}}}',
    "free": "{}",
}


@pytest.mark.parametrize("field", DIGITS)
@pytest.mark.parametrize(
    ("number", "problem"),
    [
        ("1.234", "a Decimal with more than 2 digits after the point"),
        ("-1000", "a Decimal with more than 3 digits before the point"),
        ("1e4", "a Decimal with more than 3 digits before the point"),
    ],
)
def test_a_decimal_has_no_more_digits_than_its_annotation_says(field: str, number: str, problem: str) -> None:
    text = f'{{"{field}": {DIGITS[field].format(number)}}}'.encode()
    if field == "free":
        assert parse(Sell, text).free == Decimal(number)
        return
    with pytest.raises(InvalidCommand, match=rf"{problem} - at `\$\.{field}`") as refused:
        parse(Sell, text)
    assert (refused.value.code, refused.value.field) == ("invalid_arguments", field)


@pytest.mark.parametrize("field", DIGITS)
@pytest.mark.parametrize("number", ["9.9", "-999.99", "1.230", "1E+2", "0"])
def test_a_number_that_fits_stays_as_it_was_written(field: str, number: str) -> None:
    text = f'{{"{field}": {DIGITS[field].format(number)}}}'.encode()
    assert number in str(parse(Sell, text))


@given(
    st.lists(
        st.one_of(st.decimals(-2000, 2000, places=3), st.sampled_from([*map(Decimal, ("0E+300", "0E-300", "1E+2"))]))
    )
)
def test_of_many_decimals_each_has_no_more_digits_than_its_annotation_says(values: list[Decimal]) -> None:
    fit = all(abs(value) < 1000 and value == round(value, 2) for value in values)
    for given_values in ({"listed": values}, {"named": {str(place): value for place, value in enumerate(values)}}):
        arguments = msgspec.json.encode(given_values)
        if fit:
            assert parse(Sell, arguments)
        else:
            with pytest.raises(InvalidCommand, match="a Decimal with more than"):
                parse(Sell, arguments)


def test_digits_of_what_is_no_decimal_are_found_at_start() -> None:
    class Wrong(Command, type="shop.wrong"):
        count: Annotated[int, Digits(5, 2)]

    service = Service("shop", handlers=(Handler(Wrong, lambda work, command: None),))
    with pytest.raises(ConfigurationError, match=r"Wrong\.count: Digits says how many digits a Decimal has"):
        check_declaration(service)


# The arguments of a cancelled command are not looked at


class Seat(Row, table="seats", key="id"):
    id: int


class Book(Command, type="seats.book", version=2):
    id: int

    def __post_init__(self) -> None:
        looked_at.append(self.id)


looked_at: list[Any] = []
"""What an upgrade or a class has seen. One of them might never come back."""

seats = Service("seats")
seats.row(is_public=False)(Seat)


@seats.handles(Book, target=lambda command: Seat.at(id=command.id), on_failure="park-key")
def book(work: UnitOfWork, command: Book) -> None:
    if command.id == 7:
        raise ValueError("broken")


@seats.upgrades(Book, from_version=1)
def numbered(arguments: dict[str, Any]) -> dict[str, Any]:
    looked_at.append(arguments)
    return arguments


@pytest.fixture
def database() -> MemoryDatabase:
    looked_at.clear()
    return MemoryDatabase()


def cancel(database: MemoryDatabase, number: int) -> None:
    row = Cancellation(command_id=command_id(number), reason="it hangs", requested_at=NOW)
    database.tables.setdefault(Cancellation, {})[row.command_id] = row
    database.revision += 1


@pytest.mark.parametrize("version", [None, 2, 3])
def test_nobody_reads_the_arguments_of_a_cancelled_command(database: MemoryDatabase, version: int | None) -> None:
    cancel(database, 1)
    lane = LaneUnderTest(MemoryStore(database), "restarted", seats)
    sent = [delivery(number, b'{"id": %d}' % number, command_type="seats.book", command_version=2) for number in (2, 3)]
    poison = delivery(1, b'{"id": 1}', command_type="seats.book", command_version=version)
    assert codes(lane.outcomes(sent[0], poison, sent[1])) == ["applied", "cancelled", "applied"]
    assert looked_at == [2, 3]
    assert lane.rows(Cancellation) == []
    assert codes(lane.outcomes(poison)) == ["cancelled"], "and then it is a repetition"


def test_nobody_reads_those_of_one_that_waited_for_its_key(database: MemoryDatabase) -> None:
    lane = LaneUnderTest(MemoryStore(database), "first", seats)
    sent = [delivery(number, b'{"id": 7}', command_type="seats.book", command_version=2) for number in (1, 2)]
    assert codes(lane.outcomes(*sent)) == ["handler_error"]
    cancel(database, 2)
    looked_at.clear()
    lane = LaneUnderTest(MemoryStore(database), "restarted", seats)
    settled = lane.outcomes(delivery(3, Release(ordering_key="seats.id=7", command_id=command_id(1))))
    assert codes(settled) == ["applied", "cancelled"]
    assert (looked_at, lane.rows(ParkedCommand)) == ([], [])


# The form of a text


ODD = (
    "1_000",
    "_1",
    "1.",
    ".5",
    "-.5",
    "+1",
    " 1",
    "1 ",
    "1.5_",
    "1e_3",
    r"\t1",
    r"1\n",
    "\u0661",
    r"\u0661",
    "1.\u0661",
)
"""Python's Decimal takes each."""


@pytest.mark.parametrize("text", ODD, ids=ascii)
@pytest.mark.parametrize(
    "place", ['"price": "{0}"', '"lines": [{{"price": "{0}"}}]', '"weight": {{"kilograms": "{0}"}}']
)
def test_a_text_that_other_readers_do_not_take_for_this_number_is_refused(text: str, place: str) -> None:
    arguments = f'{{{{"cents": 1, {place}}}}}'.format(text)
    assert msgspec.json.decode(arguments, type=Order)
    with pytest.raises(InvalidCommand, match="is not written as a number") as refused:
        parse(Order, arguments.encode())
    assert (refused.value.code, refused.value.field) == ("invalid_arguments", place.partition('"')[2].partition('"')[0])
    with pytest.raises(InvalidCommand, match="is not written as a number"):
        parse(Order, msgspec.json.decode(arguments))


NEAR_NUMBERS = st.text("0123456789.eE+-_ \t\u0661\u00a0", max_size=8)


@given(st.lists(st.one_of(NEAR_NUMBERS, st.decimals(-10, 10).map(str)), min_size=1, max_size=4))
def test_a_text_is_taken_if_and_only_if_it_is_a_number_of_json(texts: list[str]) -> None:
    arguments = msgspec.json.encode({"cents": 1, "lines": [{"price": text} for text in texts]})
    if all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?", text) for text in texts):
        assert [line.price for line in parse(Order, arguments).lines] == [*map(Decimal, texts)]
    else:
        with suppress(InvalidCommand):
            made = [line.price for line in parse(Order, arguments).lines]
            assert all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", text) for text in texts), made


@pytest.mark.parametrize("text", ["0", "-0", "007", "1.50", "-1e3", "1E-7", r"\u0031"])
def test_and_a_number_of_json_is_taken_as_a_text_too(text: str) -> None:
    note = "1_000 +1 .5"
    made = parse(Order, f'{{"cents": 1, "price": "{text}", "note": "{note}"}}'.encode())
    assert (made.price, made.note) == (Decimal(text.replace(r"\u0031", "1")), note)


@pytest.mark.parametrize(
    ("number", "text"),
    [("0E-10", "0.0000000000"), ("1E+3", "1000"), ("-1.5E-8", "-0.000000015"), ("2.50", "2.50"), ("1E+999", "1E+999")],
)
def test_an_answer_has_no_exponent_that_can_be_written_out(number: str, text: str) -> None:
    value = {"price": Decimal(number), "note": "1E-7", "more": [Line(price=Decimal(number))]}
    assert msgspec.json.decode(to_json(value)) == {"price": text, "note": "1E-7", "more": [{"price": text}]}
    assert to_json({Decimal(number): "1E-7"}) == msgspec.json.encode({number: "1E-7"})


def test_a_number_of_a_query_has_the_same_form() -> None:
    assert number("-1.50") == Decimal("-1.50")
    for text in ("1_000", " 1", ".5", "+1", "\u0661", "", "NaN"):
        with pytest.raises(ValueError, match="is not written as a number"):
            number(text)
