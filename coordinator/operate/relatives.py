"""What led to a command, and what it led to, in whichever lanes.

A lane writes down which commands and effects each one emitted. Of a command in another lane only its id says whose it
is: where that does not, the entries from before it are searched for one that names it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.client.timeline import Link, Related, Standing, Timeline, settled_timeline
from coordinator.lane.control import ReplayLetter
from coordinator.operate.log_times import first_since
from coordinator.operate.output import now
from coordinator.service.ids import continuation_command_id, is_system_id
from coordinator.service.outside_calls import EFFECTS_PREFIX, effects_key
from coordinator.stores.admin import LaneAdmin, LetterQuery, OnItsWay
from coordinator.stores.lane_tables import LogEntry
from coordinator.stores.passages import Child, child_of, parent_of, passage_of

NAMED_AMONG: Final = 20_000
"""How many entries of a lane one question searches for the command that emitted another one, or for a result."""
_RESULTS_MAX: Final = 3
"""A fact, a denial and a doubt: each comes once at most."""
_ASKED_FOR_RESULTS_MAX: Final = 5
"""Of how many effects of one command the results are looked for: each is a search of its own."""
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
    if own is not None and timeline.sequence is not None:
        children = _with_results(own, timeline.lane or "", timeline.sequence, children)
    followed = _continuation(continuation_id, admins, ways)
    parent = timeline.parent
    if parent is None:
        found = emitter_of(timeline.command_id, _settled_at(timeline), admins)
        parent = None if found is None else found.parent
    elif (admin := admins.get(parent.lane or "")) is not None and (entry := admin.find(parent.command_id)) is not None:
        parent = msgspec.structs.replace(parent, standing=settled_timeline("", entry).standing)
    return msgspec.structs.replace(
        timeline, parent=parent, children=children if followed is None else [*children, followed]
    )


class EmittedBy(Struct, frozen=True):
    """A command, or an effect, as the one that emitted it names it; and the results of an effect, as far as they are
    known."""

    parent: Related
    child: Related
    results: Sequence[Related]


def emitter_of(command_id: str, at: datetime | None, admins: Admins) -> EmittedBy | None:
    """Which command emitted this one. `at` is when this one was settled.

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
            found = Related(command_id=command_id, how=how, lane=child.target, type=child.type)
            is_own = child.target == effects_key(lane)
            return EmittedBy(parent, found, results_of(found, admin, entry.sequence) if is_own else ())
    return None


def results_of(effect: Related, admin: LaneAdmin, after: int) -> list[Related]:
    """The results of an effect, in their order, among the `NAMED_AMONG` entries behind the one that asked for it.

    `admin` is of the lane of its service.
    """
    lane = (effect.lane or "").removeprefix(EFFECTS_PREFIX)
    found: list[Related] = []
    for entry in admin.naming(effect.command_id, after + 1, after + NAMED_AMONG, _RESULTS_MAX):
        passage = passage_of(entry.passage)
        if not passage.is_result or parent_of(passage.parent or "").command_id != effect.command_id:
            continue
        standing = settled_timeline(lane, entry).standing
        found.append(Related(command_id=entry.command_id, how="result", lane=lane, type=entry.type, standing=standing))
    return found


def results_of_calls(admin: LaneAdmin, lane: str, entry: LogEntry) -> list[tuple[Related, list[Related]]]:
    """The calls to the outside for which a command of this lane has asked, the first `_ASKED_FOR_RESULTS_MAX`, each
    with its results."""
    calls = [each for each in _children(entry.passage) if each.target == effects_key(lane)]
    named = [
        Related(command_id=each.command_id, how="effect", lane=each.target, type=each.type)
        for each in calls[:_ASKED_FOR_RESULTS_MAX]
    ]
    return [(call, results_of(call, admin, entry.sequence)) for call in named]


def _with_results(own: LaneAdmin, lane: str, sequence: int, children: list[Related]) -> list[Related]:
    """The same, with its results behind each effect of this lane's service: where there is one, it is carried out."""
    found: list[Related] = []
    asked = 0
    for child in children:
        if child.how != "effect" or child.lane != effects_key(lane) or asked == _ASKED_FOR_RESULTS_MAX:
            found.append(child)
            continue
        asked += 1
        results = results_of(child, own, sequence)
        found += [msgspec.structs.replace(child, standing="carried_out") if results else child, *results]
    return found


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
