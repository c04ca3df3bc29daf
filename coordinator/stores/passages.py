"""How commands came through their lane: what only the lane knows of it, as the entry in the log keeps it.

A *passage* is JSON text of few bytes, since every entry has one. Most often it is one number: how long before its
transaction the command was delivered. The first entry of a transaction also has what is true of the whole transaction,
and how long the transaction before took: when that was committed is known only after its own entries were written.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.service.lane_names import TENANT_SIGN
from coordinator.service.outside_calls import EFFECTS_PREFIX

CHILDREN_MAX: Final = 50
"""How many of the commands that one command emitted are kept by name."""


class Child(Struct, frozen=True):
    """A command that another one emitted, or an effect. `target` is a lane, or a service's effects."""

    target: str
    type: str
    command_id: str


class Parent(Struct, frozen=True):
    """The command that led to another one."""

    type: str
    command_id: str


class Passage(Struct, frozen=True, array_like=True):
    """Times are whole ms, and count from the time at which the entry's transaction began (`LogEntry.settled_at`).

    `delivered_ms`: so long before it the broker had delivered the command. `written_ms`: so long after it the handlers
    of the transaction were through, and its rows were sent to the database. `before_ms`: so long after *its* beginning
    the transaction before this one was committed. `place` is where the transport had the last of its commands. These
    three are there in the first entry of a transaction alone. `attempts` counts the deliveries, `parent` and `children`
    name commands, and `unnamed` counts further children. `is_result`: the parent is an effect, and this command its
    result. What is None is not known.
    """

    delivered_ms: int | None = None
    written_ms: int | None = None
    before_ms: int | None = None
    attempts: int = 1
    parent: str | None = None
    children: tuple[str, ...] = ()
    unnamed: int = 0
    is_result: bool = False
    place: str | None = None

    @property
    def is_first(self) -> bool:
        """Whether the entry is the first of its transaction."""
        return self.written_ms is not None


_NOTHING: Final = Passage()
_DEFAULTS: Final = msgspec.structs.astuple(_NOTHING)
_decoder: Final = msgspec.json.Decoder(Passage)


def passage_text(
    delivered_ms: int | None,
    attempts: int = 1,
    parent: str | None = None,
    children: Sequence[str] = (),
    *,
    is_result: bool = False,
) -> str | None:
    """The passage of a command, for its entry; None where nothing is known."""
    if delivered_ms is not None and delivered_ms < 0:
        # A clock went back.
        delivered_ms = None
    if attempts == 1 and parent is None and not children:
        return None if delivered_ms is None else str(delivered_ms)
    named = tuple(children[:CHILDREN_MAX])
    return _encoded(Passage(delivered_ms, None, None, attempts, parent, named, len(children) - len(named), is_result))


def first_of_transaction(text: str | None, written_ms: int, before_ms: int | None, place: str | None = None) -> str:
    """The same of the first entry of a transaction."""
    written_ms = max(0, written_ms)
    passage = msgspec.structs.replace(passage_of(text), written_ms=written_ms, before_ms=before_ms, place=place)
    return _encoded(passage)


def passage_of(text: str | None) -> Passage:
    """What an entry says; nothing of one that an earlier release has written, or a later one in another form."""
    if text is None:
        return _NOTHING
    if text.isdigit():
        return Passage(int(text))
    try:
        return _decoder.decode(text)
    except msgspec.MsgspecError:
        return _NOTHING


def child_text(target: str, command_type: str, command_id: str) -> str:
    """How a passage names a command that was emitted. No target or type has a space."""
    text = f"{command_type} {command_id}"
    return f"{target} {text}" if target.startswith(EFFECTS_PREFIX) or TENANT_SIGN in target else text


def child_of(text: str) -> Child:
    """The inverse. What is malformed has empty parts."""
    *target, command_type, command_id = ["", "", *text.split(" ")][-3:]
    return Child(target[0] or command_type.partition(".")[0], command_type, command_id)


def parent_of(text: str) -> Parent:
    """The parent in a passage: its type, a space, its id."""
    command_type, _, command_id = text.partition(" ")
    return Parent(command_type, command_id)


def _encoded(passage: Passage) -> str:
    """Without what is as nobody knew it, at the end."""
    values = msgspec.structs.astuple(passage)
    count = len(values)
    while count > 1 and values[count - 1] == _DEFAULTS[count - 1]:
        count -= 1
    return msgspec.json.encode(values[:count]).decode()
