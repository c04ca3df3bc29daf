"""When a command may overtake its predecessor in a publisher session, as the simulation judges it."""

from collections.abc import Iterator
from contextlib import closing

import pika
import pytest

from coordinator.protocol.wire import JSON_CONTENT, CommandMessage, headers_of
from coordinator.stores.port import Changes
from tests.simulation.broker import public_message
from tests.simulation.database import Pending
from tests.simulation.world import GAP_TIMEOUT_S, World

FIRST, SECOND, THIRD, FOURTH, OTHER = (f"00000001-0000-7000-8000-{number:012}" for number in (1, 2, 3, 4, 5))
SESSION: dict[int | None, str] = {1: FIRST, 2: SECOND, 3: THIRD, 4: FOURTH}


@pytest.fixture
def world() -> Iterator[World]:
    with closing(World(1)) as world:
        world.settings = world.settings.model_copy(update={"early_max": 40})
        world.sessions = {"session": SESSION}
        world.commands = {command_id: command(number, command_id) for number, command_id in SESSION.items()}
        yield world


def command(number: int | None, command_id: str) -> CommandMessage:
    return CommandMessage(
        command_id=command_id, type="ledger.keep", arguments=b"{}", publisher="session", publisher_seq=number
    )


def arrives(world: World, number: int, command_id: str, at_s: float) -> None:
    headers = dict(headers_of(command(number, command_id)))
    properties = pika.BasicProperties(
        message_id=command_id, type="ledger.keep", content_type=JSON_CONTENT, headers=headers
    )
    message = world.broker.queues["ledger"].append(public_message(properties, b"{}", (command_id,)))
    world.now = at_s
    world.processes["ledger-0"].on_message(number, message, False)


def is_taken(world: World, command_id: str, at_s: float) -> list[str]:
    """The violations when the commit of this command lands."""
    process = world.processes["ledger-0"]
    world.now = at_s
    commit = Pending(process, world.databases["ledger"].lease(), 1, Changes([], [], []), 2, 0, {})
    world.taken(commit, command_id)
    return world.violations


def test_a_predecessor_may_be_missing_since_its_first_successor_came_whatever_id_that_has(world: World) -> None:
    arrives(world, 5, OTHER, 0.0)
    arrives(world, 3, THIRD, 0.5)
    assert is_taken(world, THIRD, GAP_TIMEOUT_S) == []


def test_a_gap_is_given_up_for_an_id_that_others_use_too_and_nobody_waits_for_it_again(world: World) -> None:
    world.shared = {THIRD}
    arrives(world, 3, THIRD, 0.0)
    assert is_taken(world, THIRD, GAP_TIMEOUT_S) == []
    process = world.processes["ledger-0"]
    process.numbers_received_at.clear()
    arrives(world, 4, FOURTH, 1.0)
    assert is_taken(world, FOURTH, 1.0) == [f"{FOURTH} overtook {THIRD} after 0.000 s"], (
        "which has no entry in this log"
    )


def test_an_id_that_others_use_too_excuses_nobody_while_a_gap_is_young(world: World) -> None:
    world.shared = {THIRD}
    arrives(world, 3, THIRD, 0.0)
    assert is_taken(world, THIRD, 0.1) == []
    arrives(world, 4, FOURTH, 0.2)
    assert is_taken(world, FOURTH, 0.2) == [
        f"{FOURTH} overtook {FIRST} after 0.200 s",
        f"{FOURTH} overtook {SECOND} after 0.200 s",
        f"{FOURTH} overtook {THIRD} after 0.000 s",
    ]


def test_a_number_says_nothing_of_another_number_under_the_same_id(world: World) -> None:
    arrives(world, 1, THIRD, 0.0)
    arrives(world, 3, THIRD, 0.5)
    assert is_taken(world, THIRD, GAP_TIMEOUT_S) == [
        f"{THIRD} overtook {FIRST} after 0.300 s",
        f"{THIRD} overtook {SECOND} after 0.300 s",
    ]
