"""The rows that commands name to be read beforehand, as far as what their handlers return names any."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from coordinator.lane.authors import abandon, described, reference
from coordinator.lane.request import Request
from coordinator.service.commands import Command
from coordinator.service.rows import Ref, Row
from coordinator.service.unit_of_work import Handler
from coordinator.stores.row_checks import RowChecks

READS_MAX = 10_000
"""Rows that one command may name."""


def reads(requests: Sequence[Request], checks: RowChecks) -> tuple[list[Ref[Row]], dict[int, str]]:
    """The rows that the commands of some requests name; also, by place, what is wrong with what others name."""
    refs: list[Ref[Row]] = []
    misread: dict[int, str] = {}
    for place, request in enumerate(requests):
        if request.handler is None:
            continue
        given: Iterable[Ref[Row]] = ()
        try:
            given = _named_by(request.handler, request.command)
            if type(given) is not tuple:
                given = _listed(given)
            for ref in given:
                checks.reference(ref)
            refs += given
        except BaseException as error:  # noqa: BLE001  # a function of the service's author
            misread[place] = f"reads: {described(error)}"
            abandon(given)
    return refs, misread


def _named_by(handler: Handler[Any], command: Command | None) -> Iterable[Ref[Row]]:
    """What a handler says that it reads: its target, if nothing else. Raises an error of any kind."""
    if handler.reads is not None:
        return handler.reads(command)
    return () if handler.target is None else (reference(handler.target(command)),)


def _listed(given: Iterable[Ref[Row]]) -> list[Ref[Row]]:
    """What an author's function names, however it does. Raises an error of any kind."""
    refs = list(islice(given, READS_MAX + 1))
    if len(refs) > READS_MAX:
        raise ValueError(f"more than {READS_MAX} rows")
    return refs
