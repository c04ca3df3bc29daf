"""The `tracestate` of the commands of a pack: headers of its message.

They are no members of its commands: releases that do not know a header pass over it, and take no pack with a member
that they do not know. Each client chooses his own, so a pack takes commands with any of them, and there is so much room
for what they are: what has none goes without. Nobody's, however long and whatever it is, sends others' commands alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from coordinator.service.trace_context import checked_tracestate

HEADER_TRACESTATE: Final = "tracestate"
"""Of all commands of a message."""
HEADER_TRACESTATES: Final = "tracestates"
"""Of some commands of a pack: a JSON object that has the places of its commands by their `tracestate`."""
TRACESTATES_BYTES_MAX: Final = 768
"""Of the latter: a message's head may have to fit into 8192 bytes, and has its actors, too."""

_PUNCTUATION_BYTES: Final = len(":[],")
_decoder = msgspec.json.Decoder(dict[str, list[int]])


def encoded_tracestates(states: Sequence[str | None]) -> dict[str, Any]:
    """The header that says the `tracestate` of each command of a pack; none where none has one."""
    first = states[0]
    if all(state == first for state in states):
        return {} if first is None else {HEADER_TRACESTATE: first}
    places: dict[str, list[int]] = {}
    room_bytes = TRACESTATES_BYTES_MAX - len("{}")
    for place, state in enumerate(states):
        if state is None:
            continue
        used_bytes = len(f"{place},")
        if state not in places:
            used_bytes += len(msgspec.json.encode(state)) + _PUNCTUATION_BYTES
        if used_bytes <= room_bytes:
            room_bytes -= used_bytes
            places.setdefault(state, []).append(place)
    return {HEADER_TRACESTATES: msgspec.json.encode(places).decode()} if places else {}


def decoded_tracestates(headers: Mapping[str, Any], count: int) -> list[str | None]:
    """That of each of so many commands. Never raises: what is malformed has no weight."""
    found = [checked_tracestate(headers.get(HEADER_TRACESTATE))] * count
    given = headers.get(HEADER_TRACESTATES)
    if not isinstance(given, str):
        return found
    try:
        read = _decoder.decode(given)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return found
    for text, places in read.items():
        state = checked_tracestate(text)
        for place in places:
            if 0 <= place < count:
                found[place] = state
    return found
