"""Decides which call fails, and how.

    429           refused with Retry-After before anything was done
    500_before    a fault before the endpoint began: nothing done, nothing remembered for the key
    500_kept      a fault in the endpoint: nothing done, and the 500 remembered for the key
    500_after     a fault after it: done, and the 500 remembered for the key
    lost_request  the connection ends before anything was done
    lost_answer   the connection ends after it was done
    delay         done, and answered `delay_s` later; the key is in use until then

By payment method: `pm_sandbox_<fault>` fails the first call that authorizes with it; `pm_sandbox_<fault>_3` the first
three; `pm_sandbox_capture_<fault>` the capture of such a payment; likewise `void` and `refund`. At random: each fault
has a rate, and whether the n-th call with a key fails depends on the seed, the key and n alone, so the order of the
calls does not matter.
"""

import re
from collections import Counter
from random import Random
from typing import Final, Literal, get_args

import msgspec
from msgspec import Struct

from shared.payments.sandbox.errors import invalid_request

Fault = Literal["429", "500_before", "500_kept", "500_after", "lost_request", "lost_answer", "delay"]
Action = Literal["authorize", "capture", "void", "refund", "read"]

FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)
FAULTY_METHOD: Final = re.compile(
    rf"pm_sandbox_(?:(authorize|capture|void|refund)_)?({'|'.join(FAULTS)})(?:_([1-9][0-9]?))?"
)


class FaultPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """The plan that `POST /sandbox/faults` sets. Rates are 0 to 1; the search misses payments younger than its lag."""

    rates: dict[Fault, float] = {}
    seed: int = 0
    delay_s: float = 1.0
    retry_after_s: int = 1
    search_lag_s: float = 0.0


class Faults:
    """Decides for each call how it fails. Its counts end with the process."""

    def __init__(self) -> None:
        self.plan = FaultPlan()
        self._counts: Counter[str] = Counter()

    def set_plan(self, body: bytes) -> FaultPlan:
        """Raises ApiError for a plan that is not valid."""
        try:
            plan = msgspec.json.decode(body, type=FaultPlan)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise invalid_request("invalid_plan", f"not a plan of faults: {error}") from None
        wrong = {name: rate for name, rate in plan.rates.items() if not 0 <= rate <= 1}
        if wrong:
            raise invalid_request("invalid_plan", f"rates are from 0 to 1, and these are not: {wrong}")
        self.plan = plan
        self._counts.clear()
        return plan

    def next(self, action: Action, payment_method: str | None, payment: str, call: str) -> set[Fault]:
        """The faults of this call. `payment` names its payment, `call` its key, or its path without a key."""
        found = set(self._random(call))
        asked = FAULTY_METHOD.fullmatch(payment_method or "")
        if asked is not None and action == (asked.group(1) or "authorize"):
            # `500_kept` ends a key, so these are counted by payment: another key gets through.
            name = f"{action} {payment}"
            self._counts[name] += 1
            if self._counts[name] <= int(asked.group(3) or 1):
                found.add(msgspec.convert(asked.group(2), Fault))
        return found

    def _random(self, call: str) -> list[Fault]:
        if not self.plan.rates:
            return []
        self._counts[call] += 1
        random = Random(f"{self.plan.seed} {call} {self._counts[call]}")
        drawn = {fault: random.random() for fault in FAULTS}
        return [fault for fault in FAULTS if drawn[fault] < self.plan.rates.get(fault, 0.0)]
