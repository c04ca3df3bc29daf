"""Pages: bounded in rows and in bytes, and together they have every row."""

from coordinator.service.paging import PAGE_BYTES_MAX, Page, page_of
from coordinator.service.rows import Row


class Film(Row, table="films", key="id"):
    id: int
    script: str = ""


def pages(rows: list[Film], limit: int) -> list[Page[Film]]:
    found: list[Page[Film]] = []
    after = 0
    while not found or found[-1].next is not None:
        found.append(page_of([row for row in rows if row.id > after][: limit + 1], limit))
        after = found[-1].next or 0
    return found


def test_large_rows_are_shown_on_more_pages() -> None:
    sizes = [10, 600_000, 600_000, 3 * PAGE_BYTES_MAX, 10, 20, 600_000]
    rows = [Film(id=number, script="x" * size) for number, size in enumerate(sizes, 1)]
    found = pages(rows, 100)
    assert [[row.id for row in page.items] for page in found] == [[1, 2], [3], [4], [5, 6, 7]]
    assert [page.next for page in found] == [2, 3, 4, None]


def test_small_rows_are_shown_by_their_number() -> None:
    found = pages([Film(id=number) for number in range(1, 8)], 3)
    assert [[row.id for row in page.items] for page in found] == [[1, 2, 3], [4, 5, 6], [7]]
