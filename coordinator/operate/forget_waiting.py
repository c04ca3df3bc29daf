"""Orders to forget somebody that are not carried out yet: a person waits for them, and the lane may be paused.

An order that waits in a queue is known to nobody. So whoever gives one notes its id among operators' acts before, and
nothing of the person.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.lane.control import Forget, ForgetBegun, ForgottenSome
from coordinator.operate import output
from coordinator.operate.acts import act_of
from coordinator.operate.giving_orders import message_of
from coordinator.operate.open import lane_admin
from coordinator.service.commands import Command
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.audit import ActQuery
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.kept_entries import ORDERS_SHOWN

ASKED: Final = "forget asked"
ACTS_MAX: Final = 500
"""Acts that are read at once."""
STEPS_MAX: Final = 10_000
"""Steps of one order, of a hundred entries each, that a look goes through; those of an order that is done, once."""
_done: Final[set[str]] = set()
"""Orders of which this process has seen the end."""
_reached: Final[dict[str, tuple[str, int]]] = {}
"""The step, and its number, up to which this process has seen an order that is not done."""


class WaitingForget(Struct, frozen=True, kw_only=True):
    """An order that is not done: its id, when it was given, and where it stands, in words."""

    order: str
    asked_at: datetime
    where: str


class _OrdersAsked(Struct):
    """The details of the act."""

    orders: list[str] = []


def note_asked(lane: str, orders: Sequence[Command], reason: str | None) -> None:
    """Note orders that are about to be given. Raises Unavailable, ConfigurationError: then none is given."""
    ids = [message_of(lane, order, 0).command_id for order in orders]
    with lane_admin(lane) as admin:
        admin.record(act_of(lane, ASKED, reason or None, orders=ids))


def waiting_forgets(admin: LaneAdmin) -> list[WaitingForget]:
    """The orders of the last `ORDERS_SHOWN` that are not done, the last first. One that was refused is not meant."""
    return [
        WaitingForget(order=order, asked_at=act.done_at, where=where)
        for act in _asked(admin)
        for order in msgspec.json.decode(act.details, type=_OrdersAsked).orders
        if order not in _done and (where := _where(admin, order)) is not None
    ]


def _asked(admin: LaneAdmin) -> Iterator[OperatorAct]:
    """The acts by which they were asked for, the last first, however many others there are."""
    query, before = ActQuery(act=ASKED, since=output.now() - ORDERS_SHOWN), None
    while True:
        acts = admin.acts(query, before, ACTS_MAX)
        yield from acts
        if len(acts) < ACTS_MAX:
            return
        before = acts[-1].id


def _where(admin: LaneAdmin, order: str) -> str | None:
    entry = admin.find(order)
    if entry is None:
        return "the order waits in the lane's queue, or never came there"
    if entry.type != Forget.type or entry.status != "applied" or entry.result is None:
        _done.add(order)
        return None
    begun = msgspec.json.decode(entry.result, type=ForgetBegun).goes_on_as
    step: str | None
    step, number = (begun, 1) if begun is None else _reached.get(order, (begun, 1))
    while step is not None and number <= STEPS_MAX:
        _reached[order] = (step, number)
        entry = admin.find(step)
        if entry is None:
            return f"step {number} of it waits in the lane's outbox or queue"
        if entry.status != "applied" or entry.result is None:
            return f"step {number} of it is {entry.status} ({entry.error_code}): replay it (`coordinator dead list`)"
        step, number = msgspec.json.decode(entry.result, type=ForgottenSome).goes_on_as, number + 1
    if step is not None:
        return f"{STEPS_MAX} steps of it are done, and it goes on"
    _done.add(order)
    _reached.pop(order, None)
    return None
