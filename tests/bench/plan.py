"""Which rows are run, and in which order."""

from collections.abc import Iterable, Iterator

from tests.bench.rows import Row


def selected(
    every: Iterable[Row],
    *,
    is_full: bool,
    only: Iterable[str] = (),
    databases: Iterable[str] = (),
    part: tuple[int, int] = (0, 1),
) -> list[Row]:
    """`only` names sections or keys, or how they begin; what it names is taken from the full run too.

    Of all these there is one `part` of so many, from 0 on.
    """
    wanted, kinds = tuple(only), tuple(databases)
    found = [
        row
        for row in every
        if (any(row.key.startswith(name) for name in wanted) if wanted else is_full or row.tier == "short")
        and (not kinds or row.database in kinds)
    ]
    return found[part[0] :: part[1]]


def by_section(chosen: Iterable[Row]) -> dict[str, list[Row]]:
    sections: dict[str, list[Row]] = {}
    for row in chosen:
        sections.setdefault(row.section, []).append(row)
    return sections


def interleaved(chosen: list[Row], repeats: int) -> Iterator[tuple[Row, int]]:
    """Every row once, then every row again in the other direction, and so on.

    Whatever drifts during a session, such as a warming cache or a busy neighbour, then strikes all of them alike.
    """
    for repeat in range(max((repeats_of(row, repeats) for row in chosen), default=0)):
        for row in chosen if repeat % 2 == 0 else reversed(chosen):
            if repeat < repeats_of(row, repeats):
                yield row, repeat


def repeats_of(row: Row, repeats: int) -> int:
    """A row may ask for fewer repeats than the others have, or for a multiple."""
    return row.times * (repeats if row.repeats is None else min(row.repeats, repeats))


def runs_of(chosen: Iterable[Row], repeats: int) -> int:
    """How many runs that makes."""
    return sum(repeats_of(row, repeats) for row in chosen)
