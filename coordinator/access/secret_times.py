"""Which secret of idempotency keys counts at a gateway, and when: on all gateways of a lane it is one, or none."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from math import inf
from typing import Final

from msgspec import Struct

from coordinator.stores.clocks import CLOCKS_APART_MAX
from coordinator.stores.idempotency import SECRET_COUNTS_S, SECRET_SETTLES_S
from coordinator.stores.lane_tables import IdempotencySecret

_CLOCKS_APART_S: Final = CLOCKS_APART_MAX.total_seconds()


class _DatedSecret(Struct, frozen=True):
    """A secret, and between which moments it was made, by the clock of this process that only goes forward."""

    row: IdempotencySecret
    after: float
    before: float


class SecretTimes:
    """What a gateway has read of its lane's secrets, and which of them counts at a moment.

    A secret that is made at T counts from T + SECRET_COUNTS_S + SECRET_SETTLES_S on, and the one before it until
    T + SECRET_COUNTS_S. A gateway knows T only as between two of its looks into the database: the last without the
    secret, and the first with it. It takes the earlier for the end of the one, and the later for the beginning of the
    other. So no gateway uses a secret while another uses the next, whatever their clocks say and however late each
    looks: what was read counts for SECRET_COUNTS_S, too. Between the two none counts.
    """

    def __init__(self, counts_s: float = SECRET_COUNTS_S) -> None:
        """`counts_s`: for how long what was read counts."""
        self._counts_s = counts_s
        self._made: tuple[_DatedSecret, ...] = ()
        self._there: Sequence[IdempotencySecret] = ()
        self._looked: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether they were ever read."""
        return self._looked is not None

    def is_old(self, moment: float) -> bool:
        """Whether what was read is too long ago to count."""
        return self._looked is None or moment >= self._looked + self._counts_s

    def take(self, found: Sequence[IdempotencySecret], *, began: float, ended: float, now: datetime) -> bool:
        """Take what a look that `began` and `ended` found, the newest first; `now` is its end on the machine's clock.

        Tells whether there is a secret that was not there at the look before.
        """
        newest = found[0].id
        known = {each.row.secret: each for each in self._made if each.row.id <= newest}
        new = [row for row in found if row.secret and row.secret not in known]
        for row in new:
            known[row.secret] = self._made_between(row, ended, now)
        is_changed = self._looked is not None and bool(new)
        self._made = tuple(sorted(known.values(), key=lambda each: each.row.id))
        self._there = tuple(found)
        self._looked = began
        self._forget_what_is_over(ended)
        return is_changed

    def at(self, moment: float) -> tuple[IdempotencySecret, ...]:
        """The secret that counts, and those of before that are still there, the latest first; empty: none counts."""
        if self._looked is None:
            return ()
        ends = [following.after + SECRET_COUNTS_S for _, following in pairwise(self._made)]
        for made, end in zip(self._made, [*ends, self._looked + self._counts_s], strict=True):
            if made.before + SECRET_COUNTS_S + SECRET_SETTLES_S <= moment < end:
                return (made.row, *(row for row in self._there if row.id < made.row.id))
        return ()

    def _made_between(self, row: IdempotencySecret, ended: float, now: datetime) -> _DatedSecret:
        if row.id == 1:
            # Nobody can use another one: a lane begins with it.
            return _DatedSecret(row, -inf, -inf)
        if self._looked is not None:
            return _DatedSecret(row, self._looked, ended)
        by_clock = ended - (now - row.made_at).total_seconds()
        return _DatedSecret(row, min(by_clock - _CLOCKS_APART_S, ended), min(by_clock + _CLOCKS_APART_S, ended))

    def _forget_what_is_over(self, moment: float) -> None:
        """One that an operator had forgotten counts on until its time is over, and then is kept nowhere."""
        there = {row.secret for row in self._there}
        ends = {made.row.id: following.after + SECRET_COUNTS_S for made, following in pairwise(self._made)}
        self._made = tuple(
            each for each in self._made if each.row.secret in there or moment < ends.get(each.row.id, inf)
        )
