"""Which commands `simulate` has tried in vain: what their handlers do after a refusal, no history has shown."""

import warnings
from collections import Counter
from typing import Final

from coordinator.service.authors_code import shown_function
from coordinator.service.service import Service
from coordinator.testing.running import Ran

_TRIES_MIN: Final = 50
"""Of a command that came less often nothing is said: a few may all be refused by chance."""


class NeverApplied(UserWarning):
    """Warned of by `simulate`: a handler has applied none of its commands, so most of it was never tried."""


class Tally:
    """Counts what became of commands, by their types."""

    def __init__(self) -> None:
        self._by_type: dict[str, Counter[str | None]] = {}

    def count(self, ran: Ran) -> None:
        """Count those of one history."""
        for entry in ran.entries.values():
            codes = self._by_type.setdefault(entry.type, Counter())
            codes[None if entry.status == "applied" else entry.error_code] += 1

    def warn(self, service: Service, stacklevel: int) -> None:
        """Warn of each handler whose commands were all refused, or failed."""
        for handler in service.handlers:
            codes = self._by_type.get(handler.command.type, Counter[str | None]())
            tries = codes.total()
            if tries >= _TRIES_MIN and not codes[None]:
                counts = ", ".join(f"{code} {count} times" for code, count in codes.most_common() if count)
                warnings.warn(
                    f"{handler.command.type}, handler {shown_function(handler.handle)}, "
                    f"was applied in none of {tries} tries: {counts}. What it does after that was not tried. "
                    "Give rows that its commands find (given=), or commands that find rows (commands=). "
                    "If it is to refuse them all: "
                    "pytest.mark.filterwarnings('ignore::coordinator.testing.NeverApplied')",
                    NeverApplied,
                    stacklevel=stacklevel + 1,
                )
