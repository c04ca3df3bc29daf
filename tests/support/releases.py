"""A service in three releases: in the second its command has a version of other arguments; the third has one more."""

from typing import Annotated, Any

from msgspec import Meta

from coordinator import Command, Handler, Name, Rejected, Service, UnitOfWork, VersionedRow

Priority = Annotated[int, Meta(ge=0, le=9)]


class Note(VersionedRow, table="notes", key="id"):
    """A note; notes are numbered in the order of their commands."""

    id: int
    title: str
    priority: int = 0


class OldAddNote(Command, type="notes.add"):
    """Add a note. Rejected: `no_title`."""

    text: Name
    is_urgent: bool = False


class AddNote(Command, type="notes.add", version=2):
    """Add a note. Rejected: `no_title`."""

    title: Name
    priority: Priority = 0


class StampNote(Command, type="notes.stamp"):
    """Add a note with the highest priority."""

    title: Name


def add_old(work: UnitOfWork, command: OldAddNote) -> Note:
    return _added(work, command.text, 9 if command.is_urgent else 0)


def add(work: UnitOfWork, command: AddNote) -> Note:
    return _added(work, command.title, command.priority)


def stamp(work: UnitOfWork, command: StampNote) -> Note:
    return _added(work, command.title, 9)


def _added(work: UnitOfWork, title: str, priority: int) -> Note:
    if title == "nothing":
        raise Rejected("no_title", "a note needs a title")
    if title == "broken":
        raise ValueError("it is broken")
    return work.add(Note(id=work.next_id("notes"), title=title, priority=priority))


def title_and_priority(arguments: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had a text, which was urgent or not."""
    urgent = arguments.pop("is_urgent", False)
    return {"title": arguments.pop("text"), "priority": 9 if urgent else 0, **arguments}


old = Service("notes")
old.row(is_public=True)(Note)
old.handles(OldAddNote)(add_old)

new = Service("notes")
new.row(is_public=True)(Note)
new.handles(AddNote)(add)
new.upgrades(AddNote, from_version=1)(title_and_priority)

newest = new.replace(handlers=(*new.handlers, Handler(StampNote, stamp)))
"""`new` with a type that neither of the others has."""
