"""A command that a service declares and forgets to handle is told at start, and in the words of the test kit."""

import asyncio

import structlog

from coordinator import Command, Handler, Row, Service, UnitOfWork
from coordinator.lane.control import CONTROL_TYPES
from coordinator.service.outside_calls import Effect
from coordinator.service.unhandled import unhandled_commands
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.testing import LaneInMemory
from coordinator.writing import InProcessWrites


class Thing(Row, table="things", key="id"):
    id: int


class Add(Command, type="things.add"):
    """Has a handler."""


class AddOfBefore(Command, type="things.add", version=2):
    """The same type, of another version."""


class Own(Command, type="things.own"):
    """The system's own."""


class Lost(Command, type="things.lost"):
    """Has none."""


class Elsewhere(Command, type="others.lost"):
    """Another lane's."""


class Ask(Effect, type="things.ask"):
    """A call to the outside: no lane applies it."""


def add(work: UnitOfWork, command: Add) -> None: ...


def own(work: UnitOfWork, command: Own) -> None: ...


THINGS = Service("things", models=(Thing,), handlers=(Handler(Add, add), Handler(Own, own, is_internal=True)))


def test_commands_without_a_handler_are_those_of_the_lane_in_the_service_s_modules() -> None:
    assert unhandled_commands(THINGS) == [Lost]
    assert unhandled_commands(THINGS.replace(name="others")) == [Elsewhere]


def test_a_start_warns_of_them() -> None:
    async def start() -> None:
        writes = InProcessWrites({"things": MemoryStore(MemoryDatabase())}, [THINGS])
        await writes.start()
        await writes.close()

    with structlog.testing.capture_logs() as logs:
        asyncio.run(start())
    assert [
        (each["lane"], each["type"], each["what_to_do"]) for each in logs if each["event"] == "command_without_handler"
    ] == [("things", "things.lost", "declare its handler with @things.handles(Lost)")]


def test_the_kit_says_what_to_declare() -> None:
    reason = LaneInMemory(THINGS).apply(Lost()).reason
    assert reason == (
        "this lane has no command type 'things.lost'; it has things.add, things.own: "
        "declare its handler with @things.handles(Lost)"
    )
    assert str(LaneInMemory(THINGS).apply(Elsewhere()).reason).endswith("it is for the lane others")


def test_a_stranger_is_told_of_what_he_may_issue() -> None:
    tried = LaneInMemory(THINGS).apply(Lost(), origin="public")
    assert tried.outcome.error is not None
    assert tried.outcome.error.message == "this lane has no command type 'things.lost'; it has things.add"
    for origin in ("public", "system"):
        message = str(LaneInMemory(THINGS).apply(Lost(), origin=origin).reason)
        assert not any(kind in message for kind in CONTROL_TYPES)
