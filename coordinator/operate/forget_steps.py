"""An order to forget one person, given to its lane, and followed from step to step until it is done."""

from collections.abc import Sequence
from time import monotonic, sleep
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.lane.control import Forget, ForgetBegun, ForgetStep, ForgottenSome
from coordinator.operate.forget_waiting import note_asked
from coordinator.operate.giving_orders import OrderAnswer, give
from coordinator.operate.output import CommandRefused
from coordinator.service.commands import validated
from coordinator.service.outcome import Outcome
from coordinator.stores.admin import LaneAdmin, proved_entry

POLL_S: Final = 0.2
UNSENT_MAX: Final = 1000
"""More emitted commands are not counted."""


class HowFar(Struct):
    """How far an order has come. `done` is the latest step's; None: there was none yet."""

    done: ForgottenSome | None = None
    is_done: bool = False
    unsent: int = 0


def begin(lane: str, orders: Sequence[Forget], wait_s: float) -> list[ForgetBegun]:
    """Give these orders, all a trial or none; fewer answers: the rest is safe, and not settled yet.

    Raises CommandRefused.
    """
    answers: list[OrderAnswer] = []
    for order in orders:
        validated(order)

    def note(ids: Sequence[str]) -> None:
        if not orders[0].dry_run:
            note_asked(lane, orders[0].reason, ids)

    give(lane, orders, wait_s, answers.append, note)
    return [_begun(lane, each.outcome) for each in answers if each.outcome is not None]


def _begun(lane: str, outcome: Outcome) -> ForgetBegun:
    if outcome.status != "applied":
        error = outcome.error
        raise CommandRefused(f"{lane}: {error.code}: {error.message}" if error else f"{lane}: {outcome.status}")
    return msgspec.json.decode(outcome.result, type=ForgetBegun)


def followed(admin: LaneAdmin, lane: str, step: str | None, until_s: float) -> HowFar:
    """Wait for one step after the other, until the last one is done or the time is over."""
    progress = HowFar()
    while step is not None:
        entry = proved_entry(admin, step)
        if entry is None:
            if monotonic() >= until_s:
                return progress
            sleep(POLL_S)
            continue
        if entry.status != "applied" or entry.result is None:
            raise CommandRefused(
                f"{lane}: step {step} is {entry.status} ({entry.error_code}): replay it (`coordinator dead list "
                f"{lane}` shows why)"
            )
        progress.done = msgspec.json.decode(entry.result, type=ForgottenSome)
        step = progress.done.goes_on_as
    progress.is_done = True
    # The step itself may still be there, confirmed.
    progress.unsent = sum(each.type != ForgetStep.type for each in admin.emitted(None, 0, UNSENT_MAX))
    return progress
