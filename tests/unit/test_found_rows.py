"""A row is found by its key, and by a unique value that a person has, in each of the forms that he may type."""

from contextlib import AbstractContextManager
from typing import Annotated
from uuid import UUID

import pytest
from msgspec import Meta, structs

from coordinator.operate.asked_rows import AskedRow, asked_row, column_value
from coordinator.operate.conditions import LaneCondition
from coordinator.operate.finding import Finder
from coordinator.operate.found import Found
from coordinator.operate.open import lane_admin, lane_api_keys
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.errors import DatabaseUnavailable
from coordinator.service.ids import new_command_id
from coordinator.service.rows import Row
from coordinator.service.unit_of_work import UnitOfWork
from coordinator.stores.admin import LaneAdmin
from shared.users.commands import CreateUser
from shared.users.model import User
from tests.unit.test_operate_letters import World, world

__all__ = ("world",)

EMAIL = "ada@example.org"
IDLE = LaneCondition(lane="users", state="idle", why=None, waiting=0)


class Booking(Row, table="bookings", key="id", unique=("code", "token", "number")):
    id: Annotated[int, Meta(ge=1)]
    code: Annotated[str, Meta(max_length=10)] | None
    token: UUID
    number: int


def found(text: str, *content: str) -> Found:
    return Finder({"users": IDLE}, registry().service, lane_admin, lane_api_keys).find(
        text, ["users"], frozenset(content)
    )


def create(world: World, times: int = 1) -> list[str]:
    """A user, as so many commands."""
    ids = [new_command_id() for _ in range(times)]
    arguments = CreateUser(name="Ada", email=EMAIL).arguments()
    for each in ids:
        world.deliver(CommandMessage(command_id=each, type=CreateUser.type, arguments=arguments))
    return ids


@pytest.fixture
def known(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    return world


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("17", AskedRow(value="17")),
        ("#17", AskedRow(value="17")),
        ("seat 7", AskedRow(name="seat", value="7")),
        ("/seats/7/", AskedRow(name="seats", value="7")),
        ("seats/seats/7", AskedRow(lane="seats", name="seats", value="7")),
        ("seats-acme/seats#7", AskedRow(lane="seats-acme", name="seats", value="7")),
        ("seats?code=A 1/b", AskedRow(name="seats", column="code", value="A 1/b")),
        ("seats/seats?code=A1", AskedRow(lane="seats", name="seats", column="code", value="A1")),
        ('seats.code="A1"', AskedRow(name="seats", column="code", value='"A1"')),
        ("seats.book", None),
        ("order-1", None),
        ("a/b/c/d", None),
    ],
)
def test_the_forms_in_which_rows_are_asked_for(text: str, asked: AskedRow | None) -> None:
    assert asked_row(text) == asked


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("id", "7", 7),
        ("id", "x", None),
        ("number", str(INTEGER_MAX), INTEGER_MAX),
        ("number", str(INTEGER_MAX + 1), None),
        ("code", "A1", "A1"),
        ("code", '"A\\"1"', 'A"1'),
        ("code", '"A', '"A'),
        ("code", '"A\\u0000b"', None),
        ("token", "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11", UUID("0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11")),
        ("token", "7", None),
        ("nothing", "7", None),
    ],
)
def test_a_value_is_of_the_type_of_its_column(column: str, text: str, value: object) -> None:
    assert column_value(Booking, column, text) == value


@pytest.mark.parametrize(
    "text",
    [
        "users/1",
        "users/users/1",
        "users.id=1",
        f"users?email={EMAIL}",
        f"users/user?email={EMAIL}",
        f'users.email="{EMAIL}"',
    ],
)
def test_a_row_is_found_by_what_a_person_has(known: World, text: str) -> None:
    create(known)
    (row,) = found(text, "users").rows
    assert (row.lane, row.table, row.key, row.is_stuck) == ("users", "users", "1", False)
    assert EMAIL in (row.row or "")


