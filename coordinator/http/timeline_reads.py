"""What a command's timeline has from the logs of a gateway's lanes, beside the command's own entry."""

import msgspec

from coordinator.client.command_log import CommandLog, CommandLogs
from coordinator.client.timeline import Related, Standing, Timeline
from coordinator.client.transaction_times import REACHES, TransactionTimes, have_whole, transaction_times
from coordinator.stores.lane_tables import LogEntry


async def transaction_in(log: CommandLog, entry: LogEntry) -> TransactionTimes | None:
    """The transaction of a settled command. Raises DatabaseUnavailable.

    None: it has more commands than a gateway looks for, since whoever asks for a command may do so again and again.
    `coordinator command` looks farther.
    """
    reach = REACHES[0]
    around = await log.passages(entry.sequence - reach, entry.sequence + reach)
    return transaction_times(entry, around) if have_whole(entry, around, reach) else None


async def with_standings(timeline: Timeline, logs: CommandLogs) -> Timeline:
    """The timeline with how its parent and its children stand: one query for each lane that has any of them.

    A command that is not settled is `unknown`: it waits with the broker, or in tables that no gateway may read. Of
    those of lanes that are served elsewhere, and of effects, nothing is said. Raises DatabaseUnavailable.
    """
    parents = () if timeline.parent is None else (timeline.parent,)
    ids: dict[str, list[str]] = {}
    for each in (*timeline.children, *parents):
        if each.lane is not None and each.lane in logs:
            ids.setdefault(each.lane, []).append(each.command_id)
    standings: dict[tuple[str, str], Standing] = {}
    for lane, wanted in ids.items():
        settled = await logs.of(lane).who_asked(wanted)
        for command_id in wanted:
            standing: Standing = "unknown"
            if (found := settled.get(command_id)) is not None and found.status:
                standing = found.status  # type: ignore[assignment]  # the lane writes no other
            standings[lane, command_id] = standing
    if not standings:
        return timeline

    def shown(each: Related) -> Related:
        standing = standings.get((each.lane or "", each.command_id), each.standing)
        return msgspec.structs.replace(each, standing=standing)

    return msgspec.structs.replace(
        timeline,
        parent=None if timeline.parent is None else shown(timeline.parent),
        children=[shown(each) for each in timeline.children],
    )
