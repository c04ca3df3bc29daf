"""How often Python looks for garbage in our processes."""

import gc
from typing import Final

YOUNG_OBJECTS_MAX: Final = 10_000
"""How many more objects are made than freed before Python looks at the young ones. Hundreds of requests under way
soon reach Python's own limit, 700, with objects that are all freed by themselves."""


def spare_the_long_lived() -> None:
    """Ignore the objects that exist now. A process calls it once, when it has made the objects that it keeps.

    Libraries leave more than 100,000 objects, and a full collection, one every few thousand requests, stops a process
    for 60 to 120 ms to find that all of them are in use.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, *gc.get_threshold()[1:])
