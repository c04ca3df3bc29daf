"""How often Python looks for garbage in our processes."""

import gc
from typing import Final

YOUNG_OBJECTS_MAX: Final = 10_000
"""Objects made and not gone again before the young ones are looked at. Python's own limit, 700, is soon reached by
what hundreds of requests have under way, all of which goes by itself."""


def spare_the_long_lived() -> None:
    """Look no more at what there is now. Called once, by a process that has made what it keeps.

    Libraries leave more than 100,000 objects, and a full collection, one every few thousand requests, stops a process
    for 60 to 120 ms to find that all of them are in use.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, *gc.get_threshold()[1:])
