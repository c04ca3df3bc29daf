"""Work for every processor: a run of the simulation keeps one busy."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def spread(work: Callable[[A], B], items: Sequence[A], processes: int) -> Iterator[B]:
    """What a function makes of each item, in their order. Whoever has seen enough stops asking.

    Other processes find the function by its module and name.
    """
    if processes == 1 or len(items) == 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(processes) as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)
