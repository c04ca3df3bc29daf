"""A row that a handler returns is what its command leaves: one that was not saved fails the command."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import attrs
import pytest
from msgspec import Struct

from coordinator import Command, Deferred, Handler, Row, Service, UnitOfWork, VersionedRow
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import LaneSettings
from coordinator.service.ids import new_command_id
from coordinator.service.nesting import NESTING_MAX
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.testing import NOW, LaneInMemory, SimulationFailed, Tried, simulate


class Item(VersionedRow, table="items", key="id"):
    id: int
    n: int = 0


class Box(Row, table="boxes", key="id"):
    """Its handlers get copies, since they may change what is in them."""

    id: int
    holds: dict[str, int]


class Bag(Row, table="bags", key="id"):
    id: int
    holds: dict[str, Any]


class Deep(Row, table="deep", key="id"):
    id: int
    parts: list[Any]


class Listed(Row, table="listed", key="id"):
    """No row of the service: it is made for the answer."""

    id: int


class Change(Command, type="shop.change"):
    id: int = 1


class Pair(Struct):
    before: Item
    after: Item


@dataclass
class Couple:
    before: Item
    after: Item


@attrs.define
class Duo:
    before: Item
    after: Item


class Whatever(TypedDict):
    it: Any


class Found(Struct):
    boxes: dict[str, list[Box]]


def tried(promised: Any, handle: Callable[[UnitOfWork], Any]) -> tuple[LaneInMemory, Tried]:
    def change(work: UnitOfWork, command: Change) -> Any:
        return handle(work)

    change.__annotations__["return"] = promised
    lane = LaneInMemory(Service("shop", models=(Item, Box, Bag), handlers=(Handler(Change, change),)))
    lane.given(Item(id=1), Box(id=1, holds={"a": 1}))
    return lane, lane.apply(Change())


def item(work: UnitOfWork) -> Item:
    found = work.get(Item, 1)
    assert found is not None
    return found


def box(work: UnitOfWork) -> Box:
    found = work.get(Box, 1)
    assert found is not None
    return found


def _unsaved(work: UnitOfWork) -> Item:
    return item(work).replace(n=42)


def _saved(work: UnitOfWork, row: Item) -> Item:
    """The row as it was given to `save`, which counts its version up."""
    work.save(row)
    return row


def _added(work: UnitOfWork) -> Item:
    work.add(Item(id=2))
    return Item(id=2)


def _removed(work: UnitOfWork, row: Any, returned: Any) -> Any:
    work.remove(row)
    return returned


def _saved_and_removed(work: UnitOfWork) -> Item:
    saved = work.save(item(work).replace(n=42))
    work.remove(saved)
    return saved


def _changed_in_place(work: UnitOfWork) -> Box:
    found = box(work)
    found.holds["a"] = 2
    return found


UNSAVED: dict[str, tuple[Any, Callable[[UnitOfWork], Any], str]] = {
    "a row that was not saved": (
        Item,
        lambda work: item(work).replace(n=42),
        "Item 1 as it was not saved: work.save(…)",
    ),
    "one of several types": (Item | None, lambda work: item(work).replace(n=42), "Item 1 as it was not saved"),
    "the row that was given to save": (
        Item,
        lambda work: _saved(work, item(work).replace(n=42)),
        "Item 1 as it was not",
    ),
    "the row before it was saved": (
        Item,
        lambda work: (item(work), work.save(item(work).replace(n=1)))[0],
        "Item 1 as",
    ),
    "a row that was not added": (Item, lambda work: Item(id=2), "Item 2, of which there is no row: work.add(…)"),
    "a row that was changed, and removed": (
        Item,
        lambda work: _removed(work, item(work), _unsaved(work)),
        "Item 1 as it was not saved",
    ),
    "a row that was changed in place": (Box, _changed_in_place, "Box 1 as it was not saved"),
    "another that Python calls equal": (
        Bag,
        lambda work: work.add(Bag(id=1, holds={"on": 1})).replace(holds={"on": True}),
        "Bag 1 as it was not saved",
    ),
    "in a list": (list[Item], lambda work: [item(work), _unsaved(work)], "Item 1 as it was not saved"),
    "in a field": (Pair, lambda work: Pair(item(work), _unsaved(work)), "Item 1 as it was not saved"),
    "in a dataclass": (Couple, lambda work: Couple(item(work), _unsaved(work)), "Item 1 as it was not saved"),
    "in a class of attrs": (Duo, lambda work: Duo(item(work), _unsaved(work)), "Item 1 as it was not saved"),
    "as anything": (Any, _unsaved, "Item 1 as it was not saved"),
    "as a base of its class": (Struct, _unsaved, "Item 1 as it was not saved"),
    "as an object": (object, _unsaved, "Item 1 as it was not saved"),
    "in a dict of anything": (dict[str, Any], lambda work: {"a": _unsaved(work)}, "Item 1 as it was not saved"),
    "in a typed dict": (Whatever, lambda work: {"it": _unsaved(work)}, "Item 1 as it was not saved"),
    "deep within": (
        Found,
        lambda work: Found({"all": [box(work), Box(id=2, holds={})]}),
        "Box 2, of which there is no row: work.add(…)",
    ),
    "with a key that no row has": (Item, lambda work: Item(id=1 << 70), "of which there is no row"),
}


@pytest.mark.parametrize("name", UNSAVED)
def test_a_row_that_was_not_saved_fails_its_command(name: str) -> None:
    promised, handle, text = UNSAVED[name]
    lane, outcome = tried(promised, handle)
    assert outcome.failed_with("handler_error"), outcome
    assert text in str(outcome.reason)
    assert "change (" in str(outcome.reason)
    assert outcome.outcome.error is not None
    assert "Item" not in outcome.outcome.error.message
    assert lane.rows(Item) == [Item(id=1)]


AS_LEFT: dict[str, tuple[Any, Callable[[UnitOfWork], Any]]] = {
    "what save returned": (Item, lambda work: work.save(item(work).replace(n=42))),
    "what get returned": (Item, item),
    "what add returned": (Item, lambda work: work.add(Item(id=2))),
    "one that is equal": (Item, _added),
    "one that nobody has read": (Item, lambda work: Item(id=1)),
    "a removed row": (Item, lambda work: _removed(work, item(work), item(work).replace())),
    "one that was saved, and then removed": (Item, _saved_and_removed),
    "a copy": (Box, box),
    "what save returned of a copy": (Box, lambda work: work.save(box(work).replace(holds={"b": 2}))),
    "in a list": (list[Item], lambda work: [item(work), work.add(Item(id=2))]),
    "as it was, and as it is": (Pair, lambda work: Pair(item(work), work.save(item(work).replace(n=42)))),
    "of a class that is made for the answer": (Listed, lambda work: Listed(id=7)),
}


@pytest.mark.parametrize("name", AS_LEFT)
def test_a_row_as_the_command_leaves_it_is_taken(name: str) -> None:
    _, outcome = tried(*AS_LEFT[name])
    assert outcome.applied, outcome


def test_a_copy_with_an_equal_value_of_another_type_is_no_box() -> None:
    """True is 1, and whoever reads the answer by its class would find no int."""

    def changed(work: UnitOfWork) -> Box:
        found = box(work)
        found.holds["a"] = True
        return found

    _, outcome = tried(Box, changed)
    assert outcome.failed_with("handler_error"), outcome
    assert "where its annotation promises Box" in str(outcome.reason)


def test_a_row_of_others_that_is_too_deep_for_an_answer_fails_its_command() -> None:
    def change(work: UnitOfWork, command: Change) -> Deep:
        found = work.get(Deep, 1)
        assert found is not None
        return found

    parts: list[Any] = []
    for _ in range(NESTING_MAX):
        parts = [parts]
    database = MemoryDatabase()
    database.tables[Deep][1] = Deep(id=1, parts=parts)
    service = Service("shop", models=(Deep,), handlers=(Handler(Change, change),))
    lane = Lane(service, MemoryStore(database), lambda: NOW, "test", LaneSettings(), lambda: 0.0)
    message = CommandMessage(command_id=new_command_id(), type=Change.type, arguments=b"{}")
    decision = lane.apply([Delivery(tag=1, commands=(message,), reply_to="test")], 1)
    assert isinstance(decision, Settlement)
    (letter,) = decision.dead_letters
    assert "returned a Deep that is nested deeper than 100 levels" in letter.reason


def test_the_simulation_finds_a_handler_that_forgets_to_save() -> None:
    def change(work: UnitOfWork, command: Change) -> Item:
        return item(work).replace(n=42)

    service = Service("shop", models=(Item,), handlers=(Handler(Change, change),))
    with pytest.raises(SimulationFailed, match=r"change.*returned Item 1 as it was not saved"):
        simulate(service, seeds=1, given=[Item(id=1)])


def test_the_batch_of_a_command_does_not_decide_whether_its_row_is_there() -> None:
    """A row that another command of the batch has read is in the map, and else it is in the database only."""

    def change(work: UnitOfWork, command: Change) -> Item:
        return Item(id=1) if command.id == 1 else item(work)

    service = Service("shop", models=(Item,), handlers=(Handler(Change, change),))
    for sizes in ((1, 1), (2,)):
        database = MemoryDatabase()
        database.tables[Item][1] = Item(id=1)
        lane = Lane(service, MemoryStore(database), lambda: NOW, "test", LaneSettings(), lambda: 0.0)
        messages = [
            CommandMessage(command_id=new_command_id(), type=Change.type, arguments=b'{"id": %d}' % number)
            for number in (2, 1)
        ]
        statuses = []
        for size in sizes:
            taken, messages = messages[:size], messages[size:]
            decision = lane.apply([Delivery(tag=1, commands=tuple(taken), reply_to="test")], 1)
            assert isinstance(decision, Settlement)
            statuses += [outcome.status for outcome in decision.outcomes]
        assert statuses == ["applied", "applied"]


def test_a_row_that_comes_later_was_saved_too() -> None:
    class Wait(Command, type="shop.wait"):
        pass

    def wait(work: UnitOfWork, command: Wait) -> Item:
        raise AssertionError

    def change(work: UnitOfWork, command: Change) -> None:
        of = Deferred(command_id="0198c0de-0000-7000-8000-000000000001", type=Wait.type, continuation="shop.go_on")
        work.resume(of, item(work).replace(n=42))

    wait.__annotations__ = {"return": Item}
    handlers: tuple[Handler[Any], ...] = (Handler(Wait, wait), Handler(Change, change))
    lane = LaneInMemory(Service("shop", models=(Item,), handlers=handlers))
    lane.given(Item(id=1))
    assert "returned Item 1 as it was not saved" in str(lane.apply(Change()).reason)


def test_an_older_copy_takes_nothing_back_that_was_saved_since() -> None:
    def change(work: UnitOfWork) -> None:
        before = item(work)
        work.save(before.replace(n=1))
        work.save(before.replace(n=2))

    lane, outcome = tried(None, change)
    assert outcome.failed_with("handler_error"), outcome
    assert "items 1 has version 2 by now, and this row is a copy of 1: go on with what `save`" in str(outcome.reason)
    assert lane.rows(Item) == [Item(id=1)]


def test_a_row_that_no_read_row_was_copied_to_is_none_of_now() -> None:
    """It would pass as long as the row has its first version."""
    _, outcome = tried(None, lambda work: work.save(item(work).replace(version=7)))
    assert outcome.failed_with("handler_error"), outcome
    assert "is a copy of 7" in str(outcome.reason)


def test_each_save_goes_on_with_what_the_one_before_has_returned() -> None:
    def change(work: UnitOfWork) -> Item:
        saved = work.save(item(work).replace(n=1))
        work.save(saved.replace(n=saved.n + 1))
        return work.save(item(work).replace(n=item(work).n + 1))

    lane, outcome = tried(Item, change)
    assert outcome.applied, outcome
    assert lane.rows(Item) == [Item(id=1, n=3, version=4)]
