"""The bounds of all times that are set or given: for those who read no settings, too."""

from typing import Final

SECONDS_MAX: Final = 10_000_000
"""The longest time that a setting may have, about four months: above it an operating system's clocks overflow."""
SECONDS_MIN: Final = 0.001
"""The shortest one but none at all: no answer comes within less, and clocks of threads and sockets count no less."""
