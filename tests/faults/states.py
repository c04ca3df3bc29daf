"""The state in which a fault found the lane: a fault that only ever meets idle lanes proves little."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import aiohttp
from msgspec import Struct

from tests.faults.fleet import Slot
from tests.faults.plan import Kind

ANSWER_TIMEOUT_S = 0.3
_METRIC = re.compile(r"^coordinator_lane_(epoch|unacknowledged)\{[^}]*\} (\S+)$", re.MULTILINE)


class State(StrEnum):
    """How a lane was, in the order of the table's columns."""

    VACANT = "vacant"
    """No coordinator that answers has an epoch: a takeover is under way, or cannot begin."""
    SUSPENDED = "suspended"
    """The active one says why it is not ready: it waits for its database, the broker or a reader of outcomes."""
    AT_COMMIT = "at COMMIT"
    """The fault waited for a COMMIT and struck it."""
    IN_A_BATCH = "in a batch"
    """A statement of the active one has no answer yet."""
    WAITING = "waiting"
    """Commands are delivered and not settled, and no statement is under way."""
    IDLE = "idle"


class Struck(Struct, frozen=True):
    """One fault at one lane. `is_on_top`: while another struck that lane."""

    kind: Kind
    lane: str
    state: State
    is_on_top: bool


class _Seen(Struct, frozen=True):
    """What a coordinator says of itself."""

    slot: Slot
    is_ready: bool
    epoch: float
    unacknowledged: float


async def state_of(slots: Sequence[Slot], session: aiohttp.ClientSession) -> State:
    """Within `ANSWER_TIMEOUT_S`. Whether a statement is under way is looked at last, without a pause behind it."""
    seen = [each for each in await asyncio.gather(*(_seen(slot, session) for slot in slots)) if each is not None]
    active = max(seen, key=lambda each: each.epoch, default=None)
    if active is None or active.epoch == 0:
        return State.VACANT
    if not active.is_ready:
        return State.SUSPENDED
    if active.slot.database.is_asked:
        return State.IN_A_BATCH
    return State.WAITING if active.unacknowledged else State.IDLE


async def _seen(slot: Slot, session: aiohttp.ClientSession) -> _Seen | None:
    """None: it does not answer, since it is gone or stopped."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    try:
        async with session.get(f"{slot.member.url}/readyz", timeout=timeout) as readiness:
            is_ready = readiness.status == 200
        async with session.get(f"{slot.member.url}/metrics", timeout=timeout) as metrics:
            values = {name: float(value) for name, value in _METRIC.findall(await metrics.text())}
    except (aiohttp.ClientError, TimeoutError):
        return None
    return _Seen(slot, is_ready, values.get("epoch", 0.0), values.get("unacknowledged", 0.0))


def table_of(faults: Mapping[str, int], struck: Sequence[Struck]) -> list[str]:
    """How often each kind struck, and in which states it found its lanes: a fault of the broker finds all three."""
    lines = [_row("", "", [*State], "on top")]
    for kind, count in faults.items():
        lines.append(_counted(kind, count, [each for each in struck if each.kind == kind]))
    lines.append(_counted("all", sum(faults.values()), struck))
    unseen = [state for state in State if all(each.state is not state for each in struck)]
    if unseen:
        lines.append(f"  no fault found a lane that was {' or '.join(unseen)}")
    return lines


def _counted(name: str, count: int, struck: Sequence[Struck]) -> str:
    states = Counter(each.state for each in struck)
    return _row(name, count, [states[state] or "" for state in State], sum(each.is_on_top for each in struck) or "")


def _row(name: str, count: object, cells: Iterable[object], last: object) -> str:
    return f"  {count:4}  {name:60}{''.join(f'{cell:>11}' for cell in [*cells, last])}".rstrip()
