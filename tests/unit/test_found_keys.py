"""A row with a key of several columns is found in each form that a person may type, and so is what it waits for."""

import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import pytest
from msgspec import Meta

from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.migrations.migrate import migrate
from coordinator.operate.asked_rows import key_text, not_found_by, refs_of
from coordinator.operate.conditions import LaneCondition
from coordinator.operate.finding import Finder
from coordinator.operate.found import Found
from coordinator.operate.parked import key_named
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import DatabaseSettings, LaneSettings
from coordinator.service.commands import Command
from coordinator.service.rows import Row, VersionedRow
from coordinator.service.service import Service
from coordinator.service.text import printable
from coordinator.service.unit_of_work import UnitOfWork
from coordinator.stores.open import open_admin, open_store
from tests.support.store_contract import NOW

LANE = "clinic"
IDLE = LaneCondition(lane=LANE, state="idle", why=None, waiting=0)


class Slot(VersionedRow, table="slots", key=("doctor", "number"), review=("number", 404)):
    doctor: Annotated[str, Meta(max_length=20)]
    number: int
    reason_code: Annotated[str, Meta(max_length=20)] = "not_on_any_floor"


class OpenSlot(Command, type="clinic.open"):
    doctor: str
    number: int


class CloseSlot(Command, type="clinic.close"):
    doctor: str
    number: int


class BookSlot(Command, type="clinic.book"):
    doctor: str
    number: int


clinic = Service(LANE, models=(Slot,))


@clinic.handles(OpenSlot)
def open_slot(work: UnitOfWork, command: OpenSlot) -> Slot:
    return work.add(Slot(doctor=command.doctor, number=command.number))


@clinic.handles(BookSlot, target=lambda command: Slot.at(command.doctor, command.number), on_failure="park-key")
def book_slot(work: UnitOfWork, command: BookSlot) -> Row:
    raise RuntimeError("this release has a defect")


@clinic.handles(CloseSlot, target=lambda command: Slot.at(command.doctor, command.number))
def close_slot(work: UnitOfWork, command: CloseSlot) -> Row:
    raise RuntimeError("this release has a defect")


@pytest.fixture
def clinic_lane(tmp_path: Path) -> Iterator[tuple[str, Lane]]:
    url = f"sqlite:///{tmp_path}/clinic.db"
    migrate(clinic, DatabaseSettings(database_url=url))
    with closing(open_store(url, clinic)) as store:
        yield url, Lane(clinic, store, lambda: NOW, "test", LaneSettings(), lambda: 0.0)


def settle(lane: Lane, tag: int, command: Command) -> None:
    message = CommandMessage(command_id=str(uuid4()), type=command.type, arguments=command.arguments())
    assert isinstance(lane.apply([Delivery(tag=tag, commands=(message,))]), Settlement)


def found(url: str, text: str, *, operates: bool = True) -> Found:
    def unused(_: str) -> Any:
        raise AssertionError("no key is looked for where a row is found")

    finder = Finder({LANE: IDLE}, lambda _: clinic, lambda lane: closing(open_admin(url, lane)), unused)
    return finder.find(text, [LANE], frozenset({LANE} if operates else ()))


FORMS = (
    *("slots/kim/17", "slots kim 17", "slots/kim,17", "slot/kim, 17", 'slots/["kim", 17]', "clinic/slots/kim/17"),
    *("slots?doctor=kim&number=17", "slots?number=17&doctor=kim", 'slots.doctor,number=["kim",17]', "/Slots/kim/17/"),
)


@pytest.mark.parametrize("text", FORMS)
def test_the_forms_of_a_key_of_several_columns(text: str) -> None:
    assert list(refs_of(clinic, text)) == [Slot.at("kim", 17)]


@pytest.mark.parametrize(
    "text",
    [*(each for each in FORMS if "clinic" not in each), "slots/slots/kim/17", 'slots/slots.doctor,number=["kim",17]'],
)
def test_the_forms_where_a_table_has_the_name_of_its_lane(text: str) -> None:
    assert list(refs_of(Service("slots", models=(Slot,)), text)) == [Slot.at("kim", 17)]


@pytest.mark.parametrize(("text", "is_told"), [("slots/kim/17", False), ("slots/17", True)])
def test_the_form_is_told_where_a_table_has_the_name_of_its_lane(text: str, is_told: bool) -> None:
    said = not_found_by(Service("slots", models=(Slot,)), text, is_operated=True)
    assert said == ("rows of slots are found by doctor, number together, as slots/DOCTOR/NUMBER; " if is_told else "")


