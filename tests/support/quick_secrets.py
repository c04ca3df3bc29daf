"""`python -m tests.support.quick_secrets …`: `python -m coordinator …`, where new idempotency secrets count soon.

`TEST_SECRETS_REFRESH_S` is how often a gateway looks for them.
"""

import os
from typing import Final

from coordinator.stores import idempotency

COUNTS_S: Final = 6.0
SETTLES_S: Final = 3.0


def main() -> None:
    """Before anything else is imported."""
    times = {"SECRET_COUNTS_S": COUNTS_S, "NEW_LANE_COUNTS_S": COUNTS_S, "SECRET_SETTLES_S": SETTLES_S}
    for name, value in times.items():
        setattr(idempotency, name, value)
    from coordinator.access import keyed_ids
    from coordinator.cli import main as coordinator

    setattr(keyed_ids, "REFRESH_S", float(os.environ["TEST_SECRETS_REFRESH_S"]))  # noqa: B010  # it is Final
    coordinator()


if __name__ == "__main__":
    main()
