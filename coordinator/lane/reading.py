"""The reads of a transaction before its first command is applied, in as few round trips as the database can."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from coordinator.lane.authors import abandon, reference
from coordinator.lane.dead_letters import source_of_nameless
from coordinator.lane.request import Request
from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.commands import Command
from coordinator.service.descriptions import described
from coordinator.service.rows import Ref, Row, RowSelection, ref_of
from coordinator.service.unit_of_work import Handler
from coordinator.stores.lane_tables import DeadLetter, LogEntry
from coordinator.stores.port import Read
from coordinator.stores.row_checks import RowChecks

READS_MAX = 10_000
"""How many rows one command may name."""


Named = Ref[Row] | RowSelection[Row]


def named_rows(requests: Sequence[Request], checks: RowChecks) -> tuple[list[Named], dict[int, str]]:
    """The rows that the commands of some requests name; also, by place, the faults in what others name."""
    refs: list[Named] = []
    misread: dict[int, str] = {}
    for place, request in enumerate(requests):
        if request.handler is None:
            continue
        given: Iterable[Named] = ()
        try:
            given = _named_by(request.handler, request.command)
            if type(given) is not tuple or len(given) > READS_MAX:
                given = _listed(given)
            refs += [checks.reference(ref) for ref in given]
        except BaseException as error:  # noqa: BLE001  # a function of the service's author
            what = "target" if request.handler.reads is None else "reads"
            misread[place] = f"`{what}` of {request.handler.command.__name__}: {described(error)}"
            abandon(given)
    return refs, misread


def _named_by(handler: Handler[Any], command: Command | None) -> Iterable[Named]:
    """The rows that a handler says it reads; by default its target. Raises an error of any kind."""
    if handler.reads is not None:
        return handler.reads(command)
    return () if handler.target is None else (reference(handler.target(command)),)


def _listed(given: Iterable[Named]) -> list[Named]:
    """The rows that an author's function names, in any form. Raises an error of any kind."""
    try:
        first = islice(given, READS_MAX + 1)
    except TypeError:
        raise TypeError(f"it returns {_named(given)}: return a list of references, as in [Seat.at(…)]") from None
    refs = list(first)
    if len(refs) > READS_MAX:
        raise ValueError(f"more than {READS_MAX} rows")
    return refs


def _named(given: object) -> str:
    """What is returned where references belong."""
    if isinstance(given, Ref):
        return f"one reference, to a {given.model.__name__}"
    if isinstance(given, RowSelection):
        return f"one selection, of {given.model.__name__} rows"
    return "None" if given is None else f"a {type(given).__name__}"


def letter_refs(requests: Iterable[Request], lane: str) -> list[Ref[Row]]:
    """The dead letters that requests without an id may be copies of."""
    return [
        DeadLetter.at(source=source_of_nameless(request.message, request.defect, lane))
        for request in requests
        if request.message.command_id is None and request.letter is None
    ]


def known_entries(work: BatchWork, requests: Sequence[Request], refs: Iterable[Named]) -> dict[str, LogEntry]:
    """The log's entries for the ids of a batch; the rows that it names are read in the same round trip."""
    ids = list({request.message.command_id: None for request in requests if request.message.command_id is not None})
    log = [Read(LogEntry, LogEntry.key, ids)] if ids else []
    return {entry.command_id: entry for entries in work.prefetch(refs, *log) for entry in entries}


def announced_again(
    work: BatchWork, requests: Sequence[Request], known: Mapping[str, LogEntry], checks: RowChecks, culprits: int
) -> tuple[list[Row], list[Ref[Row]]]:
    """The rows that already settled commands name, as they are now, and those that are gone.

    The process that settled them may have died, or lost its database, after the commit and before the announcement.
    So those that are there may have begun anew, too: their keys are among those that are gone.
    The rows of the first requests, the `culprits`, are not read: this release may be unable to read them. They are
    announced as gone, so that no copy of them is left.
    """
    saved: list[Row] = []
    removed: list[Ref[Row]] = []
    if not known:
        return saved, removed
    unread, _ = named_rows([each for each in requests[:culprits] if each.message.command_id in known], checks)
    removed += [ref for ref in unread if not isinstance(ref, RowSelection) and ref.column == ref.model.key]
    refs, _ = named_rows([each for each in requests[culprits:] if each.message.command_id in known], checks)
    work.prefetch(refs)
    for ref in refs:
        if isinstance(ref, RowSelection):
            # What no longer is in it, the command has named by its key, if it is to be announced.
            saved += work.known_rows(ref)
            continue
        row = work.find(ref.model, ref.column, ref.value)
        if row is not None:
            saved.append(row)
        elif ref.column == ref.model.key:
            removed.append(ref)
    return saved, removed + list(map(ref_of, saved))