@pytest.mark.parametrize(
    "text", ["slots/kim", "slots/kim/x", "slots/kim/17/18", "slots?doctor=kim", "seats/kim/17", "slots", ""]
)
def test_what_is_no_whole_key_names_no_row(text: str) -> None:
    assert list(refs_of(clinic, text)) == []


def test_a_part_may_have_what_stands_between_parts() -> None:
    assert list(refs_of(clinic, 'slots/["kim / lee, jr.", 17]')) == [Slot.at("kim / lee, jr.", 17)]


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        *((("kim", 17), "kim/17"), (("kim lee", 17), '["kim lee",17]'), (("kim/lee", 17), '["kim/lee",17]')),
        *((("kim,lee", 17), '["kim,lee",17]'), (("", 17), '["",17]'), (('"', 1), '"/1')),
    ],
)
def test_a_key_is_shown_as_one_asks_for_its_row(key: tuple[str, int], shown: str) -> None:
    assert key_text(key) == shown
    assert list(refs_of(clinic, f"slots/{shown}")) == [Slot.at(*key)]


@pytest.mark.parametrize("text", FORMS)
def test_a_row_is_found_with_what_waits_for_it(clinic_lane: tuple[str, Lane], text: str) -> None:
    url, lane = clinic_lane
    settle(lane, 1, OpenSlot(doctor="kim", number=17))
    (row,) = found(url, text).rows
    assert (row.key, row.is_stuck) == ("kim/17", False)
    assert msgspec.json.decode(row.row or "")["number"] == 17
    for tag in (2, 3):
        settle(lane, tag, BookSlot(doctor="kim", number=17))
    (row,) = found(url, text).rows
    assert row.is_stuck
    assert (row.why or "").startswith('1 command waits for slots.doctor,number=["kim",17], behind command ')
    assert "coordinator release clinic 'slots.doctor,number=[\"kim\",17]'" in (row.todo or "")


def test_the_line_that_lets_a_key_go_on_is_one_command_whatever_the_key_says(clinic_lane: tuple[str, Lane]) -> None:
    """Strangers choose the values of keys, and an operator copies the line into a shell."""
    url, lane = clinic_lane
    for tag in (1, 2):
        settle(lane, tag, BookSlot(doctor="o'; touch owned; '", number=17))
    (row,) = found(url, "slots/[\"o'; touch owned; '\",17]").rows
    line = (row.todo or "").partition("or let them go on: ")[2]
    assert shlex.split(line) == ["coordinator", "release", "clinic", "slots.doctor,number=[\"o'; touch owned; '\",17]"]


@pytest.mark.parametrize("doctor", ["kim", "k\u200bim", "\u202emik", 'k"i\\m', "k\x7fim", "kim \U000e0061"])
def test_a_key_is_known_as_it_is_shown(clinic_lane: tuple[str, Lane], doctor: str) -> None:
    """What nobody sees of it is escaped wherever it is shown."""
    url, lane = clinic_lane
    for tag in (1, 2):
        settle(lane, tag, BookSlot(doctor=doctor, number=17))
    with closing(open_admin(url, LANE)) as admin:
        (key,) = {each.ordering_key for each in admin.parked()}
        named = key_named(admin, printable(key))
    assert named is not None
    assert named.ordering_key == key


def test_a_row_whose_command_is_a_dead_letter_is_found_with_it(clinic_lane: tuple[str, Lane]) -> None:
    url, lane = clinic_lane
    settle(lane, 1, OpenSlot(doctor="kim", number=17))
    settle(lane, 2, CloseSlot(doctor="kim", number=17))
    (row,) = found(url, "slots/kim/17").rows
    assert (row.why or "").startswith("clinic.close for it failed (handler_error)")
    assert found(url, "slots/kim/17", operates=False).rows[0].row is None


def test_who_asks_for_it_by_a_part_is_told_the_form(clinic_lane: tuple[str, Lane]) -> None:
    url, _ = clinic_lane
    form = "rows of slots are found by doctor, number together, as slots/DOCTOR/NUMBER; "
    for text, is_told in (("slots/17", True), ("slots/kim/x", True), ("slots/kim/17", False)):
        assert (found(url, text, operates=False).nothing or "").startswith(form) is is_told, text


def test_a_row_at_which_a_person_has_to_look_says_so_to_who_may_see_it(clinic_lane: tuple[str, Lane]) -> None:
    url, lane = clinic_lane
    settle(lane, 1, OpenSlot(doctor="kim", number=404))
    (row,) = found(url, "slots/kim/404").rows
    assert (row.is_stuck, row.why) == (True, "its number is 404 (not_on_any_floor)")
    assert row.todo == "a person decides: docs/OPERATING.md, What needs a person"
    (hidden,) = found(url, "slots/kim/404", operates=False).rows
    assert (hidden.is_stuck, hidden.why) == (False, None)
