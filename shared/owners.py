"""Whose a row is: the text that stands for a principal in a column."""

from collections.abc import Mapping
from typing import Final

from coordinator import Principal, Value

OWNER_CHARACTERS: Final = 301
"""The longest: a subject of 200 characters, a line's end, and a tenant of 100."""


def owner_of(who: Principal | None) -> str | None:
    """The subject, and on a line of its own the tenant, if there is one; neither can have a line's end.

    None: nobody is known. What is his belongs to no one, and so is for staff alone.
    """
    if who is None:
        return None
    return who.subject if who.tenant is None else f"{who.subject}\n{who.tenant}"


def owned_by(who: Principal) -> Mapping[str, Value]:
    """The value that his rows have, by column."""
    return {"owner": owner_of(who)}
