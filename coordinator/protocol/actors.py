"""Actors as text: in the headers of messages, and in the log.

Who asks is a header, and no member of a pack: releases that do not know it pass over a header, and take no pack with a
member that they do not know.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from coordinator.service.principal import Principal, defect_of

HEADER_ACTOR: Final = "actor"
"""Who asks for the command, or for all commands of a pack: a JSON object, `{"subject", "tenant", "scopes"}`."""
HEADER_ACTORS: Final = "actors"
"""Who asks for each command of a pack: a JSON object, `{"actors": […], "of": […]}`."""
HEADER_NO_ACTOR: Final = "no-actor"
"""`true`: nobody who is known asks, and so not the account that publishes either. A release that does not know it takes
the message for the account's, or for a gateway's for which nobody asks."""

ACTORS_BYTES_MAX: Final = 6144
"""The most bytes of one header with actors and their places: a message's head may have to fit into 8192 bytes."""
_PLACE_BYTES: Final = len("null,")
"""The most that a command's place takes: there are fewer than 10,000 commands in a pack."""
_REMEMBERED_MAX: Final = 1000
"""How many texts are remembered: a busy gateway's principals come again and again."""

_PLACES: Final[dict[int | None, str]] = {None: "null", **{place: str(place) for place in range(10_000)}}
"""How each place is written."""

_actor_decoder = msgspec.json.Decoder(Principal)


class Actors(Struct, frozen=True):
    """Who asks for the commands of a pack: `of` has a place in `actors` for each command, None for nobody known.

    Each of `actors` is a JSON text: those of one pack come in the next, too, in another order.
    """

    actors: list[Raw]
    of: list[int | None]


class Logged(Struct, frozen=True, omit_defaults=True):
    """An actor as the log has him. What his credential was good for then is not what he is good for now."""

    subject: str
    tenant: str | None = None


_actors_decoder = msgspec.json.Decoder(Actors)
_logged_decoder = msgspec.json.Decoder(Logged)


class UnreadableActor(ValueError):
    """Raised for a text that names nobody; it says why."""


class HeaderRoom:
    """The room in one header, as its commands are added: of the first one there always is enough."""

    __slots__ = ("_actors", "_used_bytes")

    def __init__(self) -> None:
        self._actors: set[Principal] = set()
        self._used_bytes = 0

    def take(self, actor: Principal | None) -> bool:
        """Take the room of one more command, for which he asks; False: there is none beside the others."""
        used_bytes = self._used_bytes + _PLACE_BYTES
        new = None if actor is None or actor in self._actors else actor
        if new is not None:
            used_bytes += new.json_bytes + 1
        if used_bytes > ACTORS_BYTES_MAX and self._used_bytes:
            return False
        if new is not None:
            self._actors.add(new)
        self._used_bytes = used_bytes
        return True


@lru_cache(maxsize=_REMEMBERED_MAX)
def decoded_actor(text: str, may_be_broker_user: bool, /) -> Principal:
    """Raises UnreadableActor."""
    try:
        actor = _actor_decoder.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableActor(str(error)) from None
    return _checked(actor, may_be_broker_user=may_be_broker_user)


def encoded_actors(actors: Sequence[Principal | None]) -> dict[str, Any]:
    """The header that says who asks for each command of a pack; none where nobody is known."""
    places: dict[Principal, int] = {}
    of = [None if actor is None else places.setdefault(actor, len(places)) for actor in actors]
    if not places:
        return {}
    if len(places) == 1 and None not in of:
        (only,) = places
        return {HEADER_ACTOR: only.as_json}
    # Written by hand: their texts are there.
    listed, placed = ",".join([actor.as_json for actor in places]), ",".join(map(_PLACES.__getitem__, of))
    return {HEADER_ACTORS: f'{{"actors":[{listed}],"of":[{placed}]}}'}


def decoded_actors(text: str, *, may_be_broker_user: bool) -> list[Principal | None]:
    """By place in the pack. Raises UnreadableActor."""
    try:
        read = _actors_decoder.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableActor(str(error)) from None
    actors = [decoded_actor(bytes(each).decode(), may_be_broker_user) for each in read.actors]
    if any(place is not None and not 0 <= place < len(actors) for place in read.of):
        raise UnreadableActor(f"`of` has a place that is not one of the {len(actors)} `actors`")
    return [None if place is None else actors[place] for place in read.of]


def _checked(actor: Principal, *, may_be_broker_user: bool) -> Principal:
    defect = defect_of(actor, may_be_broker_user=may_be_broker_user)
    if defect is not None:
        raise UnreadableActor(defect)
    return actor


def logged_actor(text: str) -> Logged:
    """An actor by his `Principal.as_logged`. Raises msgspec.MsgspecError."""
    return _logged_decoder.decode(text)


def is_anothers(logged: str | None, actor: Principal | None) -> bool:
    """Whether a command, of which the log has this actor, is not for this one to know of: the same subject and tenant
    may, and anybody where nobody was known."""
    return logged is not None and (actor is None or actor.as_logged != logged)
