"""The view of a lane from outside: its metrics, and its lines in the log."""

import math
from collections import Counter as Counts
from collections.abc import Collection, Sequence
from typing import Final

import structlog
from prometheus_client import Counter, Gauge, Histogram

from coordinator.lane.authors import traced
from coordinator.lane.dead_letters import is_emptied
from coordinator.lane.delivery import Settlement, Suspension
from coordinator.runtime.recording import Attributes
from coordinator.runtime.telemetry import whole_us
from coordinator.service.authors_code import authors_line
from coordinator.service.descriptions import described
from coordinator.service.lane_names import settings_prefix
from coordinator.service.personal import personal_fields
from coordinator.service.rows import Row, key_columns, key_of, shown_key
from coordinator.stores.port import Lease, Trouble

COMMANDS = Counter("coordinator_lane_commands_total", "Commands settled.", ["lane", "type", "status"])
REPLAYED = Counter("coordinator_lane_replayed_total", "Commands whose recorded outcome was returned again.", ["lane"])
DEAD_LETTERS = Counter("coordinator_lane_dead_letters_total", "Commands dead-lettered.", ["lane"])
DROPPED = Counter(
    "coordinator_lane_dead_letters_dropped_total", "Dead letters without a usable id that were one too many.", ["lane"]
)
EMPTIED = Counter(
    "coordinator_lane_dead_letters_emptied_total", "Dead letters for whose arguments there was no room.", ["lane"]
)
SUSPENSIONS = Counter(
    "coordinator_lane_suspensions_total", "Batches that had to wait for the database; idle looks, too.", ["lane"]
)
PROJECTION_ERRORS = Counter("coordinator_lane_projection_errors_total", "Errors of the lane's projection.", ["lane"])
REVIEWS = Counter(
    "coordinator_lane_reviews_total", "Times that a row, or a flow of a saga, came to need a review.", ["lane", "table"]
)
TAKEOVERS = Counter("coordinator_lane_takeovers_total", "Times that this process took the lane over.", ["lane"])
BATCH_SECONDS = Histogram("coordinator_lane_batch_seconds", "Time to apply and commit one batch.", ["lane"])
BATCH_COMMANDS = Histogram(
    "coordinator_lane_batch_commands",
    "Commands of one batch.",
    ["lane"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
GAPS = Gauge(
    "coordinator_lane_publisher_gaps", "Missing predecessors of publisher sessions that were given up.", ["lane"]
)
SEQUENCE = Gauge("coordinator_lane_sequence", "The last sequence settled by this process.", ["lane"])
EPOCH = Gauge("coordinator_lane_epoch", "The epoch of this process; 0 while it stands by, or may.", ["lane"])

LOGGED_MAX = 10
OTHER: Final = "other"
"""The label of types that the lane does not apply: strangers may send any, and each would be a series for ever."""

log = structlog.get_logger("lane")


def what_to_check(lane: str, trouble: Trouble = "away") -> str:
    """What somebody may do about a database of this lane that takes nothing."""
    address = f"{settings_prefix(lane)}DATABASE_URL"
    if trouble == "disk_full":
        return f"make room on the disk of the database that {address} names: the lane goes on by itself"
    if trouble == "not_admitted":
        return (
            f"the server runs, and does not admit what {address} says, or refuses it a right, as the reason tells: "
            "give that back there (`coordinator database-accounts` prints the rights); or set the new password in "
            f"{address}, and start this process again, since it reads that once"
        )
    return f"see that the server runs, that this machine reaches it, and that {address} names it"


class Observed:
    """Implements `Observer`. The metrics of a lane are looked up once: each look-up costs as much as a handler."""

    def __init__(
        self,
        lane: str,
        types: Collection[str],
        logged_batch_s: float = math.inf,
        database: Attributes = (),
        reviewed: Collection[str] = (),
    ) -> None:
        """`types` are those of the commands that the lane applies, `reviewed` the tables of whose rows one may
        come to need a review. A batch of this time, or longer, gets a line.

        `database` says where it is, for lines about it.
        """
        for table in reviewed:
            # An alert sees a counter rise, and not one that begins with its first row.
            REVIEWS.labels(lane, table)
        self._database = dict(database)
        self._lane = lane
        self._logged_batch_s = logged_batch_s
        self._decided_s = 0.0
        self._types = types
        self._epoch = 0
        self._taken_over = 0
        self._shown_epoch: int | None = None
        self._shown_gaps: int | None = None
        self._batch_seconds = BATCH_SECONDS.labels(lane)
        self._takeovers = TAKEOVERS.labels(lane)
        self._epochs = EPOCH.labels(lane)
        self._gaps = GAPS.labels(lane)
        self._sequence = SEQUENCE.labels(lane)
        self._suspensions = SUSPENSIONS.labels(lane)
        self._projection_errors = PROJECTION_ERRORS.labels(lane)
        self._batch_commands = BATCH_COMMANDS.labels(lane)
        self._dead_letters = DEAD_LETTERS.labels(lane)
        self._dropped = DROPPED.labels(lane)
        self._emptied = EMPTIED.labels(lane)
        self._replayed = REPLAYED.labels(lane)
        self._commands: dict[tuple[str | None, str], Counter] = {}

    def has_lease(self, lease: Lease | None, takeovers: int) -> None:
        epoch = 0 if lease is None else lease.epoch
        if lease is not None and epoch != self._epoch:
            event = "lane_taken_over" if takeovers > self._taken_over else "lane_renewed"
            log.info(event, lane=self._lane, epoch=epoch, sequence=lease.sequence)
            self._epoch = epoch
        # After most batches there is no news.
        if takeovers != self._taken_over:
            self._takeovers.inc(takeovers - self._taken_over)
            self._taken_over = takeovers
        if epoch != self._shown_epoch:
            self._epochs.set(epoch)
            self._shown_epoch = epoch

    def decided(self, seconds: float) -> None:
        self._batch_seconds.observe(seconds)
        self._decided_s = seconds

    def settled(self, settlement: Settlement, gaps: int, sequence: int | None) -> None:
        self._batch_commands.observe(len(settlement.outcomes))
        fresh = [(outcome.type, outcome.status) for outcome in settlement.outcomes if not outcome.replayed]
        if len(fresh) == 1:
            self._counter(*fresh[0]).inc()
        else:
            for (command_type, status), count in Counts(fresh).items():
                self._counter(command_type, status).inc(count)
        if len(fresh) < len(settlement.outcomes):
            self._replayed.inc(len(settlement.outcomes) - len(fresh))
        if settlement.dead_letters:
            self._dead_letters.inc(len(settlement.dead_letters))
            if emptied := sum(map(is_emptied, settlement.dead_letters)):
                self._emptied.inc(emptied)
                log.warning("dead_letters_emptied", lane=self._lane, letters=emptied)
        if settlement.dropped:
            self._dropped.inc(settlement.dropped)
        self._log_dead(settlement)
        self._note_reviews(settlement.reviews)
        if gaps != self._shown_gaps:
            self._gaps.set(gaps)
            self._shown_gaps = gaps
        if sequence is not None:
            self._sequence.set(sequence)
        if self._decided_s >= self._logged_batch_s:
            self._log_batch(settlement)

    def suspended(self, suspension: Suspension, *, is_first: bool) -> None:
        self._suspensions.inc()
        if is_first and suspension.delay_s > 0:
            about = {"cause": suspension.cause, "reason": suspension.reason, "retry_s": suspension.delay_s}
            if suspension.cause == "database":
                about |= self._database | {"what_to_do": what_to_check(self._lane, suspension.trouble)}
            log.error("lane_suspended", lane=self._lane, **about)

    def deposed(self) -> None:
        log.warning("lane_lost", lane=self._lane, reason="another consumer raised the epoch")

    def projection_failed(self, error: BaseException) -> None:
        self._projection_errors.inc()
        log.error("projection_failed", lane=self._lane, reason=described(error), traceback=traced(error))

    def _counter(self, command_type: str | None, status: str) -> Counter:
        if command_type not in self._types:
            command_type = OTHER
        known = self._commands.get((command_type, status))
        if known is None:
            known = self._commands[command_type, status] = COMMANDS.labels(self._lane, command_type, status)
        return known

    def _log_batch(self, settlement: Settlement) -> None:
        """Without arguments and results. A trace, where all of its commands are known to be of one."""
        traces = {command.cause.trace_id for command in settlement.traced}
        sequences = [outcome.sequence for outcome in settlement.outcomes if outcome.sequence is not None]
        log.info(
            "batch",
            lane=self._lane,
            epoch=self._epoch,
            commands=len(settlement.outcomes),
            first_sequence=min(sequences, default=None),
            last_sequence=max(sequences, default=None),
            duration_ms=whole_us(self._decided_s * 1000),
            command_ids=[outcome.command_id for outcome in settlement.outcomes[:LOGGED_MAX]],
            emitted=len(settlement.emitted),
            dead_letters=len(settlement.dead_letters),
            **({"trace_id": traces.pop()} if len(traces) == 1 else {}),
        )

    def _note_reviews(self, rows: Sequence[Row]) -> None:
        for row in rows:
            REVIEWS.labels(self._lane, row.table).inc()
        for row in rows[:LOGGED_MAX]:
            said = {"key": shown_key(key_of(row)), "code": getattr(row, "reason_code", None)}
            told = {name: value for name, value in said.items() if value is not None}
            marked = set(personal_fields(type(row)))
            of = {"key": key_columns(type(row)), "code": ("reason_code",)}
            personal = {name: told.pop(name) for name in tuple(told) if not marked.isdisjoint(of[name])}
            log.warning(
                "row_needs_review",
                lane=self._lane,
                table=row.table,
                **told,
                **({"personal": personal} if personal else {}),
            )
        more = len(rows) - LOGGED_MAX
        if more > 0:
            log.warning("more_rows_need_review", lane=self._lane, rows=more)

    def _log_dead(self, settlement: Settlement) -> None:
        """Log a line for each, up to a limit: thousands at once can be read in the database."""
        for letter in settlement.dead_letters[:LOGGED_MAX]:
            log.warning(
                "dead_lettered",
                lane=self._lane,
                letter=letter.id,
                copies=letter.copies,
                command_id=letter.command_id,
                type=letter.type,
                code=letter.code,
                personal={"reason": letter.reason},
                **({} if (place := authors_line(letter.traceback)) is None else {"place": place}),
            )
        more = len(settlement.dead_letters) - LOGGED_MAX
        if more > 0:
            log.warning("more_dead_lettered", lane=self._lane, letters=more)
        for bare in settlement.bare_failures[:LOGGED_MAX]:
            log.error(
                "failed_without_letter",
                lane=self._lane,
                command_id=bare.command_id,
                type=bare.type,
                code=bare.code,
                reason=bare.reason,
            )
        if settlement.dropped:
            log.warning("dead_letters_dropped", lane=self._lane, messages=settlement.dropped)
