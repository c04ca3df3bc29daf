"""Pages of a list ordered by id."""

from typing import Generic, TypeVar

from msgspec import Struct

from coordinator.service.rows import Row

PAGE_MAX = 200
PAGE_DEFAULT = 50

R = TypeVar("R", bound=Row)


class Page(Struct, Generic[R], frozen=True):
    """Some rows in order of their ids. `next` is the `after` of the next page, or None on the last one."""

    items: list[R]
    next: int | None


def page_of(rows: list[R], limit: int) -> Page[R]:
    """A page, from a query for `limit + 1` rows: one row too many shows that there is a next page."""
    shown = rows[:limit]
    return Page(shown, getattr(shown[-1], shown[-1].key) if len(rows) > limit else None)
