"""Whether a value that a row refuses is one that came with the command, and where it stands there."""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from coordinator.lane.request import Request
from coordinator.service.leaves import field_names
from coordinator.stores.row_checks import InvalidRow

_COMPARED: Final = frozenset({int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID})
"""Types of whose values an equal one is the same."""
_ANYBODYS: Final = (0, 1, -1, "", b"")
"""Values that a handler has of its own, too: an equal one in the command is the same only where it has the column's
name."""


def fault_of_sender(request: Request, error: InvalidRow) -> str | None:
    """What is wrong with the arguments of a command, if a row refuses one of them as it was sent; None: it is not that.

    A command of the system's is not asked: whoever has emitted it was to look at its values.
    """
    refused = error.refused
    if refused is None or request.command is None or request.message.origin != "public":
        return None
    place = _place_of(refused.value, request.command, f".{refused.column}" if _is_anybodys(refused.value) else "")
    return None if place is None else f"{refused.why} - at `{place}`"


def _is_anybodys(value: object) -> bool:
    return isinstance(value, str | bytes | int | float | Decimal) and value in _ANYBODYS


def _place_of(value: object, command: Struct, name_end: str) -> str | None:
    is_compared = type(value) in _COMPARED
    seen = set[int]()
    waiting = [("$", iter(list[tuple[str, object]]([("", command)])))]
    while waiting:
        place, parts = waiting[-1]
        part = next(parts, None)
        if part is None:
            waiting.pop()
            continue
        name, given = part
        is_equal = given is value or (is_compared and type(given) is type(value) and given == value)
        if is_equal and name.endswith(name_end):
            return place + name
        if id(given) not in seen and (inner := _parts(given)) is not None:
            seen.add(id(given))
            waiting.append((place + name, inner))
    return None


def _parts(given: Any) -> Iterator[tuple[str, object]] | None:
    """What is in a value, with names as they are in JSON."""
    if isinstance(given, Struct):
        names = zip(given.__struct_fields__, given.__struct_encode_fields__, strict=True)
        return ((f".{shown}", getattr(given, name)) for name, shown in names)
    if isinstance(given, dict):
        return (("[...]", each) for pair in given.items() for each in pair)
    if isinstance(given, list | tuple | set | frozenset):
        return (("[...]", each) for each in given)
    fields = field_names(given)
    return None if fields is None else ((f".{field}", getattr(given, field)) for field in fields)
