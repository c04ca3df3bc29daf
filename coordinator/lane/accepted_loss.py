"""Whether an operator may accept that commits of a lane are lost.

An acceptance makes a hole in the lane's sequence, and lets it go on where it would be blocked. So its kept mark must
show the loss. Where there is none, since it is lost too, the operator's word is enough for a bounded hole.
"""

from typing import Final

from msgspec import Struct

from coordinator.lane.high_water import Mark

SEQUENCE_MAX: Final = 10**15
"""The highest sequence that is accepted as lost: a lane must never come near the largest one of the protocol."""
BEHIND_MAX: Final = 100_000
"""How far a kept mark may be behind: more than a lane settles in the second until it keeps the next."""
ON_WORD_MAX: Final = 10**9
"""How many commands are accepted as lost on an operator's word alone."""


class MarkPlace(Struct, frozen=True):
    """Where a lane's mark is kept, as it is called, and what rids the lane of a wrong one."""

    name: str
    removal: str


IN_RABBITMQ: Final = MarkPlace(
    "in RabbitMQ", "stop its coordinators, purge the queue of the mark (`writes.<lane>.mark`), and start them"
)


def why_not_accepted(
    lane: str, ends_at: int, up_to: int, mark: Mark | None, place: MarkPlace = IN_RABBITMQ, *, is_other: bool = False
) -> str | None:
    """Why the loss of the sequences after `ends_at` up to `up_to` is not to be accepted; None: the kept mark shows it.

    None for the mark: there is none. `is_other`: the mark is of another history, so that also a database which has
    come further lacks what was acknowledged.
    """
    if up_to <= ends_at and not is_other:
        return _nothing_lost(ends_at, up_to)
    if mark is None or (mark.sequence <= ends_at and not is_other):
        kept = "there is no mark of it" if mark is None else f"its mark {place.name} is at {mark.sequence}"
        advice = "--without-mark takes your word for it" if mark is None else place.removal
        return (
            f"nothing shows that {lane} has lost anything: its database ends at sequence {ends_at}, and {kept}. If you "
            f"know it otherwise, {advice}"
        )
    if mark.sequence > SEQUENCE_MAX:
        return f"the mark of {lane} {place.name} says {mark.sequence}, and no lane comes that far: {place.removal}"
    if not mark.sequence <= up_to <= mark.sequence + BEHIND_MAX:
        return f"{mark.sequence} was acknowledged, by the mark of {lane} {place.name}, and not {up_to}"
    return None


def why_word_is_not_enough(
    lane: str,
    ends_at: int,
    up_to: int,
    mark: Mark | None = None,
    place: MarkPlace = IN_RABBITMQ,
    *,
    is_other: bool = False,
) -> str | None:
    """Why such a loss is not to be accepted on an operator's word alone; None: it is enough.

    None for the mark: there is none, or nobody can tell. No word is taken against a mark.
    """
    if mark is not None:
        is_loss = is_other or mark.sequence > ends_at
        advice = "leave --without-mark out" if is_loss else f"if you know it otherwise, {place.removal}"
        return (
            f"{lane} has a mark {place.name}, at sequence {mark.sequence}, and its database ends at {ends_at}: {advice}"
        )
    if up_to <= ends_at:
        return _nothing_lost(ends_at, up_to)
    allowed_up_to = min(ends_at + ON_WORD_MAX, SEQUENCE_MAX)
    if up_to > allowed_up_to:
        return f"without a mark no more can be lost of {lane} than the sequences up to {allowed_up_to}, not to {up_to}"
    return None


def _nothing_lost(ends_at: int, up_to: int) -> str:
    return f"nothing is lost of a lane that had come to sequence {up_to} if its database ends at {ends_at}"
