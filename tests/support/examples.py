"""How many examples a property is tried with: a part of them in `make test`, which everybody runs."""

import os
from typing import Final

from hypothesis import HealthCheck, settings

_PARTS: Final = 5
ALL: Final = os.environ.get("EXAMPLES") == "all"


def examples(count: int, *suppressed: HealthCheck) -> settings:
    """For a property that finds what is rare by this many examples. `make properties` (EXAMPLES=all) tries all."""
    return settings(deadline=None, max_examples=count if ALL else count // _PARTS, suppress_health_check=suppressed)
