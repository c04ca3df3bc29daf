"""Pages of a list in the order of its keys."""

from typing import Any, Generic, TypeVar

from msgspec import Struct

from coordinator.service.rows import Row

PAGE_MAX = 200
PAGE_DEFAULT = 50

R = TypeVar("R", bound=Row)


class Page(Struct, Generic[R], frozen=True):
    """Some rows in order of their keys.

    `next`, a key of these rows, is the `after` of the next page; None on the last one.
    """

    items: list[R]
    next: Any


def page_of(rows: list[R], limit: int) -> Page[R]:
    """A page, from a query for `limit + 1` rows: one row too many shows that there is a next page."""
    shown = rows[:limit]
    return Page(shown, getattr(shown[-1], shown[-1].key) if len(rows) > limit else None)
