"""Whoever sends a command chooses how long the text is that names a person: a lane keeps nothing of it."""

import gc
import tracemalloc
from typing import Annotated

from msgspec import Meta

from coordinator import Command, Personal, Rejected, Service, UnitOfWork, VersionedRow
from coordinator.lane.subjects import REMEMBERED_CHARACTERS_MAX
from coordinator.testing import LaneInMemory

guests = Service("guests")


@guests.row
class Guest(VersionedRow, table="guests", key="email"):
    email: Annotated[str, Meta(max_length=REMEMBERED_CHARACTERS_MAX)]
    name: Personal[str]


class Leave(Command, type="guests.leave"):
    email: str


@guests.handles(Leave, target=lambda command: Guest.at(command.email))
def leave(work: UnitOfWork, command: Leave) -> None:
    guest = work.get(Guest, command.email)
    if guest is None:
        raise Rejected("guest_not_found", "there is no such guest")
    work.remove(guest)


COMMANDS = 40
LONG = 100_000


def kept_bytes(lane: LaneInMemory, characters: int, letter: str) -> int:
    """How much more memory the process has after some commands of so many characters."""
    tracemalloc.start()
    try:
        for number in range(COMMANDS):
            assert lane.apply(Leave(email=f"{number:06d}{letter * (characters - 6)}")).rejected_with("guest_not_found")
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_lane_keeps_no_more_of_a_longer_text_than_of_a_short_one() -> None:
    lane = LaneInMemory(guests)
    for_short = kept_bytes(lane, REMEMBERED_CHARACTERS_MAX, "s")
    for_long = kept_bytes(lane, LONG, "l")
    assert for_long < for_short + COMMANDS * LONG // 10
