"""Pages of a list in the order of its keys."""

from itertools import accumulate
from typing import Any, Generic, TypeVar

from msgspec import Struct

from coordinator.service.json_text import to_json
from coordinator.service.rows import Row, key_of

PAGE_MAX = 200
PAGE_DEFAULT = 50
PAGE_BYTES_MAX = 1 << 20
"""A client that reads slowly keeps its page in memory until it is sent."""

R = TypeVar("R", bound=Row)


class Page(Struct, Generic[R], frozen=True):
    """Some rows in order of their keys.

    `next`, a key of these rows, is the `after` of the next page; None on the last one.
    """

    items: list[R]
    next: Any


def page_of(rows: list[R], limit: int) -> Page[R]:
    """A page, from a query for `limit + 1` rows: one row too many shows that there is a next page.

    It has fewer rows where these have more than `PAGE_BYTES_MAX` bytes as JSON text, and at least one.
    """
    shown = rows[:limit]
    if len(to_json(shown)) > PAGE_BYTES_MAX:
        ends = accumulate(len(to_json(row)) for row in shown)
        shown = shown[: max(1, sum(1 for end in ends if end <= PAGE_BYTES_MAX))]
    return Page(shown, key_of(shown[-1]) if len(rows) > len(shown) else None)
