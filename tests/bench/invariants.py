"""What must be true after a run: the database has what the clients were told, no less and no more."""

from msgspec import Struct

from tests.bench.workloads import Kind


class State(Struct, frozen=True):
    """A database's own account of itself. `sequence` is a lane's; None where there is no lane."""

    balance_sum: int
    version_sum: int
    balance_min: int
    orders: int
    order_max: int
    stock_sum: int
    stock_min: int
    sequence: int | None = None
    logged: int | None = None


class Verdict(Struct, frozen=True):
    """`lost` counts writes that were acknowledged and are not there."""

    text: str
    lost: int
    violated: bool

    def as_tuple(self) -> tuple[str, int, bool]:
        return self.text, self.lost, self.violated


def verify(kind: Kind, before: State, after: State, *, applied: int, unknown: int) -> Verdict:
    """Compare what happened with what was acknowledged.

    `unknown` writes have no answer (cut off at the end of the run): they may have happened or not.
    """
    problems: list[str] = []
    happened, shown = _happened(kind, before, after, problems)
    if unknown:
        shown += f" ({applied} acknowledged; of at most {unknown} without an answer {max(0, happened - applied)})"
    else:
        shown += ", as acknowledged"
    lost = max(0, applied - happened)
    surplus = max(0, happened - applied - unknown)
    if lost:
        problems.append(f"{lost} of {applied} acknowledged writes are lost")
    if surplus:
        problems.append(f"{surplus} writes happened that nobody was told of")
    if after.logged != after.sequence:
        problems.append(f"the log has {after.logged} entries up to sequence {after.sequence}")
    return Verdict("; ".join(problems) or shown, lost, bool(problems))


def _happened(kind: Kind, before: State, after: State, problems: list[str]) -> tuple[int, str]:
    """How many writes the database shows."""
    if kind == "create":
        made = after.orders - before.orders
        if after.order_max != after.orders:
            problems.append(f"numbers have gaps: {after.orders} orders up to number {after.order_max}")
        return made, f"numbers 1 to {after.order_max} without gaps, {made} new"
    if kind == "reserve":
        sold = before.stock_sum - after.stock_sum
        if after.stock_min < 0:
            problems.append(f"oversold: {after.stock_min} left")
        return sold, f"{sold} sold, none oversold"
    if kind == "transfer":
        if after.balance_sum != before.balance_sum:
            problems.append(f"the sum of balances has changed by {after.balance_sum - before.balance_sum:+d}")
        if after.balance_min < 0:
            problems.append(f"a balance is negative: {after.balance_min}")
        # Every transfer counts two versions up.
        made = (after.version_sum - before.version_sum) // 2
        return made, f"sum of balances unchanged, {made} transfers"
    added = after.balance_sum - before.balance_sum
    return added, f"sum of balances is {added} higher"
