"""What is written: streams of operations. An operation is a plain tuple, since making it must cost next to nothing."""

import random
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate, count, cycle
from typing import Any, Literal

from msgspec import Struct

from tests.bench.service import ACCOUNTS, ITEMS

Kind = Literal["hot-row", "transfer", "create", "reserve", "spread"]
Operation = tuple[Any, ...]
"""hot-row and spread: (account, amount); transfer: (payer, payee, amount); create: (reference,); reserve: (item, n)."""

DRAWN = 20_000
"""Operations that are drawn before the measurement, and then repeated from the first."""
RESERVE_SKEW = 1.0


class Workload(Struct, frozen=True):
    """`skew` is that of the accounts of transfers: the account of rank k is drawn with a weight of 1 / k**skew."""

    kind: Kind
    skew: float = 0.0

    @property
    def label(self) -> str:
        return f"transfer, Zipf {self.skew:g}" if self.kind == "transfer" else self.kind


class Zipf:
    """Draws ranks from 1 to n. Skew 0 draws all alike."""

    def __init__(self, n: int, skew: float, chance: random.Random) -> None:
        self._chance = chance
        self._cumulated = list(accumulate(rank**-skew for rank in range(1, n + 1)))

    def draw(self) -> int:
        return bisect_left(self._cumulated, self._chance.random() * self._cumulated[-1]) + 1


def transfer_between(first: int, second: int) -> tuple[int, int]:
    """Two different accounts of two ranks that may be the same one; the same rule as in pgbench's script."""
    return first, second + 1 if second >= first else second


def operations(workload: Workload, seed: int, run: str) -> Iterator[Operation]:
    """The operations of one client, without end. `run` makes the references of creates unique."""
    chance = random.Random(seed)
    if workload.kind == "hot-row":
        return cycle([(1, 1)])
    if workload.kind == "create":
        return ((f"{run}-{seed}-{number}",) for number in count(1))
    if workload.kind == "reserve":
        items = Zipf(ITEMS, RESERVE_SKEW, chance)
        return cycle([(items.draw(), 1) for _ in range(DRAWN)])
    if workload.kind == "spread":
        return cycle([(chance.randint(1, ACCOUNTS), 1) for _ in range(DRAWN)])
    payers, payees = Zipf(ACCOUNTS, workload.skew, chance), Zipf(ACCOUNTS - 1, workload.skew, chance)
    return cycle([(*transfer_between(payers.draw(), payees.draw()), 1) for _ in range(DRAWN)])
