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


def lineage_by(holder: str) -> str:
    """The one that this consumer begins; no other has its name."""
    return blake2b(holder.encode(), digest_size=12).hexdigest()


def next_lineage() -> str:
    """The one that an operator begins."""
    return lineage_by(uuid4().hex)


def superseding(superseded: str | None, *given_up: str | None) -> str | None:
    """The text of the lease that says which lineages are given up for its own: those of before, and these."""
    named = dict.fromkeys(each for each in given_up if each is not None)
    # The last ones stay: also one that was given up before, and is again.
    before = [each for each in (superseded or "").split() if each not in named]
    return " ".join([*before, *named][-SUPERSEDED_MAX:]) or None


def is_other(lineage: str | None, supersedes: str | None, named: str | None) -> bool:
    """Whether a mark that names this lineage is of another history than the database with this lease.

    A database or a mark of an earlier release names none, and is believed.
    """
    if lineage is None or named is None:
        return False
    return named != lineage and named not in (supersedes or "").split()
