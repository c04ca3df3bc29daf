"""Looking at one lane's database again and again, over one connection, in a thread of its own."""

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from math import ceil
from time import monotonic
from typing import Final

from msgspec import Struct

from coordinator.operate.actors import actor_of_text, named
from coordinator.operate.forget_waiting import ForgetWatch, WaitingForget
from coordinator.operate.lane_status import LaneStatus, read_process, take_state
from coordinator.operate.open import lane_admin
from coordinator.operations.kept_admins import SILENCE_S
from coordinator.operations.views import KindOfCommand, LaneLatency, RecentCommand
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.audit import AuditedCommand, ChangeQuery

RECENT_MAX: Final = 100
"""How many of the commands that were settled since the last look are read."""
LATENCIES_MAX: Final = 500
"""Of how many of the last commands percentiles are made."""
FORGETS_EVERY_S: Final = 10.0
"""How often orders to forget somebody are looked for: they are read from a month of acts."""
_TIME_VERSION: Final = "7"
_LATENCY_MS_MAX: Final = 86_400_000.0


class Look(Struct, frozen=True, kw_only=True):
    """What one look has found."""

    status: LaneStatus
    recent: list[RecentCommand]
    latency: LaneLatency | None
    kinds: list[KindOfCommand]
    is_local: bool = False
    """One process runs the lane, and no coordinator."""


class LaneWatch:
    """One lane. It is used by one thread."""

    def __init__(self, lane: str, clock: Callable[[], float] = monotonic) -> None:
        self._lane = lane
        self._clock = clock
        self._forget_watch = ForgetWatch()
        self._forgets: list[WaitingForget] = []
        self._forgets_due_s = 0.0
        self._stack = ExitStack()
        self._admin: LaneAdmin | None = None
        self._seen: int | None = None
        self._latencies: deque[float] = deque(maxlen=LATENCIES_MAX)
        self._kinds_of = 0
        self._known_kinds: list[KindOfCommand] = []
        self._settled_last: deque[RecentCommand] = deque(maxlen=LATENCIES_MAX)

    def look(self) -> Look:
        """Look once. What is away is in the status's `errors`. Never raises for that."""
        status = LaneStatus(lane=self._lane, errors=[])
        recent: list[RecentCommand] = []
        try:
            recent = self._database(status)
        except (Unavailable, ConfigurationError) as error:
            status.errors.append(str(error))
            self.close()
        is_local = read_process(status)
        return Look(status=status, recent=recent, latency=self._latency(), kinds=self._kinds(), is_local=is_local)

    def close(self) -> None:
        """Disconnect; the next look connects again."""
        self._admin = None
        self._stack.close()

    def _database(self, status: LaneStatus) -> list[RecentCommand]:
        if self._admin is None:
            self._admin = self._stack.enter_context(lane_admin(self._lane, silence_s=SILENCE_S))
        admin = self._admin
        take_state(status, admin.state(), admin)
        if self._clock() >= self._forgets_due_s:
            self._forgets = self._forget_watch.waiting(admin)
            self._forgets_due_s = self._clock() + FORGETS_EVERY_S
        status.forgets = self._forgets
        return self._settled(admin, status.sequence or 0)

    def _settled(self, admin: LaneAdmin, sequence: int) -> list[RecentCommand]:
        """The commands that were settled since the last look; at the first one the last few."""
        since, self._seen = self._seen, sequence
        wanted = min(RECENT_MAX, sequence if since is None else max(0, sequence - since))
        if not wanted:
            return []
        found = [recent_of(each) for each in reversed(admin.audited(ChangeQuery(), sequence + 1, wanted))]
        self._latencies.extend(each.latency_ms for each in found if each.latency_ms is not None and since is not None)
        self._settled_last.extend(found)
        return found

    def _latency(self) -> LaneLatency | None:
        ordered = sorted(self._latencies)
        if not ordered:
            return None
        p50, p95, p99 = (_percentile(ordered, part) for part in (0.5, 0.95, 0.99))
        return LaneLatency(p50_ms=p50, p95_ms=p95, p99_ms=p99, commands=len(ordered))

    def _kinds(self) -> list[KindOfCommand]:
        """The last commands by type and outcome."""
        if self._kinds_of == (last := self._settled_last[-1].sequence if self._settled_last else 0):
            return self._known_kinds
        spent: dict[tuple[str, str], list[float | None]] = {}
        for each in self._settled_last:
            spent.setdefault((each.type, each.status), []).append(each.latency_ms)
        self._kinds_of = last
        self._known_kinds = [
            _kind(*kind, spent[kind]) for kind in sorted(spent, key=lambda each: (-len(spent[each]), each))
        ]
        return self._known_kinds


def _percentile(ordered: list[float], part: float) -> float:
    return round(ordered[max(0, ceil(len(ordered) * part) - 1)], 1)


def _kind(command_type: str, status: str, spent: list[float | None]) -> KindOfCommand:
    known = sorted(each for each in spent if each is not None)
    return KindOfCommand(
        type=command_type,
        status=status,
        commands=len(spent),
        p50_ms=_percentile(known, 0.5) if known else None,
        p95_ms=_percentile(known, 0.95) if known else None,
    )


def recent_of(command: AuditedCommand) -> RecentCommand:
    """A command of the log, with what its id tells of when it was issued."""
    return RecentCommand(
        sequence=command.sequence,
        command_id=command.command_id,
        type=command.type,
        status=command.status,
        settled_at=command.settled_at,
        actor=named(actor_of_text(command.actor)),
        latency_ms=latency_ms(command.command_id, command.settled_at),
    )


def latency_ms(command_id: str, settled_at: datetime) -> float | None:
    """From the time in the id until then; None: the id has none, or clocks are far apart."""
    if command_id[14:15] != _TIME_VERSION:
        return None
    spent = settled_at.astimezone(UTC).timestamp() * 1000 - int(command_id[:8] + command_id[9:13], 16)
    return round(spent, 1) if 0 <= spent <= _LATENCY_MS_MAX else None
