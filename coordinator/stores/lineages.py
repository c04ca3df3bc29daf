"""Which history of a lane its database has.

A **lineage** is begun where a lane is first taken over in a database, and again where an operator accepts that commits
are lost. Copies of the database have the same one, and a move brings it along. The mark that the transport keeps names
the lineage in which the lane's commands were applied, so a database of another one is told from the right one also
where it has come further: an address names another server, or a primary came back that nobody follows any more.
"""

from hashlib import blake2b
from typing import Final
from uuid import uuid4

SUPERSEDED_MAX: Final = 8
"""How many lineages the lease remembers that are given up for its own: the last ones."""
SUPERSEDED_CHARACTERS_MAX: Final = 600
"""Of the text that says so: where names are long it has fewer."""
_UP_TO: Final = "+"
"""Before the sequence up to which the lineage that stands before it was given up. Releases that know none of these take
them for names of lineages that nobody has."""


def lineage_by(holder: str) -> str:
    """The one that this consumer begins; no other has its name."""
    return blake2b(holder.encode(), digest_size=12).hexdigest()


def next_lineage() -> str:
    """The one that an operator begins."""
    return lineage_by(uuid4().hex)


def superseding(superseded: str | None, *given_up: str | None, up_to: int) -> str | None:
    """The text of the lease that says which lineages are given up for its own: those of before, and these.

    `up_to`: the last sequence of these of which whoever gave them up knew. The lane goes above that, so as much is
    given up of those of before, too.
    """
    before = _places(superseded)
    places = {each: None if place is None else max(place, up_to) for each, place in before.items()}
    for each in given_up:
        # The last ones stay: also one that was given up before, and is again.
        places.pop(each or "", None)
        if each is not None:
            places[each] = up_to
    words = [each if place is None else f"{each} {_UP_TO}{place}" for each, place in places.items()]
    words = words[-SUPERSEDED_MAX:]
    while len(text := " ".join(words)) > SUPERSEDED_CHARACTERS_MAX:
        del words[0]
    return text or None


def is_other(lineage: str | None, supersedes: str | None, named: str | None) -> bool:
    """Whether a mark that names this lineage is of another history than the database with this lease.

    A database or a mark of an earlier release names none, and is believed.
    """
    if lineage is None or named is None:
        return False
    return named != lineage and named not in _places(supersedes)


def given_up_to(lineage: str | None, supersedes: str | None, named: str | None) -> int | None:
    """The last sequence of this lineage that was given up for that of the lease; None: it was not given up, or by an
    earlier release, which does not say how far.

    One who knows of more in that lineage has the address of another database, in which others have given it up: a copy.
    """
    return None if named is None or named == lineage else _places(supersedes).get(named)


def _places(supersedes: str | None) -> dict[str, int | None]:
    """The lineages that such a text names, with how far each was given up."""
    places: dict[str, int | None] = {}
    last = None
    for word in (supersedes or "").split():
        if word.startswith(_UP_TO) and (digits := word[1:]).isdecimal() and digits.isascii():
            if last is not None:
                places[last] = int(digits)
        else:
            last = word
            places.pop(word, None)
            places[word] = None
    return places