@pytest.mark.parametrize(
    ("text", "content", "said"),
    [
        ("users?name=Ada", "users", "rows of users are found by id, email, and not by name; "),
        (f"users?email={EMAIL}", "items", "rows of users are found by email in the lanes that you operate; "),
        (
            "users?email=bob@example.org",
            "users",
            "there is no row, saga or idempotency key users?email=bob@example.org",
        ),
        ("items/users/1", "users", "there is no row"),
    ],
)
def test_a_row_that_is_not_found_so_is_told_by_what_it_would_be(
    known: World, text: str, content: str, said: str
) -> None:
    """Whoever may only look cannot prove what a row holds by asking for it."""
    create(known)
    nothing = found(text, content)
    assert nothing.is_empty
    assert (nothing.nothing or "").startswith(said)


def test_what_waits_for_a_unique_value_is_said_though_there_is_no_such_row(known: World) -> None:
    users = registry().service("users")

    def fail(work: UnitOfWork, command: CreateUser) -> None:
        raise RuntimeError("this release has a defect")

    broken = [
        structs.replace(each, handle=fail, on_failure="park-key", target=lambda its: User.at(email=its.email))
        for each in users.handlers
        if each.command is CreateUser
    ]
    known.start(users.replace(handlers=tuple(broken)))
    failed, _ = create(known, 2)
    (row,) = found(f"users?email={EMAIL}", "users").rows
    assert (row.key, row.row, row.is_stuck) == (f"email={EMAIL}", None, True)
    assert (
        row.why == f'1 command waits for users.email="{EMAIL}", behind command {failed}, which failed (handler_error)'
    )


@pytest.mark.parametrize("text", ["items/1", "purchase 1", "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"])
@pytest.mark.parametrize("can_be_asked", [False, True])
def test_what_a_lane_may_have_that_nobody_could_look_into_is_not_said_to_be_nowhere(
    known: World, text: str, can_be_asked: bool
) -> None:
    """Also one that was there a moment ago."""
    create(known)
    why = "it does not answer"

    def open_admin(lane: str) -> AbstractContextManager[LaneAdmin]:
        if lane == "items":
            raise DatabaseUnavailable(why)
        return lane_admin(lane)

    items = LaneCondition(lane="items", state="unknown", why=why, waiting=None, can_be_asked=can_be_asked)
    conditions = {"items": items, "users": IDLE}
    finder = Finder(conditions, registry().service, open_admin, lane_api_keys)
    of_both = finder.find(text, ["items", "users"], frozenset(["users"]))
    of_one = finder.find(text, ["items"], frozenset())
    unknown = f"whether lane items has {text} is not known, since nobody could look there"
    assert (of_one.nothing, of_one.away) == (unknown, [f"items: {why}"])
    assert (of_both.nothing or "").startswith(f"{unknown}; of the others: ")
    assert "no lane is paused" not in (of_both.nothing or ""), "that of items nobody knows"


def test_a_suspended_lane_that_nobody_can_look_into_is_named_with_what_helps(known: World) -> None:
    """Its database refuses whoever asks, as it refuses the lane: no lane is not said to be suspended."""
    create(known)

    def open_admin(lane: str) -> AbstractContextManager[LaneAdmin]:
        if lane == "items":
            raise DatabaseUnavailable("it refuses the password")
        return lane_admin(lane)

    why = "NotAdmitted: it refuses the password"
    items = LaneCondition(lane="items", state="suspended", why=why, waiting=2, cause="database", can_be_asked=False)
    finder = Finder({"items": items, "users": IDLE}, registry().service, open_admin, lane_api_keys)
    nothing = finder.find("user 4711", ["items", "users"], frozenset(["users"])).nothing or ""
    assert f"; lane items is suspended ({why}), and 2 messages wait there (bring its database back" in nothing
    assert nothing.endswith("; none of them is paused, suspended or stuck")
