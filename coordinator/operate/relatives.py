"""What led to a command, and what it led to, in whichever lanes.

A lane writes down which commands and effects each one emitted. Of a command in another lane only its id says whose it
is: where that does not, the entries from before it are searched for one that names it.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from coordinator.client.timeline import Link, Related, Standing, Timeline, settled_timeline
from coordinator.lane.control import ReplayLetter
from coordinator.operate.log_times import first_since
from coordinator.operate.output import now
from coordinator.service.ids import continuation_command_id, is_system_id
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.stores.admin import LaneAdmin, LetterQuery, OnItsWay
from coordinator.stores.passages import Child, child_of, passage_of

NAMED_AMONG: Final = 20_000
"""How many entries of a lane one question searches for the command that emitted another one."""
_CLOCKS_APART: Final = timedelta(seconds=10)
"""A lane whose clock is so far ahead may have emitted a command later than another one has settled it."""

Admins = Mapping[str, LaneAdmin]
"""The open databases, by lane."""
Ways = Mapping[str, OnItsWay]
"""By command: where it is on its way from the lane that emitted it."""


def with_relatives(timeline: Timeline, admins: Admins) -> Timeline:
    """A settled command's timeline, with its parent and how its children stand, as far as these lanes know it."""
    own, continuation_id = admins.get(timeline.lane or ""), _continuation_id(timeline)
    ids = [each.command_id for each in timeline.children if each.standing is None]
    ways = {} if own is None else own.on_its_way([*ids, continuation_id])
    children = [_standing(each, own, admins, ways) for each in timeline.children]
    followed = _continuation(continuation_id, admins, ways)
    parent = timeline.parent
    if parent is None:
        found = emitter_of(timeline.command_id, _settled_at(timeline), admins)
        parent = None if found is None else found[0]
    elif (admin := admins.get(parent.lane or "")) is not None and (entry := admin.find(parent.command_id)) is not None:
        parent = msgspec.structs.replace(parent, standing=settled_timeline("", entry).standing)
    return msgspec.structs.replace(
        timeline, parent=parent, children=children if followed is None else [*children, followed]
    )


def emitter_of(command_id: str, at: datetime | None, admins: Admins) -> tuple[Related, Related] | None:
    """The command that emitted this one, and this one, as that names it. `at` is when this one was settled.

    It looks at the `NAMED_AMONG` entries of each lane from before. None: none of those did.
    """
    if not is_system_id(command_id):
        return None
    for lane, admin in admins.items():
        last = first_since(admin, (at or now()) + _CLOCKS_APART) - 1
        for entry in admin.naming(command_id, max(1, last - NAMED_AMONG + 1), last, 1):
            child = next((each for each in _children(entry.passage) if each.command_id == command_id), None)
            if child is None:
                continue
            how = _how(child, is_replay=entry.type == ReplayLetter.type)
            standing = settled_timeline(lane, entry).standing
            parent = Related(command_id=entry.command_id, how=how, lane=lane, type=entry.type, standing=standing)
            return parent, Related(command_id=command_id, how=how, lane=child.target, type=child.type)
    return None


def _settled_at(timeline: Timeline) -> datetime | None:
    return next((each.at for each in timeline.moments if each.name == "applied"), None)


def _children(passage: str | None) -> list[Child]:
    return [child_of(each) for each in passage_of(passage).children]


def _how(child: Child, *, is_replay: bool) -> Link:
    if is_replay:
        return "replay"
    return "effect" if child.target.startswith(EFFECTS_PREFIX) else "emitted"


def _standing(child: Related, own: LaneAdmin | None, admins: Admins, ways: Ways) -> Related:
    """A child with where it stands. What is in no database that is open is with the broker, or behind it."""
    if child.standing is not None:
        return child
    standing: Standing | None = None
    target, way = admins.get(child.lane or ""), ways.get(child.command_id, OnItsWay())
    if target is not None and (entry := target.find(child.command_id)) is not None:
        standing = settled_timeline("", entry).standing
    elif way.emitted is not None:
        standing = "outbox"
    elif way.timer is not None:
        standing = "timed"
    elif own is not None and child.how == "effect":
        has_letter = bool(own.letters(LetterQuery(command_id=child.command_id), 0, 1))
        standing = "failed" if has_letter else "outside"
    elif target is not None:
        standing = "unknown"
    return msgspec.structs.replace(child, standing=standing)


def _continuation_id(command: Timeline) -> str:
    """Its id is made from that of the command, so it is found in whichever lane it is."""
    return continuation_command_id(f"{command.type} {command.command_id}")


def _continuation(command_id: str, admins: Admins, ways: Ways) -> Related | None:
    """The command that an outcome has become, if a lane has settled it or is yet to send it."""
    for lane, admin in admins.items():
        if (entry := admin.find(command_id)) is not None:
            standing = settled_timeline(lane, entry).standing
            return Related(command_id=command_id, how="continuation", lane=lane, type=entry.type, standing=standing)
    emitted = ways.get(command_id, OnItsWay()).emitted
    if emitted is None:
        return None
    return Related(command_id=command_id, how="continuation", lane=emitted.target, type=emitted.type, standing="outbox")
