"""Orders to forget somebody that are not carried out yet: a person waits for them, and the lane may be paused.

An order that waits in a queue is known to nobody. So whoever gives one notes its id among operators' acts before, and
nothing of the person.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from coordinator.lane.control import Forget, ForgetBegun, ForgottenSome
from coordinator.operate import output
from coordinator.operate.acts import act_of
from coordinator.operate.open import lane_admin
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.audit import ActQuery
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.kept_entries import ASKED, ORDERS_SHOWN
from coordinator.stores.lane_tables import LogEntry

ACTS_MAX: Final = 500
"""Acts that are read at once."""
STEPS_MAX: Final = 10_000
"""Steps of one order, of a hundred entries each, that one look goes through; the next one goes on from there."""


class WaitingForget(Struct, frozen=True, kw_only=True):
    """An order that is not done: its id, when it was given, and where it stands, in words."""

    order: str
    asked_at: datetime
    where: str


class _PlaceOfOrder(NamedTuple):
    """The order itself is step 0."""

    command_id: str
    number: int


class _OrdersAsked(Struct):
    """The details of the act."""

    orders: list[str] = []


def note_asked(lane: str, reason: str | None, orders: Sequence[str]) -> None:
    """Note the ids of orders that are about to be given. Raises Unavailable, ConfigurationError: then none is given."""
    with lane_admin(lane) as admin:
        admin.record(act_of(lane, ASKED, reason or None, orders=list(orders)))


class ForgetWatch:
    """The orders of one lane, looked at again and again: what was seen settled is not gone through again."""

    def __init__(self) -> None:
        self._settled: dict[str, _PlaceOfOrder] = {}

    def waiting(self, admin: LaneAdmin) -> list[WaitingForget]:
        """The orders of the last `ORDERS_SHOWN` that are not done, the last first, without refused ones."""
        asked = [
            (act, order)
            for act in _asked(admin)
            for order in msgspec.json.decode(act.details, type=_OrdersAsked).orders
        ]
        self._settled = {order: self._settled[order] for _, order in asked if order in self._settled}
        return [
            WaitingForget(order=order, asked_at=act.done_at, where=where)
            for act, order in asked
            if (where := self._where(admin, order)) is not None
        ]

    def _where(self, admin: LaneAdmin, order: str) -> str | None:
        known = self._settled.pop(order, None)
        step: _PlaceOfOrder | None = known or _PlaceOfOrder(order, 0)
        for _ in range(STEPS_MAX + 1):
            if step is None:
                return None
            entry = admin.find(step.command_id)
            if entry is None and step is known:
                # The database is a copy from before.
                step, known = _PlaceOfOrder(order, 0), None
                continue
            if entry is None:
                return _waits(step)
            if entry.status != "applied" or entry.result is None:
                return _failed(step, entry)
            self._settled[order] = step
            step = _next(step, entry)
        return f"{step.number - 1} steps of it are done, and it goes on" if step else None


def _asked(admin: LaneAdmin) -> Iterator[OperatorAct]:
    """The acts by which they were asked for, the last first, however many others there are."""
    query, before = ActQuery(act=ASKED, since=output.now() - ORDERS_SHOWN), None
    while True:
        acts = admin.acts(query, before, ACTS_MAX)
        yield from acts
        if len(acts) < ACTS_MAX:
            return
        before = acts[-1].id


def _next(step: _PlaceOfOrder, entry: LogEntry) -> _PlaceOfOrder | None:
    """What follows a settled step; an order of another kind than `Forget` has none."""
    goes_on_as: str | None = None
    if step.number:
        goes_on_as = msgspec.json.decode(entry.result or "", type=ForgottenSome).goes_on_as
    elif entry.type == Forget.type:
        goes_on_as = msgspec.json.decode(entry.result or "", type=ForgetBegun).goes_on_as
    return _PlaceOfOrder(goes_on_as, step.number + 1) if goes_on_as else None


def _waits(step: _PlaceOfOrder) -> str:
    if not step.number:
        return "the order waits in the lane's queue, or never came there"
    return f"step {step.number} of it waits in the lane's outbox or queue"


def _failed(step: _PlaceOfOrder, entry: LogEntry) -> str | None:
    if not step.number:
        return None
    return f"step {step.number} of it is {entry.status} ({entry.error_code}): replay it (`coordinator dead list`)"
