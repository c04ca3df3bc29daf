"""Faults of a provider, at rates that its user sets."""

import random
from typing import Annotated, Literal

from msgspec import Meta, Struct

Fault = Literal["429", "500_before", "500_after", "lost_answer", "delay"]
"""`500_before`: nothing was done; `500_after`: all of it was; `lost_answer`: all of it was, and the connection is
closed without an answer; `delay`: the answer takes `delay_s`. A 500 after the deed is remembered as the answer to its
key."""
Rate = Annotated[float, Meta(ge=0, le=1)]


class Faults(Struct, forbid_unknown_fields=True, kw_only=True):
    """How often each fault happens to a POST; at most one does. The seed decides which."""

    rates: dict[Fault, Rate] = {}
    delay_s: Annotated[float, Meta(ge=0, le=60)] = 0.5
    seed: int = 0


class Draw:
    """Decides which fault happens next."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._chance = random.Random(faults.seed)

    def next(self) -> Fault | None:
        """One fault, or none."""
        drawn = self._chance.random()
        for fault, rate in self.faults.rates.items():
            drawn -= rate
            if drawn < 0:
                return fault
        return None
